/** What the forms of all kinds of input have in common: a name, a hint, a place for what is wrong. */

import { el, freshId, replace } from "./dom.js";

/** What stands in a form is not what the spec asks for; its message says why. */
export class Fault extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/** One input of a model. */
export class Field {
  constructor(name, spec) {
    this.name = name;
    this.spec = spec;
    this.hint = el("p", { class: "hint", id: freshId("hint") });
    this.fault = el("p", { class: "fault", id: freshId("fault"), hidden: true });
    this.focusable = null;
  }

  /** For `aria-describedby`. */
  describedBy() {
    return `${this.hint.id} ${this.fault.id}`;
  }

  /** The whole field. */
  frame(label, ...body) {
    const kind = el("span", { class: "kind" }, this.spec.kind);
    return el("div", { class: "field", data: { input: this.name } },
      el("div", { class: "field-head" }, label, kind), ...body, this.hint, this.fault);
  }

  /** Say what is wrong with it; null: nothing is. */
  blame(message) {
    replace(this.fault, message ?? "");
    this.fault.hidden = !message;
    this.node.classList.toggle("wrong", Boolean(message));
    this.focusable?.setAttribute("aria-invalid", String(Boolean(message)));
  }

  /** The text that entities are marked in; null where it is none. */
  text() {
    return null;
  }

  /** A canvas with the picture that was sent; null where it is none. */
  picture() {
    return null;
  }
}
