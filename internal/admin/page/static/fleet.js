// The first view: the fleet at a glance, and its table.

import { attribute, card, el, facts, rows, text } from "./dom.js";
import { bytes, number, percent, plural, rate, span, timeOfDay } from "./format.js";
import { charts } from "./chart.js";
import { count, groups } from "./groups.js";
import { find, Problems } from "./problems.js";
import { defaults, Table } from "./table.js";

export class Fleet {
  #live;
  #history;
  #title = el("h1", { tabindex: "-1" }, "Fleet");
  #headline = el("p", { class: "headline" });
  #problems = new Problems();
  #tiles = new Map();
  #clouds = el("tbody", {});
  #charts = charts(number, rate);
  #values = {};
  #table;

  constructor(live, history) {
    this.#live = live;
    this.#history = history;
    this.#table = new Table(live, remember);
    const tiles = el("ul", { class: "tiles" }, groups.map((g) => {
      const n = el("span", { class: "n" });
      const link = el("a", { href: `#/?state=${g.id}`, title: g.help, "data-group": g.id }, n,
        el("span", { class: "label" }, el("span", { class: "sign", "aria-hidden": "true" }, g.sign), ` ${g.word}`));
      this.#tiles.set(g.id, { link, n });
      return el("li", {}, link);
    }));
    const value = (id) => (this.#values[id] = el("span", {}));
    const heads = ["Cloud", ...groups.map((g) => g.word), "Address", "Certificate"];
    this.node = el("div", { class: "view fleet" }, this.#title, this.#headline, this.#problems.node, tiles,
      card("Clouds", el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Clouds, the whole table" },
        el("table", { class: "clouds" },
          el("thead", {}, el("tr", {}, heads.map((h, i) =>
            el("th", { scope: "col", class: i > 0 && i <= groups.length ? "num" : null }, h)))), this.#clouds))),
      card("Messages", this.#charts.node), this.#table.node,
      card("Gateway", facts(
        ["Queued up", value("up")], ["Queued down", value("down")], ["Delivered", value("delivered")],
        ["Dropped", value("dropped")], ["Spool on disk", value("spool")], ["Queues in memory", value("memory")],
        ["LAN connections", value("local")], ["Connects to clouds", value("dials")], ["Clock", value("clock")],
        ["Devices connect to", value("listen")])));
  }

  focus() {
    this.#title.focus();
  }

  // open shows the devices that an address asks for.
  open(params) {
    const query = { ...defaults };
    for (const key of Object.keys(defaults)) {
      const value = params.get(key);
      if (value !== null) query[key] = key === "page" ? Math.max(0, Number.parseInt(value, 10) || 0) : value;
    }
    this.#table.query = query;
    this.#table.changed();
  }

  // stale is for when devices have changed.
  stale() {
    this.#table.stale();
  }

  // headline is the state of the fleet in a sentence.
  static says(status, now) {
    const n = count(status.devices);
    if (status.devices.total === 0) return "No device is configured yet.";
    const wrong = n.action + n.offline;
    if (wrong === 0) {
      const well = find(status, now).some((p) => p.level === "bad") ? "" : "All is well: ";
      return `${well}${number(n.online)} of ${plural(status.devices.total, "device")} online, none failing.`;
    }
    const act = n.action > 0 ? ` ${number(n.action)} need${n.action === 1 ? "s" : ""} action.` : "";
    return `${plural(wrong, "device is", "devices are")} offline, ${number(n.online)} of ${number(status.devices.total)} online.${act}`;
  }

  update() {
    const { status } = this.#live;
    const now = this.#live.now();
    if (status) {
      const then = this.#live.state === "lost" ? `At ${timeOfDay(this.#live.lostAt)}: ` : "";
      text(this.#headline, then + Fleet.says(status, now));
      this.#problems.update(find(status, now));
      const n = count(status.devices);
      for (const [id, { link, n: node }] of this.#tiles) {
        text(node, number(n[id]));
        attribute(link, "data-none", n[id] === 0);
        attribute(link, "aria-current", this.#table.query.state === id ? "true" : null);
      }
      rows(this.#clouds, status.clouds, makeCloud, (row, c) => fillCloud(row, c, now));
      this.#charts.update(this.#history, now);
      this.#facts(status);
    }
    this.#table.update();
  }

  #facts(s) {
    const queue = (f) => f.queued_messages === 0 ? "none"
      : `${plural(f.queued_messages, "message")}, ${bytes(f.queued_bytes)}, oldest ${span(f.oldest_age_seconds)}`;
    const of = (part, all) => `${bytes(part)} of ${bytes(all)} (${percent(part, all)} %)`;
    const says = {
      up: queue(s.up),
      down: queue(s.down),
      delivered: `${number(s.up.delivered_messages_total)} up, ${number(s.down.delivered_messages_total)} down`,
      dropped: `${number(s.up.dropped_messages_total)} up, ${number(s.down.dropped_messages_total)} down`,
      spool: of(s.spool.bytes, s.spool.limit_bytes),
      memory: of(s.memory.used_bytes, s.memory.limit_bytes),
      local: `${number(s.local.open_connections)} of at most ${number(s.local.limit_connections)}, ` +
        `${plural(s.local.refused_logins_total, "login")} refused`,
      dials: `${number(s.dials.open)} under way, ${number(s.dials.waiting)} waiting`,
      clock: s.clock.state,
      listen: s.listen.join(", ") || "nothing yet",
    };
    for (const [id, value] of Object.entries(says)) text(this.#values[id], value);
  }
}

// remember has the address tell what is shown, so that it can be kept, and gone back to.
function remember(query) {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== defaults[key]) params.set(key, value);
  const address = params.size > 0 ? `#/?${params}` : "#/";
  history.replaceState(null, "", address);
}

function makeCloud() {
  const link = el("a", {});
  const cells = groups.map((g) => el("td", { class: "num", "data-group": g.id, "data-title": g.word }));
  const address = el("td", { class: "address" });
  const certificate = el("td", { "data-title": "certificate" });
  const row = el("tr", {}, el("th", { scope: "row" }, link), cells, address, certificate);
  row.parts = { link, cells, address, certificate };
  return row;
}

function fillCloud(row, c, now) {
  const { parts: part } = row;
  const n = count(c.devices);
  text(part.link, c.name);
  attribute(part.link, "href", `#/?cloud=${encodeURIComponent(c.name)}`);
  groups.forEach((g, i) => {
    text(part.cells[i], number(n[g.id]));
    attribute(part.cells[i], "data-none", n[g.id] === 0);
  });
  text(part.address, `${c.endpoint} (${c.provider})`);
  const left = c.certificate_expires_at && (Date.parse(c.certificate_expires_at) - now) / 1000;
  text(part.certificate, left ? (left > 0 ? `${span(left)} left` : "expired") : "–");
}
