import { ask, el, nearest, percent, picture, say } from "/static/lib.js";

const WORDS = { keep: "kept", drop: "of no class", unsure: "unsure" };
const byId = id => document.getElementById(id);
const undone = [];
let items = [], labels = [], decisions = {}, kind = "all", at = 0, isGrid = false, work = Promise.resolve(), timer = 0;

const shown = () => kind === "all" ? items : items.filter(item => item.kinds.includes(kind)).sort((one, other) => one.ranks[kind] - other.ranks[kind]);
const guess = item => item.suggested || item.predicted;
const inWords = one => one ? (one.decision === "relabel" ? `now ${one.label}` : WORDS[one.decision]) : "";

async function begin() {
  const answer = await ask("/review/items");
  if (answer.error) return say(answer.error);
  ({ labels, decisions } = answer);
  items = answer.items.map((item, index) => ({ ...item, index }));
  byId("labels").replaceChildren(...labels.map(label => el("option", { value: label, textContent: label })));
  const kinds = ["all", ...new Set(items.flatMap(item => item.kinds))];
  byId("kinds").replaceChildren(...kinds.map(name => {
    const count = items.filter(item => name === "all" || item.kinds.includes(name)).length;
    const button = el("button", { type: "button", textContent: `${name} ${count}`, onclick: () => choose(name) });
    button.dataset.kind = name;
    return button;
  }));
  choose("all");
}

function choose(name) {
  kind = name;
  for (const button of byId("kinds").children) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
  const list = shown();
  at = Math.max(0, list.findIndex(item => !decisions[item.index]));
  render();
}

function render() {
  const list = shown(), left = list.filter(item => !decisions[item.index]).length;
  byId("left").textContent = list.length ? `${left} of ${list.length} left` : "Nothing to review.";
  byId("done").value = list.length ? (list.length - left) / list.length : 1;
  document.querySelector("[data-key=g]").setAttribute("aria-pressed", String(isGrid));
  byId("one").hidden = isGrid;
  byId("grid").hidden = !isGrid;
  if (isGrid) renderGrid(list);
  else renderOne(list[at]);
}

function renderOne(item) {
  if (!item) return byId("one").replaceChildren();
  const decision = decisions[item.index], near = el("div");
  const facts = [["label", item.label], ["predicted", item.predicted && `${item.predicted}, ${percent(item.confidence / 100)}`], ["suggested", item.suggested], ["why", item.kinds.join(", ")], ["decision", inWords(decision) || "none yet"], ["note", decision && decision.note]];
  byId("one").replaceChildren(
    picture(item.image, false, `${item.name}, labelled ${item.label}`),
    el("div", {},
      el("h2", { textContent: item.name }),
      el("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", { textContent: name }), el("dd", { textContent: value })])),
      el("div", { className: "tiles" }, ...item.like.map(([number, words]) => el("figure", {}, picture(number, true, ""), el("figcaption", { textContent: words })))),
      near));
  clearTimeout(timer);
  timer = setTimeout(async () => {
    item.near ??= (await ask(`/review/like/${item.index}`)).near || [];
    near.replaceChildren(nearest(item.near) || "");
  }, 200);
}

function renderGrid(list) {
  const grid = byId("grid");
  if (grid.list !== kind) {
    grid.list = kind;
    grid.replaceChildren(...list.map((item, place) => {
      const tile = el("button", { type: "button", className: "tile", onclick: () => { at = place; render(); }, ondblclick: () => { isGrid = false; render(); } },
        picture(item.image, true, ""), el("span", { className: "label", textContent: guess(item) ? `${item.label} \u2192 ${guess(item)}` : item.label }), el("span", { className: "decision" }));
      tile.title = item.name;
      return tile;
    }));
  }
  list.forEach((item, place) => {
    const tile = grid.children[place], decision = decisions[item.index];
    tile.tabIndex = place === at ? 0 : -1;
    tile.classList.toggle("decided", Boolean(decision));
    tile.lastChild.textContent = inWords(decision);
  });
  grid.children[at]?.focus();
}

async function decide(item, decision, label = "", note = undefined) {
  const before = decisions[item.index] || null;
  const answer = await ask("/review/decide", JSON.stringify({ item: item.index, sha256: item.sha256, decision, label, note: note ?? before?.note ?? "", seen: before }));
  say(answer.error || "");
  if (answer.decisions) decisions = answer.decisions;
  return answer.error ? null : before;
}

async function decideHere(decision, label) {
  const list = shown(), item = list[at];
  if (!item) return;
  const before = await decide(item, decision, label);
  if (byId("message").textContent) return render();
  undone.push({ index: item.index, before });
  const next = list.findIndex((other, place) => place > at && !decisions[other.index]);
  at = next >= 0 ? next : Math.max(0, list.findIndex(other => !decisions[other.index]));
  if (next < 0 && list.every(other => decisions[other.index])) at = list.indexOf(item);
  render();
}

async function undo() {
  const last = undone.pop();
  if (!last) return say("There is nothing to undo.");
  await decide(items[last.index], last.before?.decision ?? null, last.before?.label, last.before?.note ?? "");
  if (byId("message").textContent) undone.push(last);
  const place = shown().findIndex(item => item.index === last.index);
  if (place >= 0) at = place;
  render();
}

function asked(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise(done => dialog.addEventListener("close", () => done(dialog.returnValue === "ok"), { once: true }));
}

async function relabel() {
  const item = shown()[at];
  if (!item) return;
  byId("labels").value = guess(item) || item.label;
  if (await asked(byId("relabel"))) await decideHere("relabel", byId("labels").value);
}

async function note() {
  const item = shown()[at], decision = item && decisions[item.index];
  if (!decision) return say("Decide first: a note belongs to a decision.");
  byId("note").value = decision.note;
  if (await asked(byId("noting"))) await decide(item, decision.decision, decision.label, byId("note").value);
  render();
}

function move(by) {
  at = Math.min(shown().length - 1, Math.max(0, at + by));
  render();
}

/** Returns how many tiles are in a row. */
const columns = () => Math.max(1, getComputedStyle(byId("grid")).gridTemplateColumns.split(" ").length);

const KEYS = {
  k: () => decideHere("keep"), p: () => shown()[at] && guess(shown()[at]) && decideHere("relabel", guess(shown()[at])), r: relabel, x: () => decideHere("drop"), u: () => decideHere("unsure"),
  z: undo, n: note, g: () => { isGrid = !isGrid; render(); }, ArrowLeft: () => move(-1), ArrowRight: () => move(1),
  ArrowUp: () => move(isGrid ? -columns() : -1), ArrowDown: () => move(isGrid ? columns() : 1), Enter: () => { isGrid = false; render(); },
};
const act = key => { work = work.then(KEYS[key]); };

document.addEventListener("keydown", event => {
  const isTyping = event.target.closest("input, select, dialog") || event.ctrlKey || event.metaKey || event.altKey;
  const isButton = event.key === "Enter" && !event.target.closest(".tile");
  if (isTyping || isButton || !Object.hasOwn(KEYS, event.key) || (event.key.startsWith("Arrow") && !isGrid && event.key.match(/Up|Down/))) return;
  event.preventDefault();
  act(event.key);
});
for (const button of document.querySelectorAll("[data-key]")) button.addEventListener("click", () => act(button.dataset.key));
byId("labels").addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); byId("relabel").close("ok"); } });
byId("labels").addEventListener("dblclick", () => byId("relabel").close("ok"));

/** Shows what other pages have decided. */
async function refresh() {
  if (document.hidden || document.querySelector("dialog[open]")) return;
  const answer = await ask("/review/decisions");
  if (!answer.decisions || JSON.stringify(answer.decisions) === JSON.stringify(decisions)) return;
  decisions = answer.decisions;
  render();
}
document.addEventListener("visibilitychange", refresh);
setInterval(() => { work = work.then(refresh); }, 5000);

begin();
