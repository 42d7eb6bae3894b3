/** The request: a form for each input, the heads that are wanted, the options. */

import { copyOf, el, freshId } from "./dom.js";
import { ImageInput, brightOnDark } from "./imageinput.js";
import { Rows } from "./rows.js";
import { Tabs } from "./tabs.js";
import { TensorInput } from "./tensorinput.js";
import { TextInput } from "./textinput.js";
import { counted } from "./numbers.js";

const TOP = 5;
const LABELS = 200; // up to as many, every label's score is asked for
const KINDS = { text: TextInput, image: ImageInput, tensor: TensorInput };

/** A form made for one model. */
export class Form {
  /**
   * @param {object} model `name`, `version`, `spec`, `examples`: instances that it is known to answer.
   * @param {() => void} changed told when what would be sent is another.
   */
  static async for(model, changed) {
    const made = new Form(model, changed);
    await made.#build();
    return made;
  }

  constructor(model, changed) {
    Object.assign(this, { model, spec: model.spec, changed, at: -1 });
  }

  async #build() {
    this.fields = [];
    for (const [name, spec] of Object.entries(this.spec.inputs)) {
      this.fields.push(new KINDS[spec.kind](name, spec, this.changed, await this.#bright(name, spec)));
    }
    this.rows = new Rows(this.changed);
    this.counter = el("span", { class: "aside" });
    this.tabs = new Tabs("How many rows", [
      { id: "one", title: "One row", panel: el("div", {}, this.fields.map(({ node }) => node)) },
      { id: "many", title: "Many rows", panel: this.rows.node },
    ], () => this.#counted());
    const examples = el("div", { class: "row" },
      el("button", { type: "button", class: "quiet", on: { click: () => this.next() } }, "Example"), this.counter);
    examples.hidden = !this.model.examples.length;
    this.node = el("div", { class: "form" },
      el("div", { class: "row spread" }, this.tabs.list, examples), this.tabs.panels, this.#heads(), this.#options());
    this.rows.set(this.model.examples.slice(0, 3));
    if (this.model.examples.length) await this.next(false);
  }

  async #bright(name, spec) {
    const first = this.model.examples[0]?.[name];
    if (spec.kind !== "image" || !first?.b64) return false;
    return brightOnDark(first.b64).catch(() => false);
  }

  /** Fill in the next example. */
  async next(tell = true) {
    const { examples } = this.model;
    if (this.tabs.current === "many") {
      this.rows.set(examples);
    } else {
      this.at = (this.at + 1) % examples.length;
      const instance = examples[this.at];
      for (const field of this.fields) await field.set(instance[field.name]);
    }
    this.blame(null);
    this.#counted();
    if (tell) this.changed();
  }

  #counted() {
    const { examples } = this.model;
    this.counter.textContent = this.tabs?.current === "one" && this.at >= 0
      ? `${this.at + 1} of ${examples.length}` : counted(examples.length, "row");
  }

  #heads() {
    this.boxes = Object.entries(this.spec.heads).map(([name, head]) => {
      const box = el("input", { type: "checkbox", checked: true, value: name, on: { change: () => this.changed() } });
      return { name, box, node: el("label", { class: "chip", title: head.description || head.kind }, box,
        el("span", {}, name), el("span", { class: "kind" }, head.kind)) };
    });
    const all = el("button", { type: "button", class: "quiet", on: { click: () => {
      const on = !this.boxes.every(({ box }) => box.checked);
      for (const { box } of this.boxes) box.checked = on;
      this.changed();
    } } }, "All / none");
    return el("fieldset", {}, el("legend", {}, "Heads"), el("div", { class: "chips" }, this.boxes.map(({ node }) => node), all));
  }

  #options() {
    const kinds = new Set(Object.values(this.spec.heads).map(({ kind }) => kind));
    const labels = Object.values(this.spec.heads).reduce((sum, head) => sum + (head.labels?.length ?? 0), 0);
    const has = (...wanted) => wanted.some((kind) => kinds.has(kind));
    const change = { change: () => this.changed() };
    this.top = has("classification", "oneshot")
      && el("input", { type: "number", min: 0, max: 1000, value: TOP, id: freshId("top"), on: { input: () => this.changed() } });
    this.scores = has("classification", "multilabel", "oneshot")
      && el("input", { type: "checkbox", checked: labels <= LABELS, on: change });
    this.raw = el("input", { type: "checkbox", on: change });
    this.mask = has("segmentation")
      && el("select", { on: change }, el("option", {}, "runs"), el("option", {}, "png"));
    const option = (control, name, what) => control && el("label", { class: "option" },
      el("code", {}, name), control, el("span", { class: "hint" }, what));
    return el("details", { class: "options" }, el("summary", {}, "Options"),
      option(this.top, "top_k", "best classes with scores; 0: leave it out"), option(this.scores, "scores", "every label's"),
      option(this.mask, "mask", "as runs or as a PNG"), option(this.raw, "raw", "the graph's own numbers"));
  }

  /**
   * The request as it stands.
   * @returns {{path: string, text: string, instances: Array, many: boolean}} `text`: the body.
   * @throws {Fault} a field has nothing that could be sent.
   */
  body() {
    const path = `predictions/${this.model.name}/${this.model.version}`;
    if (this.tabs.current === "many") {
      const { whole, json, instances } = this.rows.value();
      return { path, instances, many: true, text: whole ? json : this.#request(json) };
    }
    const members = this.fields.map((field) => [field.name, field.value()]);
    const row = `{${members.map(([name, json]) => `${JSON.stringify(name)}: ${json}`).join(", ")}}`;
    const instance = Object.fromEntries(members.map(([name, json]) => [name, JSON.parse(json)]));
    return { path, instances: [instance], many: false, text: this.#request(`[${row}]`) };
  }

  #request(instances) {
    const wanted = this.boxes.filter(({ box }) => box.checked).map(({ name }) => name);
    const members = [`"instances": ${instances}`];
    if (wanted.length !== this.boxes.length) members.push(`"heads": ${JSON.stringify(wanted)}`);
    const options = {};
    if (this.top && Number(this.top.value) > 0) options.top_k = Number(this.top.value);
    if (this.scores?.checked) options.scores = true;
    if (this.raw.checked) options.raw = true;
    if (this.mask && this.mask.value !== "runs") options.mask = this.mask.value;
    if (Object.keys(options).length) members.push(`"options": ${JSON.stringify(options)}`);
    return `{${members.join(", ")}}`;
  }

  /**
   * Say in the right field what is wrong there.
   * @param {Error|null} error a Fault, or a Failure with a place; null: nothing is wrong any more.
   * @returns {boolean} whether a field was found.
   */
  blame(error) {
    for (const field of [...this.fields, this.rows]) field.blame(null);
    if (!error) return true;
    const field = error.field ?? this.#at(error.loc);
    field?.blame(error.message);
    field?.focusable?.focus();
    return Boolean(field);
  }

  /** The field of a place such as ["instances", 0, "text"]. */
  #at(loc) {
    if (loc?.[0] !== "instances") return null;
    if (this.tabs.current === "many") return this.rows;
    return this.fields.find(({ name }) => name === loc[2]) ?? (this.fields.length === 1 ? this.fields[0] : null);
  }

  /** A file pasted anywhere on the page goes to the first picture. */
  paste(event) {
    const image = this.fields.find((field) => field instanceof ImageInput);
    return this.tabs.current === "one" && Boolean(image?.paste(event));
  }

  /** The text that a head marked in a row; null for a head of another kind. */
  text(head, instance) {
    const spec = this.spec.heads[head];
    const texts = Object.entries(this.spec.inputs).filter(([, input]) => input.kind === "text").map(([name]) => name);
    const text = spec.kind === "tokens" ? (spec.input ?? texts[0]) : null;
    return (text && (typeof instance === "string" ? instance : instance?.[text])) ?? null;
  }

  /** A copy of the picture as it is now, for a model that answers with masks; null where there is none. */
  picture() {
    const wanted = Object.values(this.spec.heads).some(({ kind }) => kind === "segmentation");
    const canvas = wanted ? this.fields.map((field) => field.picture()).find(Boolean) : null;
    return canvas ? copyOf(canvas) : null;
  }
}
