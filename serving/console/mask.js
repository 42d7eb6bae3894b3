/** A segmentation's answer: its mask over the picture, a legend, the areas. */

import { copyOf, el } from "./dom.js";
import { hue } from "./labels.js";
import { percent } from "./numbers.js";

/** The mask, with labels that can be switched off and the picture below it. */
export function mask(spec, answer, { picture }) {
  const [height, width] = answer.size;
  const hidden = new Set();
  let indices = null;
  const over = el("canvas", { width, height, role: "img", class: "mask", "aria-busy": "true",
    "aria-label": summary(answer) });
  const under = picture ? copyOf(picture) : null; // for each head its own
  under?.setAttribute("aria-hidden", "true");
  const strength = el("input", { type: "range", min: 0, max: 100, value: under ? 65 : 100,
    on: { input: () => { over.style.opacity = strength.value / 100; } } });
  over.style.opacity = strength.value / 100;
  const pointed = el("span", { class: "aside pointed" });
  const stage = el("div", { class: under ? "overlay" : "overlay bare" }, under, over);
  const legend = legendOf(spec, answer, hidden, () => indices && paint(over, indices, legend.colours, hidden));
  over.addEventListener("pointermove", (event) => {
    const box = over.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
    const index = indices?.[Math.min(height - 1, Math.floor(y)) * width + Math.min(width - 1, Math.floor(x))];
    if (indices) pointed.textContent = index === undefined ? "" : `${Math.floor(x)}, ${Math.floor(y)}: ${spec.labels[index]}`;
  });
  found(answer, height, width).then((those) => {
    indices = those;
    over.removeAttribute("aria-busy");
    if (indices) legend.ready();
    else pointed.textContent = "A mask of so many labels is drawn from runs alone.";
  });
  return el("div", { class: "segmentation" }, stage, el("div", { class: "beside" }, legend.node,
    el("label", { class: "brush" }, "Mask ", strength), pointed));
}

function summary(answer) {
  const parts = answer.labels.map((label, index) => `${label} ${percent(answer.areas[index])}`);
  return `mask of ${answer.size[1]} by ${answer.size[0]} pixels: ${parts.join(", ")}`;
}

/** Runs of label index (among all labels of the head, not those found) and number of pixels, row by row. */
function unpacked(runs, size) {
  const indices = new Uint16Array(size);
  let at = 0;
  for (const [index, count] of runs) {
    indices.fill(index, at, at + count);
    at += count;
  }
  return indices;
}

/** The index of each pixel's label, as runs have them, or the picture that the server made for the option `mask: png`. */
async function found(answer, height, width) {
  return answer.runs ? unpacked(answer.runs, height * width) : decoded(answer.png, height, width);
}

/** The gray levels of a PNG: each is the index of a label. Null for one of 16 bits, of which a canvas keeps eight. */
async function decoded(png, height, width) {
  const depth = atob(png.slice(0, 48)).charCodeAt(24);
  if (depth > 8) return null;
  const image = el("img", { alt: "", src: `data:image/png;base64,${png}` });
  await image.decode();
  const context = el("canvas", { width, height }).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return Uint16Array.from({ length: height * width }, (_, at) => data[at * 4]);
}

function legendOf(spec, answer, hidden, changed) {
  const swatches = new Map();
  const items = answer.labels.map((label, at) => {
    const index = spec.labels.indexOf(label);
    const swatch = el("span", { class: `swatch ${hue(spec.labels, label)}`, "aria-hidden": "true" });
    swatches.set(index, swatch);
    const box = el("input", { type: "checkbox", checked: true, on: { change: () => {
      if (box.checked) hidden.delete(index); else hidden.add(index);
      changed();
    } } });
    return el("li", { data: { label } }, el("label", {}, box, swatch, el("span", { class: "label" }, label),
      el("span", { class: "value" }, percent(answer.areas[at]))));
  });
  const legend = { node: el("ul", { class: "legend" }, items), colours: [] };
  // Only once it is on the page has a swatch the colour that the style sheet gives it.
  legend.ready = () => {
    for (const [index, swatch] of swatches) legend.colours[index] = rgb(getComputedStyle(swatch).backgroundColor);
    changed();
  };
  return legend;
}

function rgb(colour) {
  const canvas = el("canvas", { width: 1, height: 1 });
  const context = canvas.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function paint(canvas, indices, colours, hidden) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  indices.forEach((index, at) => {
    if (!hidden.has(index)) pixels.data.set([...(colours[index] ?? [128, 128, 128]), 255], at * 4);
  });
  context.putImageData(pixels, 0, 0);
}
