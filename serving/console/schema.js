/** A JSON schema, to be read by a person. */

import { el } from "./dom.js";

const INLINE = 6; // values of an enumeration that are its type
const VAST = 1e30; // a bound beyond says nothing but the dtype
const FEW = 12; // values of an enumeration that are written out
const DEEP = 6; // levels that are drawn; a schema may refer to itself

/** What a reference stands for. */
export function resolved(schema, document) {
  const seen = new Set();
  let found = schema;
  while (found?.$ref && !seen.has(found.$ref)) {
    seen.add(found.$ref);
    found = found.$ref.slice(2).split("/").reduce((part, key) => part?.[unescaped(key)], document) ?? {};
  }
  return found ?? {};
}

function unescaped(key) {
  return key.replaceAll("~1", "/").replaceAll("~0", "~");
}

/** The type in a few words. */
export function typeOf(schema, document, deep = 0) {
  const found = resolved(schema, document);
  if (found.const !== undefined) return `always ${JSON.stringify(found.const)}`;
  if (found.enum) return found.enum.length > INLINE ? `one of ${found.enum.length} values` : choice(found.enum);
  if (found.anyOf) return deep > 1 ? "one of several" : found.anyOf.map((one) => typeOf(one, document, deep + 1)).join(" or ");
  if (found.type === "array") return `list of ${sized(found)}${deep > 3 ? "…" : typeOf(found.items ?? {}, document, deep + 1)}`;
  const type = Array.isArray(found.type) ? found.type.join(" or ") : found.type ?? "anything";
  return `${type}${range(found)}`;
}

function choice(values) {
  const written = values.map((value) => JSON.stringify(value));
  return written.length === 1 ? `always ${written[0]}` : written.join(" or ");
}

function sized({ minItems: least, maxItems: most }) {
  if (least !== undefined && least === most) return `${least} × `;
  if (most !== undefined) return `${least ?? 0} to ${most} × `;
  return "";
}

function range({ minimum, maximum }) {
  const [least, most] = [minimum, maximum].map((bound) => (Math.abs(bound) > VAST ? undefined : bound));
  const written = (value) => (Math.abs(value) > 1e9 ? value.toExponential(2) : value);
  if (least !== undefined && most !== undefined) return ` from ${written(least)} to ${written(most)}`;
  if (least !== undefined) return `, at least ${written(least)}`;
  return most === undefined ? "" : `, at most ${written(most)}`;
}

/** The whole schema: properties with types, what is inside of them to be unfolded. */
export function tree(schema, document, deep = 0) {
  const found = resolved(schema, document);
  if (deep > DEEP) return el("span", { class: "hint" }, "…");
  if (found.anyOf) {
    const choices = found.anyOf.filter((one) => inside(one, document));
    return choices.length ? el("div", { class: "choices" }, choices.map((one, index) => el("div", {},
      index ? el("p", { class: "hint" }, "or") : null, tree(one, document, deep)))) : null;
  }
  if (found.type === "array") return inside(found.items, document) ? tree(found.items, document, deep) : null;
  const properties = Object.entries(found.properties ?? {});
  if (!properties.length) return values(found);
  return el("ul", { class: "schema" }, properties.map(([name, one]) => property(name, one, found.required ?? [], document, deep)));
}

/** Whether there is more to a schema than its type says. */
function inside(schema, document, deep = 0) {
  const found = resolved(schema ?? {}, document);
  if (deep > DEEP) return false;
  if (found.properties || (found.enum?.length ?? 0) > INLINE) return true;
  return [found.items, ...(found.anyOf ?? [])].some((one) => one && inside(one, document, deep + 1));
}

function property(name, schema, required, document, deep) {
  const found = resolved(schema, document);
  const line = [el("code", { class: "name" }, name), el("span", { class: "type" }, typeOf(schema, document)),
    required.includes(name) ? el("span", { class: "required" }, "required") : null,
    found.description ? el("span", { class: "about" }, found.description) : null];
  if (!inside(schema, document)) return el("li", {}, el("div", { class: "line" }, line));
  const box = el("details", {}, el("summary", {}, el("span", { class: "line" }, line)));
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(tree(schema, document, deep + 1) ?? ""); });
  return el("li", {}, box);
}

function values(schema) {
  if ((schema.enum?.length ?? 0) <= INLINE) return null;
  const written = schema.enum.slice(0, FEW).map((value) => JSON.stringify(value)).join(", ");
  return el("p", { class: "hint" }, schema.enum.length > FEW ? `${written}, … ${schema.enum.length} in all` : written);
}
