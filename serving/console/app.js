/** The console: which model, what is asked of it, what it answers, how the server fares. */

import { Failure, apiKey, send } from "./api.js";
import { described, listed } from "./catalogue.js";
import { copyButton, el, replace } from "./dom.js";
import { Fault } from "./field.js";
import { Form } from "./form.js";
import { Heads, Readings, Strip, histogramOf } from "./live.js";
import { growth } from "./metrics.js";
import { counted, short } from "./numbers.js";
import { Result } from "./result.js";

const SETTLE = 350; // milliseconds after the last change until an answer is asked for by itself
const TRIES = 3; // of a request that the server has no room for
const WAIT = 1; // seconds, where the server does not say how many
const LOOK = 3; // readings of the metrics between two looks at the list of models

const byId = (id) => document.getElementById(id);
const result = new Result();
const strip = new Strip();
const heads = new Heads();
const readings = new Readings();

const state = { models: [], model: null, form: null, flight: null, timer: null, looks: 0, tries: 0, turn: 0, wanted: null };

/* Which model */

async function look() {
  try {
    const models = await listed();
    const changed = JSON.stringify(models) !== JSON.stringify(state.models);
    state.models = models;
    serverSays(models.every(({ ready }) => ready) ? "ready" : "unready");
    if (changed) rail();
    if (!state.model && models.length) await follow();
    if (!models.length) trouble(new Failure({ status: 0, message: "no model is served yet" }));
  } catch (failure) {
    serverSays(failure.status === 401 ? "locked" : "silent", failure);
    if (!state.model) trouble(failure);
  }
}

const SAYINGS = {
  ready: () => `ready · ${counted(state.models.length, "model")}`,
  unready: () => `${counted(state.models.filter(({ ready }) => !ready).length, "model")} not ready`,
  locked: () => "needs an API key",
  silent: (failure) => (failure.status ? `answers ${failure.status}` : "gives no answer"),
};

function serverSays(how, failure) {
  const node = byId("server");
  node.dataset.state = how;
  const text = SAYINGS[how](failure);
  const said = node.lastElementChild;
  if (said.textContent !== text) said.textContent = text;
  if (how === "locked") byId("key-box").open = true;
}

function trouble(failure) {
  replace(byId("model"), el("div", { class: "error", role: "alert" },
    el("h2", {}, failure.status === 401 ? "This server wants an API key" : "Nothing to show yet"),
    el("p", {}, failure.message), failure.status === 401 ? el("p", { class: "hint" }, "Give it at the top of the page.") : null));
}

function titleOf({ name, version }) {
  return `${name}/${version}`;
}

function rail() {
  const current = state.model && titleOf(state.model);
  replace(byId("rail"), state.models.map((one) => {
    const title = titleOf(one);
    return el("a", { href: `#${title}`, data: { title, ready: String(one.ready) }, "aria-current": title === current ? "true" : null },
      el("span", { class: "dot", "aria-hidden": "true" }), el("span", { class: "name" }, one.name),
      el("span", { class: "version" }, one.version),
      el("span", { class: "note" }, el("span", { class: "off-screen" }, one.ready ? "ready" : ""),
        one.ready ? "" : "not ready", one.standard ? "" : " not the default"),
      el("span", { class: "rate" }));
  }));
  rates();
}

/** Requests a second beside each model. */
function rates() {
  const { pages, last } = readings;
  if (pages.length < 2) return;
  const before = pages[Math.max(0, pages.length - 6)];
  for (const line of byId("rail").children) {
    const [model, version] = line.dataset.title.split("/");
    const grown = growth(before, last, "polyhead_requests_total", { model, version });
    line.querySelector(".rate").textContent = grown === null ? "" : `${short((grown / (last.time - before.time)) * 1000)}/s`;
  }
}

/** What the address names; as it stands where it is no encoded text. */
function named() {
  const hash = location.hash.slice(1);
  try {
    return decodeURIComponent(hash);
  } catch {
    return hash;
  }
}

/** Show the model that the address names, else the first. */
async function follow() {
  const wanted = named();
  if (wanted === "model" && state.model) return; // the link that skips to it
  const one = state.models.find((model) => titleOf(model) === wanted)
    ?? state.models.find((model) => model.name === wanted && model.standard)
    ?? state.models.find(({ standard }) => standard) ?? state.models[0];
  if (one && titleOf(one) !== state.wanted) await choose(one);
}

async function choose({ name, version }) {
  const turn = (state.turn += 1); // a slower answer about a model that was wanted before must not end up on the page
  state.wanted = titleOf({ name, version });
  let model;
  let form;
  try {
    model = await described(name, version);
    form = turn === state.turn ? await Form.for(model, changed) : null;
  } catch (failure) {
    if (turn !== state.turn) return;
    state.wanted = null;
    trouble(failure);
    return;
  }
  if (turn !== state.turn) return;
  stop();
  Object.assign(state, { model, form });
  result.empty();
  result.before = {};
  result.took = [];
  heads.build(model);
  document.title = `${name} ${version} · Polyhead`;
  for (const line of byId("rail").children) {
    if (line.dataset.title === titleOf(model)) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  }
  replace(byId("model"), header(model), strip.node, work(), el("section", { class: "panel", "aria-labelledby": "heads-title" },
    el("h2", { id: "heads-title" }, "Heads"), heads.node));
  figures();
  offer();
}

function header({ name, version, spec, facts }) {
  const fact = (term, ...value) => el("div", {}, el("dt", {}, term), el("dd", {}, ...value));
  const processes = facts.workers && `${facts.workers} × ${counted(facts.threads, "thread")}`;
  return el("header", { class: "model-head" },
    el("div", {}, el("h1", {}, name, " ", el("span", { class: "version" }, version)),
      spec.description ? el("p", { class: "about" }, spec.description) : null),
    el("dl", { class: "facts" },
      fact("bundle", el("code", {}, facts.bundle), " ", copyButton(facts.bundle)),
      fact("graph", el("span", { title: facts.why }, facts.graph)), fact("runtime", facts.runtime), fact("device", facts.device),
      processes ? fact("workers", processes) : null));
}

/* What is asked */

function work() {
  const send = el("button", { type: "submit", class: "primary", id: "send", title: "Ctrl+Enter" }, "Ask");
  const live = el("input", { type: "checkbox", id: "live", on: { change: changed } });
  const form = el("form", { class: "panel request", novalidate: true, "aria-labelledby": "request-title",
    on: { submit: (event) => { event.preventDefault(); state.tries = 0; ask(); } } },
  el("h2", { id: "request-title" }, "Request"), state.form.node,
  el("div", { class: "row send" }, send, el("kbd", {}, "Ctrl"), el("kbd", {}, "Enter"),
    el("label", { class: "live" }, live, "ask on every change")));
  const answer = el("section", { class: "panel", "aria-labelledby": "answer-title" },
    el("h2", { id: "answer-title" }, "Answer"), result.node);
  return el("div", { class: "work" }, form, answer);
}

/** What would be sent is another: offer its commands, and ask where that is wished. */
function changed() {
  offer();
  clearTimeout(state.timer);
  if (byId("live")?.checked) state.timer = setTimeout(() => { state.tries = 0; ask({ quiet: true }); }, SETTLE);
}

function offer() {
  try {
    result.offer(state.form.body());
  } catch (fault) {
    result.offer(null, fault);
  }
}

/** Call off what is under way or waited for. */
function stop() {
  state.flight?.abort();
  state.flight = null;
  clearTimeout(state.timer);
}

/** @param {object} options `quiet`: nobody pressed a button, so nothing takes the focus. */
async function ask({ quiet = false } = {}) {
  const { form, model } = state;
  let request;
  stop();
  try {
    request = form.body();
  } catch (fault) {
    if (!(fault instanceof Fault)) throw fault;
    if (!quiet) form.blame(fault);
    return;
  }
  form.blame(null);
  const picture = form.picture();
  const flight = (state.flight = new AbortController());
  result.waiting();
  try {
    const response = await send("POST", request.path, { body: request.text, signal: flight.signal });
    state.tries = 0;
    const around = (head, instance, many) => surroundings({ model, form, picture }, head, instance, many);
    result.show(model.spec, request, response, around);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Failure)) throw error;
    failed(error, quiet);
  } finally {
    if (state.flight === flight) state.flight = null;
  }
}

function failed(failure, quiet) {
  if (failure.status === 401) byId("key-box").open = true;
  const busy = failure.status === 429 || failure.status === 503;
  state.tries += 1;
  if (!busy || state.tries > TRIES) {
    result.fail(failure);
    if (failure.loc && !quiet) state.form.blame(failure);
    return;
  }
  const seconds = failure.retryAfter ?? WAIT;
  state.timer = setTimeout(() => ask({ quiet }), seconds * 1000);
  result.fail(failure, { seconds, stop: () => clearTimeout(state.timer) });
}

/** What a head's answer is drawn with; `picture`: as it was when the request was sent. */
function surroundings({ model, form, picture }, head, instance, many) {
  const { name, version, spec } = model;
  const labels = { model: name, version, head };
  const histogram = readings.last && spec.heads[head].kind === "regression"
    ? (component) => histogramOf(readings.last, labels, component) : null;
  return { text: form.text(head, instance), picture: many ? null : picture, histogram };
}

/* How the server fares */

function figures() {
  if (!state.model) return;
  strip.show(readings, state.model);
  heads.show(readings);
}

function told() {
  figures();
  rates();
  state.looks += 1;
  if (state.looks % LOOK === 0) look();
}

/* The key, the keyboard, the start */

function keys() {
  const field = byId("key");
  field.value = apiKey.get();
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    apiKey.set(field.value.trim());
    byId("key-box").open = false;
    byId("key-box").dataset.set = String(Boolean(apiKey.get()));
    look();
    if (state.form) offer();
  });
  byId("key-box").dataset.set = String(Boolean(apiKey.get()));
  byId("forget").addEventListener("click", () => { field.value = ""; byId("key-form").requestSubmit(); });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  document.querySelector("form.request")?.requestSubmit();
});
document.addEventListener("paste", (event) => {
  if (state.form?.paste(event)) event.preventDefault();
});
window.addEventListener("hashchange", follow);

keys();
readings.listeners.add(told);
document.body.append(result.spoken);
await look();
readings.start();
