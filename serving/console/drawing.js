/** A surface to draw on: by mouse, pen and finger, or by keys. */

import { el } from "./dom.js";

const UNDO = 20; // strokes that can be taken back
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A canvas with a pen.
 *
 * Its pixels are what is sent, so that its size is the picture's: a multiple of what the model takes.
 */
export class Drawing {
  /**
   * @param {object} options `width`, `height` in pixels; `ink`, `paper`: CSS colours; `brush`: the pen's width in
   *   pixels; `cell`: pixels that a key moves the pen by; `label`: what it is called; `changed`: called after a stroke.
   */
  constructor({ width, height, ink, paper, brush, cell, label, changed }) {
    Object.assign(this, { width, height, ink, paper, brush, cell, changed });
    this.past = [];
    this.pen = { x: width / 2, y: height / 2, down: false };
    this.empty = true;
    this.canvas = el("canvas", { width, height, tabindex: 0, role: "application", "aria-label": label,
      "aria-roledescription": "drawing surface", class: "drawing" });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.cursor = el("span", { class: "pen", "aria-hidden": "true", hidden: true });
    this.node = el("div", { class: "surface" }, this.canvas, this.cursor);
    this.fill();
    this.#listen();
  }

  /** All paper. */
  fill() {
    this.context.fillStyle = this.paper;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.empty = true;
  }

  clear() {
    this.#remember();
    this.fill();
    this.changed();
  }

  undo() {
    const last = this.past.pop();
    if (!last) return;
    this.#resize(last.pixels.width, last.pixels.height);
    this.context.putImageData(last.pixels, 0, 0);
    this.empty = last.empty;
    this.changed();
  }

  /** Ink becomes paper and paper ink, in what is drawn as well. */
  invert() {
    this.#remember();
    [this.ink, this.paper] = [this.paper, this.ink];
    const pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      for (let c = 0; c < 3; c += 1) pixels.data[i + c] = 255 - pixels.data[i + c];
    }
    this.context.putImageData(pixels, 0, 0);
    this.changed();
  }

  /** Show a picture in place of what is drawn: in its own proportions, `width` x `height` pixels. */
  show(picture, width, height) {
    this.#resize(width, height);
    const grows = width > (picture.naturalWidth ?? picture.width);
    this.context.imageSmoothingEnabled = !grows; // the pixels of a small picture are to be seen
    this.context.drawImage(picture, 0, 0, width, height);
    this.past = [];
    this.empty = false;
  }

  /** Back to the size that drawings have. */
  reset() {
    this.#resize(this.width, this.height);
    this.fill();
    this.past = [];
  }

  #resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.fill();
  }

  #remember() {
    const pixels = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.past = [...this.past.slice(1 - UNDO), { pixels, empty: this.empty }];
  }

  #stroke(from, to) {
    const { context } = this;
    context.strokeStyle = context.fillStyle = this.ink;
    context.lineWidth = this.brush;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x + (from.x === to.x && from.y === to.y ? 0.01 : 0), to.y);
    context.stroke();
    this.empty = false;
  }

  #listen() {
    const { canvas } = this;
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#remember();
      last = this.#at(event);
      this.#stroke(last, last);
      this.cursor.hidden = true;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      // Between two frames a fast hand moves far: the browser has kept the places in between.
      for (const each of event.getCoalescedEvents?.() ?? []) {
        const next = this.#at(each);
        this.#stroke(last, next);
        last = next;
      }
      const here = this.#at(event);
      this.#stroke(last, here);
      last = here;
    });
    const lift = () => { if (last) this.changed(); last = null; };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => { this.cursor.hidden = true; });
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * this.canvas.width,
      y: ((event.clientY - box.top) / box.height) * this.canvas.height };
  }

  #key(event) {
    const step = KEYS[event.key];
    if (step) this.#move(step);
    else if (event.key === " ") this.#dip();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
    this.#showPen();
  }

  #move([x, y]) {
    const { pen, canvas, cell } = this;
    const next = { x: Math.max(0, Math.min(canvas.width, pen.x + x * cell)),
      y: Math.max(0, Math.min(canvas.height, pen.y + y * cell)) };
    if (pen.down) this.#stroke(pen, next);
    Object.assign(pen, next);
    if (pen.down) this.changed();
  }

  /** Put the pen down, or lift it. */
  #dip() {
    this.pen.down = !this.pen.down;
    if (!this.pen.down) return;
    this.#remember();
    this.#stroke(this.pen, this.pen);
    this.changed();
  }

  #showPen() {
    const { pen, cursor, canvas } = this;
    cursor.hidden = false;
    cursor.classList.toggle("down", pen.down);
    cursor.style.left = `${(pen.x / canvas.width) * 100}%`;
    cursor.style.top = `${(pen.y / canvas.height) * 100}%`;
  }
}

/**
 * A picture at the model's own size: each pixel the mean of those that it covers.
 * @returns {HTMLCanvasElement}
 */
export function shrunk(canvas, width, height, gray) {
  const source = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const made = el("canvas", { width, height });
  const context = made.getContext("2d");
  const target = context.createImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const mean = average(source, (x * source.width) / width, ((x + 1) * source.width) / width,
        (y * source.height) / height, ((y + 1) * source.height) / height);
      const light = 0.299 * mean[0] + 0.587 * mean[1] + 0.114 * mean[2];
      target.data.set(gray ? [light, light, light, 255] : [...mean, 255], (y * width + x) * 4);
    }
  }
  context.putImageData(target, 0, 0);
  return made;
}

function average({ data, width }, left, right, top, bottom) {
  const total = [0, 0, 0];
  let count = 0;
  for (let y = Math.floor(top); y < Math.max(Math.floor(top) + 1, Math.floor(bottom)); y += 1) {
    for (let x = Math.floor(left); x < Math.max(Math.floor(left) + 1, Math.floor(right)); x += 1) {
      for (let c = 0; c < 3; c += 1) total[c] += data[(y * width + x) * 4 + c];
      count += 1;
    }
  }
  return total.map((sum) => sum / count);
}
