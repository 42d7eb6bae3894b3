/** The form of an image input: drawn, chosen, dropped, pasted, or as numbers. */

import { el, freshId, replace } from "./dom.js";
import { Drawing, shrunk } from "./drawing.js";
import { Fault, Field } from "./field.js";
import { bytes } from "./numbers.js";

const SURFACE = 256; // pixels of the longer side that a drawing aims at
const SHOWN = 512; // pixels of the longer side that a file is shown with
const SEEN = 64; // up to this size, what the model sees is worth showing
const TYPES = ["image/png", "image/jpeg"];
const INKS = { light: "#ffffff", dark: "#000000" };

/** A picture. A file is sent as it is, byte for byte; a drawing as the PNG of its canvas; the server resizes. */
export class ImageInput extends Field {
  /** @param {boolean} bright whether the model's data is bright on dark, as its golden samples have it. */
  constructor(name, spec, changed, bright) {
    super(name, spec);
    this.changed = changed;
    this.file = null; // {name, base64, size}: sent as it is
    const [height, width] = spec.size;
    const scale = spec.resize === "none" ? 1 : Math.max(1, Math.floor(SURFACE / Math.max(height, width)));
    const id = freshId("drawing");
    this.drawing = new Drawing({ width: width * scale, height: height * scale, cell: Math.max(1, scale / 2),
      ink: bright ? INKS.light : INKS.dark, paper: bright ? INKS.dark : INKS.light,
      brush: Math.max(1, Math.round((Math.max(width, height) * scale) / 9)), changed: () => this.#drawn(),
      label: `${name}: draw here; arrow keys move the pen, space puts it down or lifts it, Delete clears` });
    this.drawing.canvas.id = id;
    this.focusable = this.drawing.canvas;
    this.drawing.canvas.setAttribute("aria-describedby", this.describedBy());
    this.seen = el("div", { class: "seen", "aria-hidden": "true" });
    this.source = el("p", { class: "source" });
    this.node = this.frame(el("label", { for: id }, name),
      el("div", { class: "stage" }, this.drawing.node, el("div", { class: "tools" }, this.#tools(), this.source, this.seen)));
    this.hint.append(`${width} × ${height} ${spec.channels}, ${resizing(spec)}. PNG or JPEG: drop or paste a file, or draw.`);
    this.#receive();
    this.#show();
  }

  value() {
    if (this.file) return JSON.stringify({ b64: this.file.base64 });
    if (this.drawing.empty) throw new Fault(this, "Draw something, or choose a file.");
    return JSON.stringify({ b64: this.drawing.canvas.toDataURL("image/png").split(",")[1] });
  }

  /** A value as a request has it: `{b64}`, or pixels in lists. */
  async set(value) {
    const base64 = value?.b64 ?? null;
    if (base64 === null) this.#pixels(value);
    else await this.#open({ name: "example", base64 });
  }

  picture() {
    return this.drawing.canvas;
  }

  #tools() {
    const { drawing } = this;
    const picker = el("input", { type: "file", accept: TYPES.join(","), class: "off-screen", tabindex: -1,
      "aria-label": `a file for ${this.name}`, on: { change: () => { this.#take(picker.files[0]); picker.value = ""; } } });
    const button = (label, act, title) => el("button", { type: "button", class: "quiet", title, on: { click: act } }, label);
    const size = el("input", { type: "range", min: 1, max: Math.round(drawing.width / 3), value: drawing.brush,
      on: { input: () => { drawing.brush = Number(size.value); } } });
    const ink = this.spec.channels !== "gray" && el("label", { class: "ink" }, "Ink ",
      el("input", { type: "color", value: drawing.ink, on: { input: (event) => { drawing.ink = event.target.value; } } }));
    return [
      el("div", { class: "row" }, button("Choose a file…", () => picker.click()), picker,
        button("Clear", () => this.clear()), button("Undo", () => drawing.undo()),
        button("Invert", () => drawing.invert(), "Swap light and dark")),
      el("div", { class: "row" }, el("label", { class: "brush" }, "Pen ", size), ink),
    ];
  }

  clear() {
    this.file = null;
    this.drawing.reset();
    this.#show();
    this.changed();
  }

  #drawn() {
    this.file = null; // what is sent from now on is what is seen
    this.#show();
    this.changed();
  }

  /** Files that are dropped on it. */
  #receive() {
    const over = (on) => (event) => { event.preventDefault(); this.node.classList.toggle("over", on); };
    this.node.addEventListener("dragover", over(true));
    this.node.addEventListener("dragleave", over(false));
    this.node.addEventListener("drop", (event) => { over(false)(event); this.#take(event.dataTransfer.files[0]); });
  }

  /** A file that is pasted anywhere; says whether there was one. */
  paste(event) {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) this.#take(file);
    return Boolean(file);
  }

  async #take(file) {
    if (!file) return;
    if (!TYPES.includes(file.type)) {
      this.blame(`${file.name} is ${file.type || "of an unknown type"}: choose a PNG or a JPEG.`);
      return;
    }
    const read = await dataUrl(file);
    if (await this.#open({ name: file.name, base64: read.split(",")[1], type: file.type })) this.changed();
  }

  async #open({ name, base64, type }) {
    const picture = new Image();
    picture.src = `data:${type ?? typeOf(base64)};base64,${base64}`;
    try {
      await picture.decode();
    } catch {
      this.blame(`${name} cannot be shown: it is no whole PNG or JPEG.`);
      return false;
    }
    const [height, width] = [picture.naturalHeight, picture.naturalWidth];
    const longer = Math.max(height, width);
    const scale = longer <= SURFACE ? Math.floor(SURFACE / longer) : Math.min(1, SHOWN / longer);
    const fits = this.spec.resize === "none" ? 1 : scale; // drawn upon, it must still have the model's size
    this.drawing.show(picture, Math.max(1, Math.round(width * fits)), Math.max(1, Math.round(height * fits)));
    this.file = { name, base64, width, height, size: Math.floor((base64.length * 3) / 4) };
    this.blame(null);
    this.#show();
    return true;
  }

  /** Lists of pixels, shown as a drawing and sent as one: PNG keeps them as they are. */
  #pixels(rows) {
    const [height, width] = [rows.length, rows[0].length];
    const made = el("canvas", { width, height });
    const data = new ImageData(width, height);
    rows.flat().forEach((pixel, index) => {
      const channels = Array.isArray(pixel) ? pixel : [pixel];
      data.data.set(channels.length === 1 ? [channels[0], channels[0], channels[0], 255] : [...channels, 255], index * 4);
    });
    made.getContext("2d").putImageData(data, 0, 0);
    this.drawing.show(made, width, height);
    this.file = null;
    this.#show();
  }

  #show() {
    const { canvas } = this.drawing;
    const [height, width] = this.spec.size;
    const { file } = this;
    const how = file ? `${file.name} · ${file.width} × ${file.height} · ${bytes(file.size)}, sent as it is`
      : this.drawing.empty ? "Nothing drawn yet" : `A drawing · sent as a PNG of ${canvas.width} × ${canvas.height}`;
    this.source.textContent = how;
    canvas.classList.toggle("pixels", Math.max(canvas.width, canvas.height) <= SEEN);
    if (Math.max(height, width) > SEEN) return;
    replace(this.seen, shrunk(canvas, width, height, this.spec.channels === "gray"), el("span", {}, "as the model sees it"));
  }
}

function resizing({ resize }) {
  return resize === "none" ? "no other size is taken" : `resized by the server (${resize})`;
}

function typeOf(base64) {
  return base64.startsWith("/9j/") ? "image/jpeg" : "image/png";
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

/** Whether a picture is bright on dark: its border is what is behind its subject. */
export async function brightOnDark(base64) {
  const picture = new Image();
  picture.src = `data:${typeOf(base64)};base64,${base64}`;
  await picture.decode();
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  const canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  let [sum, count] = [0, 0];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (x && y && x < width - 1 && y < height - 1) continue;
      sum += data[(y * width + x) * 4];
      count += 1;
    }
  }
  return sum / count < 128;
}
