/** Panels of which one is seen, as the WAI-ARIA pattern has them: arrow keys, Home and End go between the tabs. */

import { el, freshId } from "./dom.js";

export class Tabs {
  /**
   * @param {string} label what the choice is about.
   * @param {Array<{id: string, title: string, panel: Node}>} items
   * @param {(id: string) => void} chosen told when another is seen.
   */
  constructor(label, items, chosen = () => {}) {
    this.items = items.map((item) => ({ ...item, ...this.#parts(item) }));
    this.chosen = chosen;
    this.list = el("div", { role: "tablist", "aria-label": label, class: "tabs" }, this.items.map(({ tab }) => tab));
    this.panels = el("div", { class: "panels" }, this.items.map(({ frame }) => frame));
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.show(items[0].id);
  }

  #parts({ id, title, panel }) {
    const [tabId, panelId] = [freshId("tab"), freshId("panel")];
    const tab = el("button", { type: "button", role: "tab", id: tabId, "aria-controls": panelId,
      on: { click: () => this.show(id) } }, title);
    return { tab, frame: el("div", { role: "tabpanel", id: panelId, "aria-labelledby": tabId }, panel) };
  }

  show(id) {
    this.current = id;
    for (const item of this.items) {
      const on = item.id === id;
      item.tab.setAttribute("aria-selected", String(on));
      item.tab.tabIndex = on ? 0 : -1;
      item.frame.hidden = !on;
    }
    this.chosen(id);
  }

  #key(event) {
    const at = this.items.findIndex(({ id }) => id === this.current);
    const last = this.items.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.show(this.items[to].id);
    this.items[to].tab.focus();
  }
}
