/** Small drawings of numbers. Each says in words what it shows. */

import { el, svg } from "./dom.js";

/**
 * A line through values, the newest at the right; gaps where one is null.
 * @param {Array<number|null>} values
 * @param {object} options size in units of its view box; `room`: how many values fill the width; `label`: in words.
 */
export function sparkline(values, { width = 120, height = 28, room = values.length, label } = {}) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  const props = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  const chart = svg("svg", { ...props, class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
  if (!known.length) return chart;
  const top = Math.max(...known) || 1;
  const step = width / Math.max(1, room - 1);
  const from = Math.max(0, room - values.length);
  const points = values.map((value, index) =>
    value === null || !Number.isFinite(value) ? null : [(from + index) * step, height - 2 - (value / top) * (height - 4)]);
  for (const run of runs(points)) {
    const line = run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
    const [first, last] = [run[0][0].toFixed(1), run[run.length - 1][0].toFixed(1)];
    chart.append(svg("path", { class: "area", d: `M${first} ${height}L${line}L${last} ${height}Z` }));
    chart.append(svg("path", { class: "line", d: run.length > 1 ? `M${line}` : `M${line}h0.1` }));
  }
  return chart;
}

function runs(points) {
  const found = [[]];
  for (const point of points) {
    if (point) found[found.length - 1].push(point);
    else if (found[found.length - 1].length) found.push([]);
  }
  return found.filter((run) => run.length);
}

/** A vector as bars up and down from a middle line. */
export function barcode(values, label) {
  const [width, height] = [Math.max(64, Math.min(values.length * 4, 512)), 48];
  const top = Math.max(...values.map(Math.abs)) || 1;
  const step = width / values.length;
  const d = values.map((value, index) => {
    const size = (Math.abs(value) / top) * (height / 2 - 1);
    const [wide, tall] = [(step * 0.8).toFixed(2), (value < 0 ? size : -size).toFixed(2)];
    return `M${(index * step).toFixed(2)} ${height / 2}h${wide}v${tall}h-${wide}Z`;
  });
  return svg("svg", { role: "img", "aria-label": label, class: "barcode", viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: "none" }, svg("path", { d: d.join("") }), svg("path", { class: "zero", d: `M0 24H${width}` }));
}

/** A part of a whole, as a bar; what it says stands beside it in text. `mark`: a tick at this share. */
export function bar(share, { mark = null, className = "" } = {}) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  const track = el("span", { class: `bar ${className}`, "aria-hidden": "true" }, fill);
  if (mark !== null) {
    const tick = el("span", { class: "tick" });
    tick.style.left = `${mark * 100}%`;
    track.append(tick);
  }
  return track;
}

/**
 * Where a value stands among those that were answered before.
 * @param {number} value
 * @param {{bounds: number[], counts: number[]}} histogram of earlier answers; its bounds are the scale.
 * @param {(value: number) => string} write a number with its unit.
 */
export function gauge(value, { bounds, counts }, write) {
  const [low, high] = [bounds[0], bounds[bounds.length - 1]];
  const [width, height] = [240, 40];
  const x = (at) => ((Math.max(low, Math.min(high, at)) - low) / (high - low)) * width;
  const inner = counts.slice(1, bounds.length);
  const top = Math.max(...inner, 1);
  const total = counts.reduce((a, b) => a + b, 0);
  const columns = inner.map((count, index) => {
    const [left, right] = [x(bounds[index]), x(bounds[index + 1])];
    const tall = (count / top) * (height - 6);
    return svg("rect", { x: left + 0.5, y: height - tall, width: Math.max(0.5, right - left - 1), height: tall });
  });
  const beyond = value < low ? ", below the scale" : value > high ? ", above the scale" : "";
  const label = `${write(value)} on a scale from ${write(low)} to ${write(high)}${beyond}; behind it ${total} earlier answers`;
  return el("div", { class: "gauge" },
    svg("svg", { role: "img", "aria-label": label, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
      svg("g", { class: "earlier" }, columns),
      svg("path", { class: "axis", d: `M0 ${height - 0.5}H${width}` }),
      svg("path", { class: "needle", d: `M${x(value).toFixed(1)} 0V${height}` })),
    el("div", { class: "scale", "aria-hidden": "true" }, el("span", {}, write(low)), el("span", {}, write(high))));
}
