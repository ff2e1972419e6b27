// The table of devices: searched, filtered and sorted here, a page of rows at a time in the document, so that it stays
// quick with thousands of devices.

import { attribute, badge, el, show, text } from "./dom.js";
import { number, plural, rate, span } from "./format.js";
import { groupOf, groups, label } from "./groups.js";
import { deviceAddress } from "./problems.js";

export const perPage = 50;
const heldFor = 3_000; // ms for which rows stay where they are after somebody has pointed at them

const queued = (d) => d.up.queued_messages + d.down.queued_messages;
const dropped = (d) => d.up.dropped_messages_total + d.down.dropped_messages_total;
const flowing = (d) => d.up.accepted_messages_per_second + d.down.accepted_messages_per_second;

// oldest is how long the oldest message has waited by now, in seconds. Nobody tells when it only gets older.
const oldest = (d, now) => {
  const at = Math.max(d.up.oldest_age_seconds, d.down.oldest_age_seconds);
  return queued(d) > 0 && at > 0 ? at + Math.max(0, now - d.told) / 1000 : 0;
};
const sinceOf = (d) => Date.parse(d.offline_since ?? d.since);
const names = new Intl.Collator("en", { numeric: true });

// columns: down says that it is sorted downwards first.
const columns = [
  { id: "name", title: "Device", order: () => 0 },
  { id: "state", title: "State", order: (a, b) => groupOf(a).rank - groupOf(b).rank },
  { id: "since", title: "For", order: (a, b) => sinceOf(b) - sinceOf(a), class: "num" },
  { id: "cloud", title: "Cloud", order: (a, b) => names.compare(a.cloud, b.cloud) },
  { id: "reason", title: "Why", order: (a, b) => names.compare(a.reason, b.reason) },
  { id: "queued", title: "Queued", down: true, order: (a, b) => queued(a) - queued(b), class: "num" },
  { id: "oldest", title: "Oldest", down: true, order: (a, b, now) => oldest(a, now) - oldest(b, now), class: "num" },
  { id: "rate", title: "Rate", down: true, order: (a, b) => flowing(a) - flowing(b), class: "num" },
  { id: "dropped", title: "Dropped", down: true, order: (a, b) => dropped(a) - dropped(b), class: "num" },
];

export const defaults = { q: "", state: "", cloud: "", kind: "", sort: "state", page: 0 };

// select is the devices that a query lets through, in its order.
export function select(devices, query, now) {
  const words = query.q.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const d of devices) {
    if (query.cloud && d.cloud !== query.cloud) continue;
    if (query.state && groupOf(d).id !== query.state) continue;
    if (query.kind && d.failure?.kind !== query.kind) continue;
    if (words.every((w) => d.text.includes(w))) found.push(d);
  }
  const down = query.sort.startsWith("-") ? -1 : 1;
  const column = columns.find((c) => c.id === query.sort.replace("-", "")) ?? columns[1];
  return found.sort((a, b) => down * column.order(a, b, now) || (column.id === "name" ? down : 1) * names.compare(a.name, b.name));
}

export class Table {
  query = { ...defaults };
  #live;
  #asked; // called with the query when somebody has changed it
  #rows = new Map(); // by device
  #found = [];
  #held = 0;
  #dirty = true;
  #heads = new Map();

  #search = el("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "Name, cloud or reason" });
  #state = el("select", { id: "state" }, el("option", { value: "" }, "Any"),
    groups.map((g) => el("option", { value: g.id }, `${g.sign} ${g.word}`)));
  #cloud = el("select", { id: "cloud" });
  #sort = el("select", { id: "sort" }, columns.flatMap((c) => [
    el("option", { value: c.id }, `${c.title} ▲`), el("option", { value: `-${c.id}` }, `${c.title} ▼`)]));
  #kind = el("button", { type: "button", class: "chip" });
  #clear = el("button", { type: "button", class: "clear" }, "Show all");
  #count = el("p", { class: "count", id: "count" });
  #body = el("tbody", { role: "rowgroup" });
  #empty = el("p", { class: "empty" });
  #previous = el("button", { type: "button" }, "← Previous");
  #next = el("button", { type: "button" }, "Next →");
  #where = el("span", {});
  #pager = el("nav", { class: "pager", "aria-label": "Pages of the table" }, this.#previous, this.#where, this.#next);
  #table;

  constructor(live, asked) {
    this.#live = live;
    this.#asked = asked;
    const heads = columns.map((c) => {
      const sign = el("span", { class: "sort", "aria-hidden": "true" });
      const th = el("th", { role: "columnheader", scope: "col", class: c.class },
        el("button", { type: "button", onclick: () => this.#sortBy(c) }, c.title, sign));
      th.sign = sign;
      this.#heads.set(c.id, th);
      return th;
    });
    this.#table = el("table", { class: "devices", role: "table", "aria-labelledby": "devices-title", "aria-describedby": "count" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), this.#body);
    const field = (name, input, extra) => el("div", { class: `field ${extra ?? ""}` }, el("label", { for: input.id }, name), input);
    this.node = el("section", { class: "card", "aria-labelledby": "devices-title" },
      el("h2", { id: "devices-title" }, "Devices"),
      el("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() },
        field("Search", this.#search, "wide"), field("State", this.#state), field("Cloud", this.#cloud),
        field("Sort by", this.#sort, "narrow"), this.#kind, this.#clear),
      this.#count, this.#table, this.#empty, this.#pager);
    this.#search.addEventListener("input", () => this.#ask({ q: this.#search.value }));
    this.#state.addEventListener("change", () => this.#ask({ state: this.#state.value }));
    this.#cloud.addEventListener("change", () => this.#ask({ cloud: this.#cloud.value }));
    this.#sort.addEventListener("change", () => this.#ask({ sort: this.#sort.value }));
    this.#kind.addEventListener("click", () => this.#ask({ kind: "" }));
    this.#clear.addEventListener("click", () => {
      this.#ask({ ...defaults, sort: this.query.sort });
      this.#search.focus();
    });
    this.#previous.addEventListener("click", () => this.#turn(-1));
    this.#next.addEventListener("click", () => this.#turn(1));
    const hold = () => (this.#held = performance.now() + heldFor);
    for (const event of ["pointermove", "pointerdown", "keydown", "focusin"]) this.#body.addEventListener(event, hold);
  }

  #ask(change) {
    this.query = { ...this.query, page: 0, ...change };
    this.changed();
    this.#asked(this.query);
    this.update();
  }

  #sortBy(column) {
    const first = column.down ? `-${column.id}` : column.id;
    const other = column.down ? column.id : `-${column.id}`;
    this.#ask({ sort: this.query.sort === first ? other : first });
  }

  #turn(by) {
    this.#ask({ page: this.query.page + by });
    this.node.scrollIntoView();
    this.#table.querySelector("tbody a")?.focus({ preventScroll: true });
  }

  // changed has the rows chosen anew at the next update, whatever is pointed at.
  changed() {
    this.#held = 0;
    this.#dirty = true;
  }

  // stale has the rows chosen anew as soon as nobody points at them.
  stale() {
    this.#dirty = true;
  }

  update() {
    const now = this.#live.now();
    if (this.#dirty && performance.now() >= this.#held) {
      this.#found = select(this.#live.devices.values(), this.query, now);
      this.#dirty = false;
    }
    const pages = Math.max(1, Math.ceil(this.#found.length / perPage));
    const page = Math.min(this.query.page, pages - 1);
    this.query.page = page;
    const from = page * perPage;
    this.#place(this.#found.slice(from, from + perPage), now);
    this.#controls(pages, from);
  }

  // place has exactly these devices' rows in the document. Rows that stay are not touched, so that focus stays, too.
  #place(devices, now) {
    const wanted = new Set(devices.map((d) => d.name));
    for (const [name, row] of this.#rows) {
      if (wanted.has(name)) continue;
      row.remove();
      this.#rows.delete(name);
    }
    const focused = document.activeElement;
    let at = this.#body.firstElementChild;
    for (const { name } of devices) {
      let row = this.#rows.get(name);
      if (!row) this.#rows.set(name, (row = makeRow(name)));
      if (row === at) at = at.nextElementSibling;
      else this.#body.insertBefore(row, at);
      const d = this.#live.devices.get(name);
      if (d) fillRow(row, d, now);
    }
    if (focused !== document.activeElement && this.#body.contains(focused)) focused.focus({ preventScroll: true });
  }

  #controls(pages, from) {
    const { query } = this;
    const total = this.#live.devices.size;
    const found = this.#found.length;
    const filtered = Boolean(query.q || query.state || query.cloud || query.kind);
    text(this.#count, !this.#live.loaded ? "Loading the devices…"
      : filtered ? `${number(found)} of ${plural(total, "device")}` : plural(total, "device"));
    show(this.#empty, this.#live.loaded && found === 0);
    text(this.#empty, total === 0 ? "No device is configured yet." : "No device is like that.");
    show(this.#table, found > 0);
    show(this.#pager, pages > 1);
    text(this.#where, `${number(from + 1)}–${number(Math.min(found, from + perPage))} of ${number(found)}`);
    attribute(this.#previous, "disabled", query.page === 0);
    attribute(this.#next, "disabled", query.page >= pages - 1);
    show(this.#clear, filtered);
    show(this.#kind, Boolean(query.kind));
    text(this.#kind, `Failure: ${query.kind} ✕`);
    attribute(this.#kind, "aria-label", `Failure ${query.kind}: remove this filter`);
    for (const [input, value] of [[this.#search, query.q], [this.#state, query.state], [this.#sort, query.sort]]) {
      if (input.value !== value) input.value = value;
    }
    this.#clouds(query.cloud);
    for (const [id, th] of this.#heads) {
      const up = query.sort === id;
      const down = query.sort === `-${id}`;
      attribute(th, "aria-sort", up ? "ascending" : down ? "descending" : null);
      text(th.sign, up ? " ▲" : down ? " ▼" : "");
    }
  }

  // clouds offers those that there are, and the one that is asked for.
  #clouds(chosen) {
    const all = (this.#live.status?.clouds ?? []).map((c) => c.name);
    if (chosen && !all.includes(chosen)) all.push(chosen);
    const is = [...this.#cloud.options].slice(1).map((o) => o.value);
    if (is.join("\n") !== all.join("\n") || this.#cloud.options.length === 0) {
      this.#cloud.replaceChildren(el("option", { value: "" }, "Any"), ...all.map((c) => el("option", { value: c }, c)));
    }
    if (this.#cloud.value !== chosen) this.#cloud.value = chosen;
  }
}

function makeRow(name) {
  const part = { badge: badge() };
  const cells = columns.slice(1).map((c) => {
    const td = el("td", { role: "cell", class: [c.class, `col-${c.id}`].filter(Boolean).join(" "), "data-title": c.title });
    part[c.id] = td;
    return td;
  });
  part.state.append(part.badge);
  part.link = el("a", { href: deviceAddress(name) }, name);
  const row = el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row" }, part.link), cells);
  row.parts = part;
  return row;
}

function fillRow(row, d, now) {
  const { parts: part } = row;
  part.badge.set(groupOf(d), label(d));
  text(part.since, span((now - sinceOf(d)) / 1000));
  text(part.cloud, d.cloud);
  text(part.reason, d.failure?.reason ?? d.reason);
  for (const [id, n, says] of [
    ["queued", queued(d), number(queued(d))],
    ["oldest", oldest(d, now), span(oldest(d, now))],
    ["rate", flowing(d), rate(flowing(d))],
    ["dropped", dropped(d), number(dropped(d))],
  ]) {
    text(part[id], n > 0 ? says : "–");
    attribute(part[id], "data-none", n === 0);
  }
}
