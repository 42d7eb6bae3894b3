/** The form of a text input. */

import { el, freshId } from "./dom.js";
import { Field } from "./field.js";
import { counted } from "./numbers.js";

/** A sentence, as it is sent. */
export class TextInput extends Field {
  constructor(name, spec, changed) {
    super(name, spec);
    const id = freshId("text");
    this.area = el("textarea", { id, rows: 3, spellcheck: "false", class: "sentence",
      "aria-describedby": this.describedBy(), on: { input: () => { this.#count(); changed(); } } });
    this.counter = el("span", { class: "counter" });
    const longer = spec.truncate ? "a longer one is cut" : "a longer one is refused";
    this.hint.append(`At most ${counted(spec.max_length, "token")}; ${longer}. `, this.counter);
    this.node = this.frame(el("label", { for: id }, name), this.area);
    this.focusable = this.area;
    this.#count();
  }

  value() {
    return JSON.stringify(this.area.value);
  }

  set(value) {
    this.area.value = value;
    this.#count();
  }

  text() {
    return this.area.value;
  }

  #count() {
    this.counter.textContent = counted([...this.area.value].length, "character");
  }
}
