/** Every kind of head's answer, drawn and in words. */

import { bar, barcode, gauge } from "./charts.js";
import { copyButton, el } from "./dom.js";
import { marked } from "./entities.js";
import { mask } from "./mask.js";
import { percent, score, short, withUnit } from "./numbers.js";

const MOST = 12; // bars that are shown of a multilabel head
const TOP = 5; // and of a classification

/**
 * One head's answer to one row.
 * @param {object} spec the head's.
 * @param {object} answer as the server gave it.
 * @param {object} row `text`: that a tokens head marked, `picture`: a canvas; `histogram`: of earlier values, by
 *   component, `previous`: the head's last answer before this one. Each null where there is none.
 * @returns {Node}
 */
export function drawn(spec, answer, row) {
  return KINDS[spec.kind](spec, answer, row);
}

/** The answer in a few words: for a table's cell, and to be read aloud. */
export function told(spec, answer) {
  switch (spec.kind) {
    case "classification": return `${answer.label} ${score(answer.score)}`;
    case "multilabel": return answer.labels.join(", ") || "none";
    case "regression": return values(answer.value).map((value) => withUnit(value, spec.unit)).join(", ");
    case "tokens": return answer.entities.map(({ label, text }) => `${label}: ${text}`).join(", ") || "nothing found";
    case "embedding": return `a vector of ${answer.vector.length}`;
    case "segmentation": return areas(answer).slice(0, 3).map(([label, area]) => `${label} ${percent(area)}`).join(", ");
    case "oneshot": return answer.label === null ? "no class" : `${answer.label} ${score(answer.score)}`;
    default: return JSON.stringify(answer);
  }
}

const KINDS = { classification, multilabel, regression, tokens: marked, embedding, segmentation: mask, oneshot };

function values(value) {
  return Array.isArray(value) ? value : [value];
}

/** A segmentation's labels with their areas, the greatest first. */
export function areas(answer) {
  return answer.labels.map((label, index) => [label, answer.areas[index]]).sort((a, b) => b[1] - a[1]);
}

function lead(text, more) {
  return el("p", { class: "lead" }, el("strong", {}, text), more ? el("span", { class: "aside" }, more) : null);
}

/** Label, bar, number: the number is the text that a reader of any kind has. */
function bars(entries, { mark = null, write = score } = {}) {
  const items = entries.map(({ label, share, value, holds }, index) => {
    const threshold = typeof mark === "function" ? mark(label) : mark;
    return el("li", { class: holds ? "holds" : "", data: { label } },
      el("span", { class: "label", title: label }, label),
      bar(share, { mark: threshold, className: holds || (holds === undefined && index === 0) ? "first" : "" }),
      el("span", { class: "value" }, write(value)),
      holds === undefined ? null : el("span", { class: "off-screen" }, holds ? ", holds" : ", does not hold"));
  });
  return el("ul", { class: "bars" }, items);
}

function best(answer) {
  if (answer.scores) {
    const entries = Object.entries(answer.scores).map(([label, value]) => ({ label, value }));
    return entries.sort((a, b) => b.value - a.value);
  }
  return (answer.top ?? [answer]).map(({ label, score: value }) => ({ label, value }));
}

function classification(spec, answer) {
  const found = best(answer).map((one) => ({ ...one, share: one.value }));
  const shown = found.slice(0, Math.max(TOP, answer.top?.length ?? 0));
  const rest = spec.labels.length - shown.length;
  return el("div", {}, lead(answer.label, score(answer.score)), bars(shown),
    rest > 0 ? el("p", { class: "rest" }, `and ${rest} more, ${score(restOf(shown))} together`) : null);
}

function restOf(shown) {
  return Math.max(0, 1 - shown.reduce((sum, one) => sum + one.value, 0));
}

function multilabel(spec, answer) {
  const threshold = (label) =>
    Array.isArray(spec.threshold) ? spec.threshold[spec.labels.indexOf(label)] : spec.threshold;
  const scores = answer.all_scores
    ?? Object.fromEntries(answer.labels.map((label, index) => [label, answer.scores[index]]));
  const entries = Object.entries(scores)
    .map(([label, value]) => ({ label, value, share: value, holds: answer.labels.includes(label) }))
    .sort((a, b) => b.holds - a.holds || b.value - a.value);
  const shown = entries.slice(0, Math.max(MOST, answer.labels.length));
  const rest = spec.labels.length - shown.length;
  return el("div", {},
    el("p", { class: "lead" }, answer.labels.length
      ? el("strong", {}, answer.labels.join(", "))
      : el("span", { class: "none" }, "no label reaches its threshold")),
    bars(shown, { mark: threshold }),
    rest > 0 ? el("p", { class: "rest" }, `and ${rest} more, below`) : null);
}

function regression(spec, answer, { histogram }) {
  const all = values(answer.value);
  const parts = all.map((value, index) => {
    const scale = histogram?.(index);
    const drawable = scale && scale.bounds.length > 1;
    return el("div", { class: "quantity" },
      el("p", { class: "lead" }, all.length > 1 ? el("span", { class: "component" }, index) : null,
        el("strong", {}, short(value, 4)), spec.unit ? el("span", { class: "unit" }, ` ${spec.unit}`) : null),
      drawable ? gauge(value, scale, (at) => withUnit(at, spec.unit)) : null);
  });
  return el("div", { class: all.length > 1 ? "quantities" : "" }, parts);
}

function embedding(spec, answer, { previous }) {
  const { vector } = answer;
  const norm = Math.hypot(...vector);
  const nearness = previous?.vector?.length === vector.length ? cosine(vector, previous.vector) : null;
  const label = `${vector.length} values from ${short(Math.min(...vector))} to ${short(Math.max(...vector))}`;
  return el("div", {},
    lead(`${vector.length} values`, `length ${short(norm, 4)}`),
    barcode(vector, label),
    el("div", { class: "row" }, copyButton(() => JSON.stringify(vector), "Copy vector"),
      nearness === null ? null : el("span", { class: "aside" }, `cosine to the answer before: ${nearness.toFixed(4)}`)));
}

/** The cosine of the angle between two vectors. */
export function cosine(one, other) {
  const dot = one.reduce((sum, value, index) => sum + value * other[index], 0);
  return dot / (Math.hypot(...one) * Math.hypot(...other) || 1);
}

function oneshot(spec, answer) {
  if (answer.score === null) return el("p", { class: "none" }, "no class is enrolled yet: polyhead enrol adds one");
  const near = (answer.top ?? [{ label: answer.label ?? "nearest", score: answer.score, distance: answer.distance }]);
  const shares = best(answer).slice(0, Math.max(TOP, near.length)).map((one) => ({ ...one, share: one.value }));
  const far = answer.label === null;
  const limit = spec.max_distance ? `, at most ${short(spec.max_distance, 4)} counts` : "";
  return el("div", {},
    far ? el("p", { class: "lead" }, el("span", { class: "none" }, "no class is near enough"))
      : lead(answer.label, score(answer.score)),
    el("p", { class: "aside" }, `distance ${short(answer.distance, 4)}${limit}`),
    bars(shares),
    near.length > 1 ? el("p", { class: "rest" },
      `distances: ${near.map((one) => `${one.label} ${short(one.distance, 4)}`).join(", ")}`) : null);
}
