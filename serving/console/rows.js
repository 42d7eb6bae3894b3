/** Many rows at once: JSON, or one row a line. */

import { el, freshId } from "./dom.js";
import { Fault, Field } from "./field.js";
import { counted } from "./numbers.js";

/** A text area for rows. What is sent is what stands there. */
export class Rows extends Field {
  constructor(changed) {
    super("rows", { kind: "json" });
    const id = freshId("rows");
    this.changed = changed;
    this.area = el("textarea", { id, rows: 12, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      class: "code", "aria-describedby": this.describedBy(), on: { input: () => { this.#count(); changed(); } } });
    const picker = el("input", { type: "file", accept: ".json,.jsonl,.ndjson,application/json", class: "off-screen",
      tabindex: -1, "aria-label": "a file of rows", on: { change: () => { this.#take(picker.files[0]); picker.value = ""; } } });
    this.counter = el("span", { class: "counter" });
    this.hint.append("A JSON list of instances, one instance a line (JSONL), or a whole request. ", this.counter);
    this.node = this.frame(el("label", { for: id }, "Rows"), this.area,
      el("div", { class: "row" }, el("button", { type: "button", class: "quiet", on: { click: () => picker.click() } },
        "Choose a file…"), picker));
    this.focusable = this.area;
    this.node.addEventListener("dragover", (event) => event.preventDefault());
    this.node.addEventListener("drop", (event) => { event.preventDefault(); this.#take(event.dataTransfer.files[0]); });
  }

  set(instances) {
    this.area.value = instances.map((one) => JSON.stringify(one)).join("\n");
    this.#count();
  }

  /**
   * What is to be sent.
   * @returns {{whole: boolean, json: string, instances: Array}} `whole`: the text is a request of its own.
   * @throws {Fault} naming the line.
   */
  value() {
    const text = this.area.value.trim();
    if (!text) throw new Fault(this, "Rows are missing here.");
    const document = quietly(() => JSON.parse(text));
    if (Array.isArray(document)) return this.#filled({ whole: false, json: text, instances: document });
    if (document && typeof document === "object" && Array.isArray(document.instances)) {
      return this.#filled({ whole: true, json: text, instances: document.instances });
    }
    const lines = text.split("\n").map((line) => line.trim());
    const instances = [];
    lines.forEach((line, index) => {
      if (!line) return;
      try {
        instances.push(JSON.parse(line));
      } catch (error) {
        throw new Fault(this, `Line ${index + 1} is no JSON: ${error.message}`);
      }
    });
    return this.#filled({ whole: false, json: `[${lines.filter(Boolean).join(",")}]`, instances });
  }

  #filled(value) {
    if (!value.instances.length) throw new Fault(this, "There is no row in it.");
    return value;
  }

  #count() {
    let said;
    try {
      const { instances, whole } = this.value();
      said = `${counted(instances.length, "row")}${whole ? ", a whole request: its own heads and options count" : ""}`;
    } catch (fault) {
      said = this.area.value.trim() ? fault.message : "";
    }
    this.counter.textContent = said;
  }

  async #take(file) {
    if (!file) return;
    this.area.value = await file.text();
    this.#count();
    this.changed();
  }
}

function quietly(read) {
  try {
    return read();
  } catch {
    return undefined;
  }
}
