"use strict";
// All can be read without this script, which adds what it needs to the page.
const make = (tag, values, ...children) => {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
};
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// A click on a column's head sorts its table.
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length < 3) continue;
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    const isNumber = head.classList.contains("number") || head.classList.contains("rate");
    const valueOf = row => {
      const text = row.cells[column].textContent.trim();
      return isNumber ? parseFloat(text.replaceAll(",", "")) : text;
    };
    const compare = (a, b) => isNumber ? isNaN(a) - isNaN(b) || a - b : a.localeCompare(b, "en", { numeric: true });
    button.onclick = () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      const rows = [...body.rows].sort((a, b) => compare(valueOf(a), valueOf(b)));
      body.append(...(order === "ascending" ? rows : rows.reverse()));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
    };
  }
}

// What is typed hides what does not have these words, in itself or in the headings above it.
const filter = (before, things, items, words) => {
  if (items.length < 8) return;
  const said = make("output"), input = make("input", { type: "search", autocomplete: "off" });
  const texts = items.map(item => words(item).toLowerCase());
  input.oninput = () => {
    const wanted = input.value.toLowerCase().split(/\s+/);
    items.forEach((item, place) => { item.hidden = !wanted.every(word => texts[place].includes(word)); });
    for (const box of all(".group, .label", before.parentElement)) box.hidden = !box.querySelector("figure:not([hidden])");
    said.textContent = input.value ? `${items.filter(item => !item.hidden).length} of ${items.length} ${things}` : "";
  };
  before.before(make("p", { className: "tools" }, make("label", {}, `Filter the ${things}`, input), said));
};
for (const section of all(".filtered")) {
  const headings = figure => [figure.closest(".label").querySelector("h3"), figure.closest(".group").querySelector("h4")];
  const words = figure => [...headings(figure), figure].map(element => element.textContent).join(" ");
  filter(section.querySelector(".label"), "images", all("figure", section), words);
}
for (const table of all("table.sortable"))
  filter(table.parentElement, "rows", table.rows.length > 12 ? [...table.tBodies[0].rows] : [], row => row.textContent);

// One label of the map stands out.
for (const map of all("svg.map")) {
  const groups = all("g", map);
  const select = make("select", {}, make("option", { value: "" }, "all labels"));
  groups.forEach((group, place) => select.append(make("option", { value: place }, group.dataset.label)));
  select.onchange = () => groups.forEach((group, place) => group.classList.toggle("dim", select.value !== "" && +select.value !== place));
  map.before(make("p", { className: "tools" }, make("label", {}, "Show", select)));
}

// The arrow keys turn over the enlarged images, Escape closes them.
const opened = () => document.querySelector("figure:target");
const close = figure => {
  location.replace(figure.querySelector(".close").href);
  figure.querySelector("a").focus();
};
addEventListener("hashchange", () => opened()?.querySelector(".close").focus());
addEventListener("click", event => {
  const figure = event.target.closest("figure:target");
  if (!figure) return;
  event.preventDefault();
  close(figure);
});
addEventListener("keydown", event => {
  const figure = opened(), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (figure && event.key === "Escape") close(figure);
  if (!figure || !step) return;
  const figures = all("figure:not([hidden])").filter(one => one.querySelector(".enlarge"));
  const next = figures[figures.indexOf(figure) + step];
  if (next) location.replace(`#${next.id}`);
  event.preventDefault();
});

// Words beside the shadow where a table goes on.
const boxes = all(".scroll").map(box => [box, make("p", { className: "sideways", hidden: true }, "scroll sideways →")]);
const say = () => boxes.forEach(([box, words]) => { words.hidden = box.scrollWidth <= box.clientWidth + 1; });
for (const [box, words] of boxes) box.before(words);
addEventListener("resize", say);
say();
