/** Numbers as a person reads them. */

/** A number with as many digits as say something: at most `digits` significant ones. */
export function short(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(Math.max(0, digits - 2));
  if (size >= 10 ** (digits - 1)) return value.toFixed(0);
  return String(Number(value.toPrecision(digits)));
}

/** A score from 0 to 1, with more digits where it is next to 1. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0.999 && value < 1) return value.toFixed(5);
  if (value > 0 && value < 0.0001) return value.toExponential(1);
  return value.toFixed(4);
}

/** Milliseconds, or seconds where they are many. */
export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined || Number.isNaN(milliseconds)) return "–";
  if (milliseconds >= 10_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 1 ? milliseconds.toPrecision(2) : milliseconds.toFixed(milliseconds < 100 ? 1 : 0)} ms`;
}

/** Bytes in the unit that fits. */
export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${power ? (count / 1024 ** power).toFixed(1) : count} ${units[power]}`;
}

/** The value that a share of the values lies below; null of none. */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** Plural of a counted noun. */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A quantity. */
export function withUnit(value, unit) {
  return unit ? `${short(value, 4)} ${unit}` : short(value, 4);
}

/** A share of a whole. */
export function percent(share) {
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}
