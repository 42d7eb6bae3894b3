/** The API reference, drawn from the server's own OpenAPI document. */

import { Failure, send } from "./api.js";
import { described } from "./catalogue.js";
import { copyButton, el, replace } from "./dom.js";
import { resolved, tree, typeOf } from "./schema.js";
import { curl, pretty } from "./snippets.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const JSON_TYPE = "application/json";
const byId = (id) => document.getElementById(id);

/** Every operation of a document, by its tag: a model, or the server. */
function grouped(api) {
  const groups = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const operation = item[method];
      const tag = operation.tags?.[0] ?? "server";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push({ method, path, operation, tag, id: `${method}${path}`.replace(/[^\w-]+/g, "-") });
    }
  }
  return groups;
}

function drawn(api, entry) {
  const { method, path, operation, id } = entry;
  const box = el("details", { class: "operation", id, data: { search: `${path} ${operation.summary} ${entry.tag}`.toLowerCase() } },
    el("summary", {}, el("span", { class: `method ${method}` }, method.toUpperCase()), el("code", { class: "path" }, path),
      el("span", { class: "about" }, operation.summary ?? "")));
  box.addEventListener("toggle", () => {
    if (box.open && box.children.length === 1) box.append(body(api, entry));
  });
  return box;
}

function section(title, ...children) {
  return el("section", {}, el("h3", {}, title), ...children);
}

function body(api, entry) {
  const { operation } = entry;
  const parameters = (operation.parameters ?? []).map((one) => resolved(one, api));
  return el("div", { class: "operation-body" },
    operation.description ? el("p", { class: "about" }, operation.description) : null,
    parameters.length ? section("Parameters", el("ul", { class: "schema" }, parameters.map((one) => parameter(one, api)))) : null,
    operation.requestBody ? section("Body", contents(resolved(operation.requestBody, api).content, api)) : null,
    example(entry),
    section("Answers", Object.entries(operation.responses ?? {}).map(([status, response]) =>
      answer(status, resolved(response, api), api))));
}

function parameter(one, api) {
  const schema = one.schema ?? Object.values(one.content ?? {})[0]?.schema ?? {};
  return el("li", {}, el("div", { class: "line" }, el("code", { class: "name" }, one.name),
    el("span", { class: "type" }, `${typeOf(schema, api)}, in ${one.in}`),
    one.required ? el("span", { class: "required" }, "required") : null,
    one.description ? el("span", { class: "about" }, one.description) : null), tree(schema, api));
}

function contents(content, api) {
  return Object.entries(content ?? {}).map(([type, { schema }], index) => {
    const empty = !schema || !Object.keys(schema).length;
    const found = empty ? {} : resolved(schema, api);
    const kind = empty ? "bytes" : typeOf(schema, api);
    const said = [found.description, kind === "anything" ? null : kind].filter(Boolean).join(" · ");
    return el("details", { class: "content", open: index === 0 && type === JSON_TYPE },
      el("summary", {}, el("code", {}, type), el("span", { class: "type" }, said)), empty ? null : tree(schema, api));
  });
}

function answer(status, response, api) {
  const headers = Object.entries(response.headers ?? {}).map(([name, header]) => [name, resolved(header, api)]);
  return el("details", { class: "answer" },
    el("summary", {}, el("span", { class: `status s${status[0]}` }, status), response.description ?? ""),
    headers.length ? el("ul", { class: "schema" }, headers.map(([name, header]) => el("li", {}, el("div", { class: "line" },
      el("code", { class: "name" }, name), el("span", { class: "about" }, header.description ?? ""))))) : null,
    contents(response.content, api));
}

/** A command that works: with a row that the model is known to answer. */
function example({ method, path, operation, tag }) {
  const place = el("div", {}, el("p", { class: "hint" }, "…"));
  const show = (command, more) => replace(place, el("div", { class: "row end" }, more, copyButton(command)),
    el("pre", { class: "command", tabindex: 0 }, command));
  if (method === "get") show(curl(path.slice(1), null));
  else if (operation.requestBody) fill(path, tag, show, place);
  else return null;
  return section("Example", place);
}

async function fill(path, tag, show, place) {
  const [name, version] = tag.split("/");
  try {
    const model = await known(name, version);
    if (!model.examples.length) throw new Failure({ status: 0, message: "a row of this model is too long to be an example" });
    const request = path.endsWith("/infer") ? tensors(model) : { instances: model.examples.slice(0, 1) };
    const written = pretty(request);
    const compact = JSON.stringify(request);
    show(curl(path.slice(1), compact), el("a", { href: `.#${name}/${version}` }, "Try it in the console"));
    if (written.length < 3000) place.append(el("pre", { class: "json", tabindex: 0 }, written));
  } catch (failure) {
    replace(place, el("p", { class: "hint" }, `No example: ${failure.message}`));
  }
}

const descriptions = new Map();

function known(name, version) {
  const title = `${name}/${version}`;
  if (!descriptions.has(title)) descriptions.set(title, described(name, version));
  return descriptions.get(title);
}

/** The first example as the tensors of the Open Inference Protocol. */
function tensors({ spec, examples, tensors: declared }) {
  const inputs = Object.entries(spec.inputs).map(([name, input]) => {
    const value = examples[0][name];
    if (input.kind === "text") return { name, datatype: "BYTES", shape: [1], data: [value] };
    if (input.kind === "image" && value.b64) return { name, datatype: "BYTES", shape: [1], data: [value.b64] };
    const { datatype } = declared.find((one) => one.name === name);
    const shape = [];
    for (let inner = value; Array.isArray(inner); [inner] = inner) shape.push(inner.length);
    return { name, datatype, shape: [1, ...shape], data: [value].flat(Infinity) };
  });
  return { inputs };
}

/** The page: a list of operations at the left, all of them at the right. */
function page(api) {
  const groups = [...grouped(api)];
  replace(byId("contents"), groups.map(([tag, entries]) => el("div", {}, el("h2", {}, tag),
    entries.map(({ id, method, path }) => el("a", { href: `#${id}`, data: { id } },
      el("span", { class: `method ${method}` }, method.toUpperCase()), el("span", { class: "path" }, path))))));
  const title = el("header", { class: "model-head" },
    el("div", {}, el("h1", {}, api.info.title, " ", el("span", { class: "version" }, api.info.version)),
      api.info.description ? el("p", { class: "about" }, api.info.description) : null),
    el("p", { class: "hint" }, `OpenAPI ${api.openapi} · `, el("a", { href: "openapi.json" }, "openapi.json")));
  replace(byId("model"), title, groups.map(([tag, entries]) => el("section", { class: "panel group", "aria-label": tag },
    el("h2", {}, tag), entries.map((entry) => drawn(api, entry)))));
}

/** Open what the address names. */
function follow() {
  const named = byId(decodeURIComponent(location.hash.slice(1)));
  if (!(named instanceof HTMLDetailsElement)) return;
  named.open = true;
  named.scrollIntoView({ block: "start" });
  named.querySelector("summary").focus({ preventScroll: true });
}

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let left = 0;
  for (const box of document.querySelectorAll(".operation")) {
    box.hidden = !words.every((word) => box.dataset.search.includes(word));
    document.querySelector(`#contents [data-id="${box.id}"]`).hidden = box.hidden;
    left += box.hidden ? 0 : 1;
  }
  for (const group of document.querySelectorAll(".group, #contents > div")) {
    group.hidden = !group.querySelector(".operation:not([hidden]), a:not([hidden])");
  }
  byId("found").textContent = words.length ? `${left} found` : "";
}

async function start() {
  try {
    page((await send("GET", "openapi.json")).json);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    replace(byId("model"), el("div", { class: "error", role: "alert" }, el("h2", {}, "No document"), el("p", {}, failure.message),
      failure.status === 401 ? el("p", { class: "hint" }, "Give an API key in the console; it is kept for this tab.") : null));
    return;
  }
  byId("filter").addEventListener("input", filter);
  window.addEventListener("hashchange", follow);
  follow();
}

await start();
