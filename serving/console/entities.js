/** A tokens head's answer: the text with what was found in it. */

import { el } from "./dom.js";
import { spanHue, spanTypes } from "./labels.js";
import { score } from "./numbers.js";

/** The text with its entities marked, and the same as a list. */
export function marked(spec, answer, { text }) {
  const types = spanTypes(spec.labels);
  const { entities } = answer;
  return el("div", {},
    text === null ? null : el("p", { class: "marked" }, pieces(text, entities, types)),
    entities.length ? list(entities, types) : el("p", { class: "none" }, "nothing found"));
}

/** Start and end count code points, not the units of UTF-16 that JavaScript's own indices count. */
function pieces(text, entities, types) {
  const points = [...text];
  const found = [];
  let done = 0;
  for (const { label, start, end, score: sure } of [...entities].sort((a, b) => a.start - b.start)) {
    found.push(points.slice(done, start).join(""));
    found.push(el("mark", { class: spanHue(types, label), title: `${label} ${score(sure)}` },
      points.slice(start, end).join(""), el("span", { class: "tag" }, label)));
    done = end;
  }
  return [...found, points.slice(done).join("")];
}

function list(entities, types) {
  return el("ul", { class: "entities" }, entities.map(({ label, text, start, end, score: sure }) =>
    el("li", { data: { label } }, el("span", { class: `dot ${spanHue(types, label)}`, "aria-hidden": "true" }),
      el("span", { class: "label" }, label), el("span", { class: "said" }, `“${text}”`),
      el("span", { class: "where" }, `${start}–${end}`), el("span", { class: "value" }, score(sure)))));
}
