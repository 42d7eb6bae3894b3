/** The request as a command that does the same. */

import { address, apiKey } from "./api.js";

const LONGEST = 4000; // characters of a body that are still worth printing
const FILE = "request.json";

/** The name of the variable that stands in for a key: no key is ever printed. */
const VARIABLE = "POLYHEAD_API_KEY";

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A `curl` of exactly this request; `text` null: a GET. */
export function curl(path, text) {
  const parts = [`curl -s ${quoted(address(path))}`];
  if (text !== null) parts.push("-H 'Content-Type: application/json'");
  if (apiKey.get()) parts.push(`-H "X-Api-Key: $${VARIABLE}"`);
  if (text !== null) parts.push(long(text) ? `--data @${FILE}` : `-d ${quoted(text)}`);
  return parts.join(" \\\n  ");
}

/** The same with Python's httpx. */
export function python(path, text) {
  const key = Boolean(apiKey.get());
  const imports = [key && "import os", long(text) && "import pathlib", key || long(text) ? "" : null, "import httpx"];
  const headers = [`"Content-Type": "application/json"`, key && `"X-Api-Key": os.environ["${VARIABLE}"]`].filter(Boolean);
  return `${imports.filter((line) => typeof line === "string").join("\n")}

body = ${long(text) ? `pathlib.Path("${FILE}").read_bytes()` : literal(text)}
headers = {${headers.join(", ")}}
answer = httpx.post("${address(path)}", content=body, headers=headers)
answer.raise_for_status()
for row in answer.json()["predictions"]:
    print(row)
`;
}

function literal(text) {
  return text.includes("'''") || text.includes("\\") || text.endsWith("'") ? JSON.stringify(text) : `'''${text}'''`;
}

/** Whether a body is too long to stand in a command, and has to be saved as a file. */
export function long(text) {
  return text.length > LONGEST;
}

/** JSON to be read: indented, but lists of plain values on one line. */
export function pretty(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.every((one) => one === null || typeof one !== "object")) return `[${value.map((one) => JSON.stringify(one)).join(", ")}]`;
    return `[\n${value.map((one) => `${indent}  ${pretty(one, `${indent}  `)}`).join(",\n")}\n${indent}]`;
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.entries(value).map(([key, one]) => `${indent}  ${JSON.stringify(key)}: ${pretty(one, `${indent}  `)}`);
  return members.length ? `{\n${members.join(",\n")}\n${indent}}` : "{}";
}
