/** The metrics page: Prometheus's text format read, and rates made of two readings. */

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", '"': '"', "\\": "\\" };

/** One reading of the page. */
export class Page {
  constructor(samples, time) {
    this.samples = samples;
    this.time = time;
  }

  /** Forget what only the newest page is asked for: one page of many labels and buckets is most of a megabyte. */
  thin() {
    for (const name of this.samples.keys()) {
      if (name.endsWith("_bucket") || name === "polyhead_head_labels_total") this.samples.delete(name);
    }
  }

  /** All samples of a name whose labels are these, among others. */
  find(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.samples.get(name) ?? []).filter((one) => wanted.every(([key, value]) => one.labels[key] === value));
  }

  /** Their sum; null where there is none. */
  sum(name, labels = {}) {
    const found = this.find(name, labels);
    return found.length ? found.reduce((total, one) => total + one.value, 0) : null;
  }
}

/** Read a page in the text format 0.0.4. */
export function parse(text, time) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const match = LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (whole, escaped) => ESCAPES[escaped] ?? whole);
    }
    const list = samples.get(match[1]) ?? [];
    list.push({ labels, value: number(match[3]) });
    samples.set(match[1], list);
  }
  return new Page(samples, time);
}

function number(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

/** By how much a counter grew between two readings; null where one has it not, or the server began anew. */
export function growth(before, after, name, labels) {
  const [low, high] = [before?.sum(name, labels) ?? 0, after.sum(name, labels)];
  return high === null || high < low ? null : high - low;
}

/**
 * What went on between two readings, for one model.
 * @returns {object} per second: requests, rows, failures. Per batch: batchRows, batchRequests. In milliseconds per
 *   batch: stages (by name), work (their sum); per request: queue. Null where nothing was counted.
 */
export function between(before, after, name, version) {
  const labels = { model: name, version };
  const seconds = (after.time - before.time) / 1000;
  const grown = (family, more = {}) => growth(before, after, family, { ...labels, ...more });
  const rate = (family) => { const value = grown(family); return value === null ? null : value / seconds; };
  const batches = grown("polyhead_batch_rows_count");
  const mean = (sum, count, factor = 1) => (count && sum !== null ? (sum / count) * factor : null);
  const stages = {};
  for (const { labels: { stage } } of after.find("polyhead_stage_seconds_count", labels)) {
    const sum = grown("polyhead_stage_seconds_sum", { stage });
    const took = mean(sum, grown("polyhead_stage_seconds_count", { stage }), 1000);
    if (took !== null) stages[stage] = took;
  }
  const served = growth(before, after, "ts_inference_requests_total", { model_name: name });
  const waited = growth(before, after, "ts_queue_latency_microseconds", { model_name: name });
  return {
    requests: rate("polyhead_requests_total"),
    rows: rate("polyhead_rows_total"),
    failures: rate("polyhead_request_failures_total"),
    batchRows: mean(grown("polyhead_batch_rows_sum"), batches),
    batchRequests: mean(grown("polyhead_batch_requests_sum"), grown("polyhead_batch_requests_count")),
    stages,
    work: Object.keys(stages).length ? Object.values(stages).reduce((a, b) => a + b, 0) : null,
    queue: mean(waited, served, 1e-3),
  };
}

/**
 * A histogram's buckets, each with its own count.
 * @returns {{bounds: number[], counts: number[]}} `counts` has one more, beyond the last bound.
 */
export function buckets(page, name, labels) {
  const found = page.find(`${name}_bucket`, labels);
  const sorted = found.map(({ labels: { le }, value }) => [number(le), value]).sort((a, b) => a[0] - b[0]);
  return {
    bounds: sorted.map(([bound]) => bound).filter(Number.isFinite),
    counts: sorted.map(([, value], index) => value - (index ? sorted[index - 1][1] : 0)),
  };
}
