/** Which models are served, as the server lists and describes them. */

import { send } from "./api.js";

/**
 * Every version of every model, in the server's order.
 * @returns {Promise<Array<{name, version, ready, standard}>>} `standard`: answers where no version is named.
 */
export async function listed() {
  const { json } = await send("GET", "v2/models");
  return json.models.map(({ name, version, ready, default: standard }) =>
    ({ name, version, ready: Boolean(ready), standard: standard !== false }));
}

/** One version with all that the forms need: its spec, what runs it, instances that it is known to answer. */
export async function described(name, version) {
  const { json } = await send("GET", `v2/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}`);
  const { spec, example, examples, ...facts } = json.polyhead;
  const given = examples ?? example?.instances ?? [];
  return { name, version, spec, facts, tensors: json.inputs ?? [], examples: given.map((one) => named(one, spec)) };
}

/** An instance as an object, also where a model of one input lets the bare value stand for it. */
function named(instance, spec) {
  const inputs = Object.keys(spec.inputs);
  const whole = instance && typeof instance === "object" && !Array.isArray(instance) && inputs.every((name) => name in instance);
  return whole ? instance : { [inputs[0]]: instance };
}
