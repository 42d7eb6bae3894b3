/** The form of a tensor input: JSON, or numbers as a table has them. */

import { el, freshId } from "./dom.js";
import { Fault, Field } from "./field.js";

const SIGNED = { int8: 2 ** 7, int32: 2 ** 31, int64: 2 ** 63 };
const LINE = 88; // characters of a written line

/** Numbers. What is sent is the text as it stands, so that a number of 64 bits keeps all its digits. */
export class TensorInput extends Field {
  constructor(name, spec, changed) {
    super(name, spec);
    const id = freshId("tensor");
    this.area = el("textarea", { id, rows: 5, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      class: "code", "aria-describedby": this.describedBy(),
      on: { input: () => { this.#check(); changed(); }, paste: (event) => this.#paste(event) } });
    this.found = el("span", { class: "found" });
    this.hint.append(`${spec.dtype} [${spec.shape.join(", ")}]${lengths(spec)} · `, this.found);
    this.node = this.frame(el("label", { for: id }, name), this.area);
    this.focusable = this.area;
    this.#check();
  }

  value() {
    const text = this.area.value.trim();
    let numbers;
    try {
      numbers = JSON.parse(text);
    } catch (error) {
      throw new Fault(this, text ? `This is no JSON: ${error.message}` : "Numbers are missing here.");
    }
    const wrong = misfit(numbers, this.spec);
    if (wrong) throw new Fault(this, wrong);
    return text;
  }

  set(value) {
    this.area.value = write(value);
    this.area.rows = Math.max(2, Math.min(12, this.area.value.split("\n").length));
    this.#check();
  }

  #check() {
    let said = "nothing yet";
    let fits = false;
    try {
      const numbers = JSON.parse(this.area.value);
      const wrong = misfit(numbers, this.spec);
      fits = !wrong;
      said = wrong ?? `now [${shapeOf(numbers).join(", ")}], fits`;
    } catch {
      if (this.area.value.trim()) said = "no JSON yet";
    }
    this.found.textContent = said;
    this.found.classList.toggle("fits", fits);
  }

  /** Cells copied from a sheet, or numbers with blanks between them, become JSON. */
  #paste(event) {
    const text = event.clipboardData?.getData("text/plain").trim() ?? "";
    const whole = this.area.value.trim() === "" || this.area.value === selected(this.area);
    const rows = whole && text && !/[[\]{}]/.test(text) ? cells(text) : null;
    if (!rows || this.spec.shape.length > 2) return;
    event.preventDefault();
    this.set(this.spec.shape.length === 2 ? rows : rows.flat());
    this.area.dispatchEvent(new Event("input"));
  }
}

function selected({ value, selectionStart, selectionEnd }) {
  return value.slice(selectionStart, selectionEnd);
}

function cells(text) {
  const rows = text.split(/\r?\n/).map((line) => line.trim().split(/[\s,;]+/).map(Number));
  return rows.every((row) => row.every(Number.isFinite)) ? rows : null;
}

function lengths(spec) {
  const said = Object.entries(spec.lengths ?? {}).map(([name, [least, most]]) => `${name}: ${least} to ${most}`);
  return said.length ? ` (${said.join(", ")})` : "";
}

/** The shape of nested lists, by their first elements. */
export function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...(value.length ? shapeOf(value[0]) : [])] : [];
}

/** What is wrong with a row, in words; null where it fits. */
export function misfit(value, spec, at = "") {
  return walk(value, spec, spec.shape, at, {});
}

function walk(value, spec, shape, at, free) {
  const here = at ? ` at ${at}` : "";
  if (!shape.length) return wrongNumber(value, spec.dtype, here);
  if (!Array.isArray(value)) return `wanted a list of ${shape[0]}${here}, got ${nameOf(value)}`;
  const length = typeof shape[0] === "number" ? shape[0] : (free[shape[0]] ??= value.length);
  if (value.length !== length) return `wanted ${length} elements${here}, got ${value.length}`;
  const [least, most] = spec.lengths?.[shape[0]] ?? [0, Infinity];
  if (value.length < least || value.length > most) {
    return `wanted ${least} to ${most} ${shape[0]}${here}, got ${value.length}`;
  }
  for (let i = 0; i < value.length; i += 1) {
    const wrong = walk(value[i], spec, shape.slice(1), `${at}[${i}]`, free);
    if (wrong) return wrong;
  }
  return null;
}

function wrongNumber(value, dtype, here) {
  if (dtype === "bool") return typeof value === "boolean" ? null : `wanted true or false${here}, got ${nameOf(value)}`;
  if (typeof value !== "number") return `wanted a number${here}, got ${nameOf(value)}`;
  if (dtype.startsWith("float")) return null;
  if (!Number.isInteger(value)) return `wanted a whole number${here}, got ${value}`;
  const [least, most] = dtype === "uint8" ? [0, 255] : [-SIGNED[dtype], SIGNED[dtype]];
  return value < least || value > most ? `wanted an ${dtype}${here}, got ${value}` : null;
}

function nameOf(value) {
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return value === null ? "null" : typeof value === "object" ? "an object" : JSON.stringify(value);
}

/** JSON that can be read: the innermost lists on lines of their own. */
export function write(value, indent = "") {
  if (!Array.isArray(value)) return JSON.stringify(value);
  if (!value.some(Array.isArray)) return wrap(value.map((one) => JSON.stringify(one)), indent);
  const inner = value.map((one) => `${indent} ${write(one, `${indent} `)}`);
  return `[\n${inner.join(",\n")}\n${indent}]`;
}

function wrap(items, indent) {
  const lines = [""];
  for (const [index, item] of items.entries()) {
    const piece = item + (index < items.length - 1 ? ", " : "");
    if (lines[lines.length - 1].length + piece.length > LINE) lines.push("");
    lines[lines.length - 1] += piece;
  }
  return `[${lines.map((line) => line.trimEnd()).join(`\n${indent} `)}]`;
}
