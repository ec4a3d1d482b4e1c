import { ask, bars, el, nearest, say } from "/static/lib.js";

const MAX_FILES = 50, AT_ONCE = 4;
const results = document.getElementById("results"), drop = document.getElementById("drop");
const waiting = [];
let running = 0;

function look(blob, name) {
  const image = el("img", { src: URL.createObjectURL(blob), alt: name });
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth < 100));
  const said = el("div", { textContent: "..." });
  results.prepend(el("article", { className: "result" }, image, said));
  waiting.push({ blob, name, said });
  next();
}

async function next() {
  if (running >= AT_ONCE || !waiting.length) return;
  running += 1;
  const { blob, name, said } = waiting.shift();
  const answer = await ask("/try", blob);
  running -= 1;
  const fault = answer.error || answer.fault;
  if (fault) said.replaceChildren(el("h2", { textContent: name }), el("p", { className: "missed", textContent: fault }));
  else said.replaceChildren(el("h2", { textContent: answer.top[0][0] }), el("small", { textContent: name }), bars(answer.top), nearest(answer.near) || "");
  next();
}

function lookAtAll(files) {
  const images = [...files].filter(file => file.type.startsWith("image/") || !file.type);
  say(images.length > MAX_FILES ? `Only the first ${MAX_FILES} of ${images.length} images are shown.` : files.length && !images.length ? "This is no image." : "");
  images.slice(0, MAX_FILES).forEach(file => look(file, file.name || "pasted"));
}

for (const id of ["files", "camera"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => { lookAtAll(input.files); input.value = ""; });
}
document.addEventListener("paste", event => lookAtAll(event.clipboardData.files));
document.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); lookAtAll(event.dataTransfer.files); });

const canvas = document.getElementById("canvas");
if (canvas) draw();

function draw() {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let timer = 0, last = null;
  const pen = { x: 140, y: 140, down: false };

  function clear() {
    clearTimeout(timer);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  function line(from, to) {
    Object.assign(context, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    clearTimeout(timer);
    timer = setTimeout(finish, 500);
  }
  function finish() {
    const drawn = asMnist(canvas, document.getElementById("dark").checked);
    if (drawn) drawn.toBlob(blob => look(blob, "drawn"), "image/png");
  }
  function place(event) {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) * canvas.width / box.width, y: (event.clientY - box.top) * canvas.height / box.height };
  }
  canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); last = place(event); line(last, last); });
  canvas.addEventListener("pointermove", event => {
    if (!last) return;
    const to = place(event);
    line(last, to);
    last = to;
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { last = null; });
  canvas.addEventListener("keydown", event => {
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    if (event.key === " ") pen.down = !pen.down;
    else if (event.key === "Delete") clear();
    else if (!right && !down) return;
    event.preventDefault();
    const from = { ...pen };
    pen.x = Math.min(270, Math.max(10, pen.x + 10 * right));
    pen.y = Math.min(270, Math.max(10, pen.y + 10 * down));
    if (pen.down) line(from, pen);
  });
  document.getElementById("clear").addEventListener("click", clear);
  clear();
}

/**
 * Returns the drawing as MNIST's were made: the ink fills a box of 20 x 20 pixels, without a change of its shape, whose
 * centre of mass lies in the middle of 28 x 28. See http://yann.lecun.com/exdb/mnist/.
 */
export function asMnist(drawn, isDark) {
  const { width, height } = drawn, pixels = drawn.getContext("2d").getImageData(0, 0, width, height).data;
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (pixels[4 * (y * width + x)] > 30) {
    left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  if (right < 0) return null;
  const scale = 20 / Math.max(right - left + 1, bottom - top + 1);
  const w = Math.max(1, Math.round((right - left + 1) * scale)), h = Math.max(1, Math.round((bottom - top + 1) * scale));
  const box = smooth(drawn, left, top, right - left + 1, bottom - top + 1, w, h);
  const ink = box.getContext("2d").getImageData(0, 0, w, h).data;
  let mass = 0, massX = 0, massY = 0;
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const value = ink[4 * (y * w + x)];
    mass += value; massX += value * (x + 0.5); massY += value * (y + 0.5);
  }
  const middle = (at, size) => Math.min(28 - size, Math.max(0, Math.round(14 - at)));
  const small = el("canvas", { width: 28, height: 28 }), context = small.getContext("2d");
  context.fillRect(0, 0, 28, 28);
  context.drawImage(box, middle(massX / mass, w), middle(massY / mass, h));
  if (isDark) {
    context.globalCompositeOperation = "difference";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, 28, 28);
  }
  return small;
}

/** Returns a part of a canvas as w x h pixels, each the mean of what it covers. */
function smooth(from, x, y, width, height, w, h) {
  const part = from.getContext("2d").getImageData(x, y, width, height).data;
  const small = el("canvas", { width: w, height: h }), context = small.getContext("2d"), made = context.createImageData(w, h);
  for (let row = 0; row < h; row++) for (let column = 0; column < w; column++) {
    const y0 = Math.floor(row * height / h), y1 = Math.max(y0 + 1, Math.floor((row + 1) * height / h));
    const x0 = Math.floor(column * width / w), x1 = Math.max(x0 + 1, Math.floor((column + 1) * width / w));
    let sum = 0;
    for (let at = y0; at < Math.min(y1, height); at++) for (let along = x0; along < Math.min(x1, width); along++) sum += part[4 * (at * width + along)];
    made.data.set([0, 0, 0].fill(sum / ((y1 - y0) * (x1 - x0))).concat(255), 4 * (row * w + column));
  }
  context.putImageData(made, 0, 0);
  return small;
}
