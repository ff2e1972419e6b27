// A line chart, small and without text of its own: what it shows is said beside it, too.

import { attribute, el, svg, text } from "./dom.js";
import { span } from "./format.js";

const width = 600;
const height = 120;
const shortest = 60_000; // ms that the chart covers at least

// ceiling is a round number that is not below n.
function ceiling(n) {
  if (n <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].find((m) => m * power >= n) * power;
}

export class Chart {
  #title;
  #series;
  #format;
  #lines;
  #values;
  #svg;
  #top = el("span", {});
  #from = el("span", {});

  // series are [{ key, label }]; the first is drawn solid, the second dashed. format writes a value.
  constructor(title, series, format) {
    this.#title = title;
    this.#series = series;
    this.#format = format;
    this.#lines = series.map((_, i) => svg("path", { class: `line line-${i}` }));
    this.#values = series.map(() => el("strong", {}));
    this.#svg = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" },
      [0.25, 0.5, 0.75].map((y) => svg("path", { class: "grid", d: `M0 ${y * height}H${width}` })),
      this.#lines,
    );
    const key = (i) =>
      svg("svg", { class: "key", viewBox: "0 0 24 6", "aria-hidden": "true" }, svg("path", { class: `line line-${i}`, d: "M0 3H24" }));
    this.node = el(
      "figure",
      { class: "chart" },
      el("figcaption", {}, el("span", { class: "title" }, title),
        series.map((s, i) => el("span", { class: "legend" }, key(i), `${s.label} `, this.#values[i]))),
      el("div", { class: "plot" }, el("div", { class: "axis", "aria-hidden": "true" }, this.#top, el("span", {}, "0")), this.#svg),
      el("div", { class: "when", "aria-hidden": "true" }, this.#from, el("span", {}, "now")),
    );
  }

  update(history, now) {
    const samples = history.samples;
    if (samples.length === 0) return;
    const covered = Math.max(shortest, now - samples[0].at);
    let most = 0;
    for (const s of samples) for (const { key } of this.#series) most = Math.max(most, s[key]);
    const top = ceiling(most);
    const x = (at) => (width * (1 - (now - at) / covered)).toFixed(1);
    const y = (value) => (2 + (height - 4) * (1 - value / top)).toFixed(1);
    const runs = history.runs();
    this.#series.forEach(({ key }, i) => {
      const d = runs.map((run) => "M" + run.map((s) => `${x(s.at)} ${y(s[key])}`).join("L")).join("");
      attribute(this.#lines[i], "d", d);
      text(this.#values[i], this.#format(samples.at(-1)[key]));
    });
    text(this.#top, this.#format(top));
    text(this.#from, `${span(covered / 1000)} ago`);
    const says = this.#series.map(({ key, label }) => `${label} ${this.#format(samples.at(-1)[key])}`).join(", ");
    attribute(this.#svg, "aria-label", `${this.#title}, last ${span(covered / 1000)}: now ${says}; at most ${this.#format(most)}`);
  }
}

// charts are the four lines that there are of a device, and of the fleet.
export function charts(number, rate) {
  const all = [
    new Chart("Up: device to cloud", [{ key: "upIn", label: "accepted" }, { key: "upOut", label: "delivered" }], rate),
    new Chart("Down: cloud to device", [{ key: "downIn", label: "accepted" }, { key: "downOut", label: "delivered" }], rate),
    new Chart("Queued messages", [{ key: "upQueue", label: "up" }, { key: "downQueue", label: "down" }], number),
  ];
  return {
    node: el("div", { class: "charts" }, all.map((c) => c.node)),
    update: (history, now) => all.forEach((c) => c.update(history, now)),
  };
}
