// How numbers, times and sizes are written.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat("en-CA", { dateStyle: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const number = (n) => whole.format(n);

// rate is of messages a second.
export function rate(n) {
  if (n > 0 && n < 0.1) return "<0.1/s";
  return `${n < 100 ? tenth.format(n) : whole.format(n)}/s`;
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    n /= 1024;
    if (n < 1024 || unit === "GiB") return `${tenth.format(n)} ${unit}`;
  }
}

// span is a duration in at most two units.
export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return m < 5 && s % 60 ? `${m} min ${s % 60} s` : `${m} min`;
  const h = Math.floor(m / 60);
  if (h < 24) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  const d = Math.floor(h / 24);
  return d < 14 && h % 24 ? `${d} d ${h % 24} h` : `${number(d)} d`;
}

export const timeOfDay = (ms) => clock.format(ms);

// moment is a time of day, with the date unless that is today's.
export function moment(ms, now) {
  return day.format(ms) === day.format(now) ? clock.format(ms) : `${day.format(ms)} ${clock.format(ms)}`;
}

export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many ?? one + "s"}`;

export const capital = (s) => s.charAt(0).toUpperCase() + s.slice(1);

export const percent = (part, all) => (all > 0 ? Math.round((100 * part) / all) : 0);
