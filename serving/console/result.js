/** What came back: every head's answer, or what went wrong; and how to ask the same from elsewhere. */

import { drawn, told } from "./answers.js";
import { sparkline } from "./charts.js";
import { copyButton, download, el, replace } from "./dom.js";
import { bytes, counted, duration, quantile } from "./numbers.js";
import { curl, long, pretty, python } from "./snippets.js";
import { Tabs } from "./tabs.js";

const KEPT = 60; // latencies that are remembered
const ROWS = 200; // rows that a table shows

/** The panel beside the form. */
export class Result {
  constructor() {
    this.took = [];
    this.before = {}; // by head, the answer before this one
    this.summary = el("div", { class: "result-head" });
    this.body = el("div", { class: "answers" });
    this.json = el("pre", { class: "json", tabindex: 0 });
    this.code = el("div", { class: "snippets" });
    this.tabs = new Tabs("The answer as", [
      { id: "answer", title: "Answer", panel: this.body },
      { id: "json", title: "JSON", panel: el("div", {},
        el("div", { class: "row end" }, copyButton(() => this.json.textContent, "Copy JSON")), this.json) },
      { id: "code", title: "curl", panel: this.code },
    ]);
    this.node = el("div", { class: "result" }, el("div", { class: "row spread" }, this.tabs.list, this.summary), this.tabs.panels);
    this.spoken = el("p", { class: "off-screen", role: "status", "aria-live": "polite" });
    this.empty();
  }

  empty() {
    replace(this.summary);
    replace(this.body, el("p", { class: "placeholder" }, "Ask, and every head answers here."));
    replace(this.json);
    this.spoken.textContent = "";
  }

  /** Commands for what would be sent now; `fault`: why nothing can be. */
  offer(request, fault) {
    if (!request) {
      replace(this.code, el("p", { class: "placeholder" }, fault?.message ?? ""));
      return;
    }
    const { path, text } = request;
    const shown = (title, command) => el("section", {},
      el("div", { class: "row spread" }, el("h3", {}, title), copyButton(command)),
      el("pre", { class: "command", tabindex: 0 }, command));
    replace(this.code, shown("Shell", curl(path, text)), shown("Python", python(path, text)),
      long(text) ? el("p", { class: "row" }, el("button", { type: "button", class: "quiet",
        on: { click: () => download("request.json", text) } }, "Save request.json"),
        el("span", { class: "hint" }, `the body, ${bytes(text.length)}, is too long for a command`)) : null);
  }

  waiting() {
    this.node.classList.add("busy");
    this.node.setAttribute("aria-busy", "true");
  }

  #done() {
    this.node.classList.remove("busy");
    this.node.removeAttribute("aria-busy");
  }

  /**
   * Draw an answer.
   * @param {object} spec the model's.
   * @param {object} request as the form made it.
   * @param {object} response as `send` gave it.
   * @param {(head: string, instance: any, many: boolean) => object} surroundings what an answer is drawn with.
   */
  show(spec, request, response, surroundings) {
    this.#done();
    this.took.push(response.milliseconds);
    this.took = this.took.slice(-KEPT);
    const { predictions } = response.json;
    const draw = (row) => Object.entries(predictions[row]).map(([head, answer]) =>
      this.#card(head, spec.heads[head], answer, surroundings(head, request.instances[row], request.many)));
    if (predictions.length === 1) replace(this.body, el("div", { class: "cards" }, draw(0)));
    else replace(this.body, table(spec, predictions, draw));
    if (predictions.length === 1) this.before = predictions[0];
    this.json.textContent = pretty(response.json);
    this.#summarise(response);
    const said = Object.entries(predictions[0]).map(([head, answer]) => `${head}: ${told(spec.heads[head], answer)}`);
    this.spoken.textContent = `Answered ${counted(predictions.length, "row")} in ${duration(response.milliseconds)}. `
      + `${predictions.length > 1 ? "The first: " : ""}${said.join(". ")}`;
  }

  #card(name, spec, answer, around) {
    const unit = spec.unit ? ` · ${spec.unit}` : "";
    return el("article", { class: "card", data: { head: name, kind: spec.kind }, "aria-label": `${name}, ${spec.kind}` },
      el("header", {}, el("h3", { title: spec.description || null }, name), el("span", { class: "kind" }, spec.kind + unit)),
      drawn(spec, answer, { ...around, previous: this.before[name] ?? null }),
      answer.raw ? el("details", {}, el("summary", {}, "raw"), el("pre", { class: "json" }, pretty(answer.raw))) : null);
  }

  #summarise({ status, milliseconds, server, headers, text }) {
    const middle = quantile(this.took, 0.5);
    const facts = [`${status}`, duration(milliseconds), server === null ? null : `server ${duration(server)}`,
      bytes(text.length)].filter(Boolean);
    const served = [headers.get("X-Polyhead-Model"), headers.get("X-Polyhead-Bundle")].filter(Boolean).join(" · ");
    const label = `latencies of the last ${counted(this.took.length, "request")}, median ${duration(middle)}`;
    replace(this.summary, el("span", { class: "facts", title: served }, facts.join(" · ")),
      this.took.length > 1 ? el("span", { class: "took", title: label },
        sparkline(this.took, { width: 60, height: 18, room: Math.max(20, this.took.length), label }),
        `median ${duration(middle)}`) : null);
  }

  /**
   * Say what went wrong.
   * @param {Failure} failure
   * @param {object|null} wait `seconds` until it is tried again, and `stop` that forbids it.
   */
  fail(failure, wait = null) {
    this.#done();
    const place = failure.loc?.length ? el("code", { class: "loc" }, failure.loc.join(" › ")) : null;
    const title = failure.status ? `${failure.status}${failure.type ? ` ${failure.type}` : ""}` : "No answer";
    const box = el("div", { class: "error", role: "alert" }, el("h3", {}, title), el("p", {}, failure.message),
      place ? el("p", { class: "hint" }, "at ", place) : null, wait ? countdown(wait) : null);
    replace(this.body, box);
    replace(this.summary);
    this.json.textContent = failure.text;
    this.tabs.show("answer");
  }
}

function countdown({ seconds, stop }) {
  const left = el("span", {});
  let remaining = seconds;
  const tell = () => { left.textContent = `Asking again in ${remaining} s. `; };
  tell();
  const timer = setInterval(() => {
    remaining -= 1;
    if (remaining <= 0) clearInterval(timer);
    else tell();
  }, 1000);
  return el("p", { class: "row" }, left,
    el("button", { type: "button", class: "quiet", on: { click: () => {
      clearInterval(timer);
      left.textContent = "Stopped.";
      stop();
    } } }, "Do not"));
}

/** Many rows: one line each, and the chosen one drawn in full. */
function table(spec, predictions, draw) {
  const heads = Object.keys(predictions[0]);
  const detail = el("div", { class: "cards" });
  const lines = predictions.slice(0, ROWS).map((row, index) => {
    const open = el("button", { type: "button", class: "quiet", "aria-label": `row ${index}`,
      on: { click: () => choose(index) } }, index);
    return el("tr", {}, el("th", { scope: "row" }, open),
      heads.map((head) => el("td", { data: { title: head } }, told(spec.heads[head], row[head]))));
  });
  function choose(index) {
    lines.forEach((line, at) => line.classList.toggle("chosen", at === index));
    replace(detail, draw(index));
  }
  choose(0);
  const more = predictions.length > ROWS ? el("p", { class: "rest" }, `and ${predictions.length - ROWS} rows more, in JSON`) : null;
  return [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "answers by row" },
    el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "row"),
      heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, lines))), more, detail];
}
