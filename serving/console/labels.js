/** One colour a label: the same wherever the label stands. */

export const COLOURS = 10; // classes .hue-0 … .hue-9 of the style sheet

/** The class of a label's colour, by its place among the labels. */
export function hue(labels, label) {
  const index = labels.indexOf(label);
  return `hue-${(index < 0 ? 0 : index) % COLOURS}`;
}

/** The types of spans that labels in the IOB2 notation stand for; other labels stand for themselves. */
export function spanTypes(labels) {
  const types = labels.filter((label) => label !== "O").map((label) => label.replace(/^[BI]-/, ""));
  return [...new Set(types)];
}

/** The class of a span's colour: never the gray of the first label, which of a mask is the background. */
export function spanHue(types, type) {
  return `hue-${1 + (Math.max(0, types.indexOf(type)) % (COLOURS - 1))}`;
}
