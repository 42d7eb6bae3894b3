/** What the server is doing: its metrics page, read every few seconds while somebody looks. */

import { bar, sparkline } from "./charts.js";
import { el, replace } from "./dom.js";
import { between, buckets, parse } from "./metrics.js";
import { bytes, counted, duration, percent, score, short } from "./numbers.js";
import { send } from "./api.js";

const EVERY = 2000; // milliseconds between two readings
const PATIENT = 10_000; // after a failure
const KEPT = 90; // readings in a sparkline: three minutes
const ROOM = 30; // and at least so much room, however few there are yet
const MEAN = 5; // readings that a written figure is the mean over
const SHOWN = 4; // labels of a head that are written out
const TILES = ["Requests", "Batch", "Work per batch", "Queue", "Failures", "Workers"];

/** Reads the page while the tab is seen, and tells who wants to know. */
export class Readings {
  constructor() {
    this.pages = [];
    this.listeners = new Set();
    this.trouble = null;
    document.addEventListener("visibilitychange", () => this.#schedule(0));
  }

  start() {
    this.#schedule(0);
  }

  get last() {
    return this.pages[this.pages.length - 1] ?? null;
  }

  #schedule(milliseconds) {
    clearTimeout(this.timer);
    if (!document.hidden) this.timer = setTimeout(() => this.#read(), milliseconds);
  }

  async #read() {
    const number = (this.number = (this.number ?? 0) + 1);
    try {
      const { text } = await send("GET", "metrics");
      const page = parse(text, performance.now());
      this.last?.thin();
      this.pages = [...this.pages.slice(1 - KEPT), page];
      this.trouble = null;
    } catch (failure) {
      this.trouble = failure;
    }
    if (number !== this.number) return; // a reading that began later has already told
    for (const listener of this.listeners) listener(this);
    this.#schedule(this.trouble ? PATIENT : EVERY);
  }

  /** What one model did, over the last few readings. */
  recent(name, version) {
    const before = this.pages[Math.max(0, this.pages.length - 1 - MEAN)];
    return this.pages.length > 1 ? between(before, this.last, name, version) : null;
  }

  /** And between each reading and the next. */
  history(name, version) {
    return this.pages.slice(1).map((page, index) => between(this.pages[index], page, name, version));
  }
}

/** The figures of one model, above its form: of the same height from the beginning, so that they move nothing below them. */
export class Strip {
  constructor() {
    this.node = el("div", { class: "strip", role: "group", "aria-label": "live figures" });
  }

  show(readings, { name, version }) {
    const { last, trouble } = readings;
    if (!last) {
      replace(this.node, TILES.map((title) => tile(title, "–", trouble ? "–" : "reading metrics…", [])),
        trouble ? el("p", { class: "hint trouble" }, `No live figures: ${trouble.message}`) : null);
      return;
    }
    const now = readings.recent(name, version);
    const history = readings.history(name, version);
    const of = (key) => history.map((one) => one[key]);
    const labels = { model: name, version };
    const workers = last.sum("polyhead_workers", labels);
    const starts = last.sum("polyhead_worker_starts_total", labels) ?? workers;
    const deaths = workers === null ? null : Math.max(0, starts - workers);
    const memory = last.sum("polyhead_worker_resident_memory_bytes", labels);
    const shown = [
      [rate(now?.requests), now?.rows == null ? "of the last ten seconds" : `${rate(now.rows)} rows`, of("requests")],
      [short(now?.batchRows), now?.batchRequests ? `rows, ${short(now.batchRequests)} requests` : "none lately", of("batchRows")],
      [duration(now?.work), stages(now?.stages), of("work")],
      [duration(now?.queue), "mean wait, with the batch's delay", of("queue")],
      [rate(now?.failures), failures(last, labels), of("failures"), now?.failures > 0],
      [workers ?? "–", [deaths ? counted(deaths, "restart") : "no restarts", memory && bytes(memory)]
        .filter(Boolean).join(" · "), [], deaths > 0],
    ];
    replace(this.node, TILES.map((title, index) => tile(title, ...shown[index])),
      trouble ? el("p", { class: "hint trouble" }, `Stale: ${trouble.message}`) : null);
  }
}

function rate(value) {
  return value === null || value === undefined ? "–" : `${short(value)}/s`;
}

function tile(title, value, more, values, bad = false) {
  return el("div", { class: bad ? "tile bad" : "tile" }, el("span", { class: "title" }, title),
    el("span", { class: "figure" }, value), el("span", { class: "more" }, more),
    sparkline(values, { room: Math.max(ROOM, values.length) }));
}

function stages(found) {
  const entries = Object.entries(found ?? {}).sort((a, b) => b[1] - a[1]);
  return entries.slice(0, 2).map(([stage, took]) => `${stage} ${duration(took)}`).join(", ") || "no batch lately";
}

function failures(page, labels) {
  const found = page.find("polyhead_request_failures_total", labels).filter(({ value }) => value > 0);
  const most = found.sort((a, b) => b.value - a.value).slice(0, 2);
  return most.map(({ labels: { type }, value }) => `${type} ${value}`).join(", ") || "none so far";
}

/** The heads of a model: what they are, how often they are asked, what they have answered. */
export class Heads {
  constructor() {
    this.body = el("tbody");
    const columns = ["Head", "Kind", "Answers", "Rows/s", "Confidence", "Answered since the start"];
    this.node = el("table", { class: "heads" }, el("thead", {}, el("tr", {},
      columns.map((title) => el("th", { scope: "col" }, title)))), this.body);
  }

  /** The lines of a model; figures come with `show`. */
  build({ name, version, spec }) {
    this.model = { name, version };
    this.lines = Object.entries(spec.heads).map(([head, one]) => {
      const cells = { rate: el("td", { data: { title: "Rows/s" } }, "–"), sure: el("td", { data: { title: "Confidence" } }, "–"),
        said: el("td", { class: "said", data: { title: "Since the start" } }, "–") };
      const about = one.description ? el("span", { class: "about" }, one.description) : null;
      const row = el("tr", { data: { head } }, el("th", { scope: "row" }, head, about),
        el("td", { data: { title: "Kind" } }, el("span", { class: "kind" }, one.kind)),
        el("td", { data: { title: "Answers" } }, answers(one)), cells.rate, cells.sure, cells.said);
      return { head, spec: one, row, ...cells };
    });
    replace(this.body, this.lines.map(({ row }) => row));
  }

  show(readings) {
    const { last, pages } = readings;
    if (!last) return;
    const before = pages[Math.max(0, pages.length - 1 - MEAN)];
    const seconds = (last.time - before.time) / 1000;
    for (const { head, spec, rate: rateCell, sure, said } of this.lines) {
      const labels = { model: this.model.name, version: this.model.version, head };
      const rows = last.sum("polyhead_head_rows_total", labels);
      const grown = rows - (before.sum("polyhead_head_rows_total", labels) ?? 0);
      rateCell.textContent = rows === null || seconds <= 0 ? "–" : short(grown / seconds);
      const [sum, count] = [last.sum("polyhead_head_confidence_sum", labels), last.sum("polyhead_head_confidence_count", labels)];
      sure.textContent = count ? `mean ${score(sum / count)}` : "–";
      replace(said, distribution(last, labels, spec));
    }
  }
}

function answers(spec) {
  const { labels } = spec;
  if (labels?.length) {
    const few = labels.slice(0, SHOWN).join(", ");
    return labels.length <= SHOWN ? few
      : el("details", {}, el("summary", {}, `${few}, … ${labels.length} labels`), el("p", {}, labels.slice(SHOWN).join(", ")));
  }
  if (spec.kind === "regression") return [spec.dim > 1 ? `${spec.dim} values` : "a value", spec.unit ? ` in ${spec.unit}` : ""].join("");
  return spec.dim ? `${counted(spec.dim, "value")}${spec.normalize ? ", length 1" : ""}` : "–";
}

function distribution(page, labels, spec) {
  const found = page.find("polyhead_head_labels_total", labels).filter(({ value }) => value > 0);
  if (found.length) {
    const total = found.reduce((sum, { value }) => sum + value, 0);
    const sorted = found.sort((a, b) => b.value - a.value).slice(0, SHOWN);
    return el("ul", { class: "shares" }, sorted.map(({ labels: { label }, value }) => el("li", {},
      el("span", { class: "label", title: label }, label), bar(value / total), el("span", { class: "value" }, percent(value / total)))));
  }
  const { bounds, counts } = histogramOf(page, labels, 0);
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (!total) return "–";
  const unit = spec.unit ? ` ${spec.unit}` : "";
  const label = `${counted(total, "value")} from ${short(bounds[0])} to ${short(bounds[bounds.length - 1])}${unit}`;
  return el("span", { class: "histogram", title: label }, columns(counts, label), el("span", { class: "aside" }, label));
}

function columns(counts, label) {
  const top = Math.max(...counts);
  const made = el("span", { class: "columns", role: "img", "aria-label": label }, counts.map(() => el("span", {})));
  [...made.children].forEach((column, index) => { column.style.height = `${(counts[index] / top) * 100}%`; });
  return made;
}

/** The values that a regression head has answered so far. */
export function histogramOf(page, labels, component) {
  return buckets(page, "polyhead_head_value", { ...labels, component: String(component) });
}
