/** Requests to the server that the page came from, and its failures in its own words. */

const KEY = "polyhead.key";

/** What a request failed with. `status` 0: the server was not reached. */
export class Failure extends Error {
  constructor({ status, message, type = null, loc = null, retryAfter = null, text = "" }) {
    super(message);
    Object.assign(this, { status, type, loc, retryAfter, text });
  }
}

/** The API key of this tab; an empty one is none. It lives as long as the tab. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** The whole URL of a path of this server; relative to the page, so that a prefix before it is kept. */
export function address(path) {
  return new URL(path, document.baseURI).href;
}

/**
 * Send a request and read its answer.
 * @returns {Promise<{status, headers, text, json, milliseconds, server}>} `milliseconds` from sending to the last byte;
 *   `server`: those that the server says it took (Server-Timing), null where it says nothing.
 * @throws {Failure} the server answers with an error, or not at all.
 */
export async function send(method, path, { body, signal, ...more } = {}) {
  const headers = { ...more.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (apiKey.get()) headers["X-Api-Key"] = apiKey.get();
  const started = performance.now();
  let response;
  let text;
  try {
    response = await fetch(address(path), { method, body, headers, signal, cache: "no-store", redirect: "error" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure({ status: 0, message: `the server at ${location.host} gives no answer (${error.message})` });
  }
  const milliseconds = performance.now() - started;
  const json = parsed(text);
  if (!response.ok) throw failure(response, text, json);
  return { status: response.status, headers: response.headers, text, json, milliseconds, server: timing(response) };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failure(response, text, json) {
  const said = json && typeof json === "object" ? json : {};
  const message = said.error ?? said.message ?? (text.slice(0, 300).trim() || response.statusText);
  return new Failure({
    status: response.status,
    message: typeof message === "string" ? message : JSON.stringify(message),
    type: said.type ?? null,
    loc: Array.isArray(said.loc) ? said.loc : null,
    retryAfter: seconds(response.headers.get("Retry-After")),
    text,
  });
}

/** What Retry-After says, in seconds: a number, or a date. */
function seconds(header) {
  if (!header) return null;
  if (/^\d+$/.test(header.trim())) return Number(header);
  const until = Date.parse(header);
  return Number.isNaN(until) ? null : Math.max(0, Math.ceil((until - Date.now()) / 1000));
}

function timing(response) {
  const durations = [...(response.headers.get("Server-Timing") ?? "").matchAll(/;\s*dur=([\d.]+)/g)];
  return durations.length ? Math.max(...durations.map((match) => Number(match[1]))) : null;
}
