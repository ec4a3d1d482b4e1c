/** Returns an element; texts are never markup. */
export function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter(child => child !== null));
  return made;
}

export function say(text) {
  document.getElementById("message").textContent = text;
}

/** Asks the server; waits and asks again while it is busy. The answer is JSON, with `error` if there is one. */
export async function ask(path, body = null, tries = 20) {
  try {
    const answer = await fetch(path, body === null ? {} : { method: "POST", body });
    if (answer.status === 503 && tries > 1) {
      await new Promise(done => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)));
      return ask(path, body, tries - 1);
    }
    return await answer.json();
  } catch {
    return { error: "The server does not answer; nothing was changed. Start it again, and repeat this." };
  }
}

/** Returns the image with this number; `small` for a thumbnail. */
export function picture(number, small, alt) {
  const image = el("img", { src: `/images/${number}${small ? "?small=1" : ""}`, alt, loading: small ? "lazy" : "eager" });
  if (small) image.width = image.height = 72;
  image.addEventListener("error", () => image.replaceWith(el("span", { className: "gone", textContent: "not there any more" })));
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 100));
  return image;
}

export const percent = rate => `${(100 * rate).toFixed(rate > 0.9995 ? 2 : 1)} %`;

/** Returns the labels as bars, the best first. */
export function bars(top) {
  return el("ol", { className: "bars" }, ...top.map(([label, score]) => {
    const fill = el("i");
    fill.style.width = `${100 * score}%`;
    return el("li", {}, el("span", { className: "label", textContent: label }), el("span", { className: "bar" }, fill), el("span", { className: "score", textContent: percent(score) }));
  }));
}

export function nearest(near) {
  if (!near.length) return null;
  return el("div", {}, el("h3", { textContent: "Nearest training images" }), el("div", { className: "tiles" }, ...near.map(one =>
    el("figure", {}, picture(one.image, true, ""), el("figcaption", { title: one.key }, el("strong", { textContent: one.label }), ` ${one.cosine.toFixed(3)}`)))));
}
