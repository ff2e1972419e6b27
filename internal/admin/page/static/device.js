// A device's view: how it is, why, and what to do.

import { attribute, badge, card, el, facts, rows, show, text } from "./dom.js";
import { bytes, capital, moment, number, plural, rate, span } from "./format.js";
import { charts } from "./chart.js";
import { groupOf, label } from "./groups.js";

const verdicts = {
  granted: (s) => `● granted, QoS ${s.granted_qos}`,
  refused: () => "✖ refused",
  pending: () => "◌ not asked yet",
  leaving: () => "○ being given up",
};

const onFull = {
  block: "then the device waits",
  drop_oldest: "then the oldest are dropped",
  drop_newest: "then new ones are dropped",
};

// ledger's rows, each by a direction's ledger.
const ledger = [
  ["Accepted", (l) => number(l.accepted_messages_total)],
  ["Delivered", (l) => number(l.delivered_messages_total)],
  ["Queued", (l) => (l.queued_messages > 0 ? `${number(l.queued_messages)} (${bytes(l.queued_bytes)})` : "0")],
  ["Dropped", (l) => number(l.dropped_messages_total)],
  ["Dropped, why", (l) => reasons(l)],
  ["Sent, not acknowledged yet", (l) => number(l.in_flight_messages)],
  ["On disk", (l) => (l.stored_messages > 0 ? `${number(l.stored_messages)} (${bytes(l.stored_bytes)})` : "0")],
  ["Oldest waits for", (l) => (l.oldest_age_seconds > 0 ? span(l.oldest_age_seconds) : "–")],
];

function reasons(l) {
  const all = Object.entries(l.dropped_messages_total_by_reason);
  return all.length > 0 ? all.map(([reason, n]) => `${number(n)} ${reason.replaceAll("_", " ")}`).join(", ") : "–";
}

export class Device {
  #live;
  #name;
  #history;
  #device = null;
  #gone = false;
  #asking = false;
  #part = {};

  constructor(live, name, history) {
    this.#live = live;
    this.#name = name;
    this.#history = history;
    const p = this.#part;
    const value = (id) => (p[id] = el("span", {}));
    p.title = el("h1", { tabindex: "-1" }, name);
    p.badge = badge();
    p.headline = el("p", { class: "headline" });
    p.causes = el("ul", {});
    p.advice = el("div", { class: "banner", role: "group", "aria-label": "What to do" },
      el("p", { class: "remedy" }, el("strong", {}, "What to do: "), value("remedy")),
      (p.why = el("div", {}, el("p", {}, "Usual causes, the likeliest first:"), p.causes)),
      el("p", { class: "next" }, value("next")));
    p.charts = charts(number, rate);
    p.ledger = el("tbody", {});
    p.subscriptions = el("tbody", {});
    p.noSubscriptions = el("p", { class: "empty" }, "None.");
    p.timeline = el("ol", { class: "timeline" });
    p.failureCauses = el("ul", {});
    p.failure = card("Last failure", facts(
      ["When", value("failedAt")], ["Stage", value("stage")], ["What", value("failed")], ["In full", value("error")],
      ["Usual causes", p.failureCauses], ["What to do", value("failureRemedy")]));
    p.subscriptionsTable = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Subscriptions, the whole table" },
      el("table", { class: "subscriptions" }, el("thead", {}, el("tr", {},
        ["Filter at the cloud", "Cloud's verdict", "Asked for", "Device's own"].map((h) => el("th", { scope: "col" }, h)))),
      p.subscriptions));
    const ledgerCard = card("Ledger", el("table", { class: "ledger" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Messages"),
        el("th", { scope: "col", class: "num" }, "Up, to the cloud"), el("th", { scope: "col", class: "num" }, "Down, to the device"))),
      p.ledger), el("p", { class: "note" }, value("balance")));
    const session = card("Device and session", facts(
      ["Cloud", value("cloud")], ["On the LAN", value("local")], ["Session", value("session")],
      ["Queue, each way", value("queue")], ["Changed on the way", value("changed")],
      ["Cloud's certificate", value("cloudCertificate")], ["Own certificate", value("clientCertificate")]));
    const subscriptions = card("Subscriptions", p.subscriptionsTable, p.noSubscriptions, el("p", { class: "note" }, value("late")));
    p.body = el("div", { class: "columns" },
      el("div", {}, card("Time line", p.timeline), ledgerCard, subscriptions),
      el("div", {}, card("Messages", p.charts.node), session, p.failure));
    this.node = el("div", { class: "view device" },
      el("nav", { "aria-label": "Back" }, el("a", { href: "#/" }, "← All devices")),
      el("div", { class: "titles" }, p.title, p.badge), p.headline, p.advice, p.body);
    show(p.advice, false);
    show(p.body, false);
    show(p.badge, false);
    text(p.headline, "Loading…");
  }

  get name() {
    return this.#name;
  }

  focus() {
    this.#part.title.focus();
  }

  // refresh asks how the device is.
  async refresh() {
    if (this.#asking || (this.#gone && !this.#live.devices.has(this.#name))) return;
    this.#asking = true;
    try {
      const device = await this.#live.device(this.#name);
      this.#gone = device === null;
      if (device) {
        this.#device = device;
        this.#history.add(Date.parse(device.at), device.up, device.down);
      }
    } catch {
      return; // the connection is lost, which is shown already
    } finally {
      this.#asking = false;
    }
    this.update();
  }

  update() {
    const d = this.#device;
    const p = this.#part;
    show(p.body, Boolean(d) && !this.#gone);
    show(p.badge, Boolean(d) && !this.#gone);
    if (this.#gone) {
      show(p.advice, false);
      text(p.headline, `There is no device “${this.#name}”. It may have been removed from the configuration.`);
      return;
    }
    if (!d) return;
    const now = this.#live.now();
    p.badge.set(groupOf(d), label(d));
    text(p.headline, headline(d, now));
    this.#advise(d, now);
    p.charts.update(this.#history, now);
    this.#ledger(d);
    this.#facts(d, now);
    this.#subscriptions(d);
    this.#failure(d.last_failure, now);
    rows(p.timeline, d.timeline.toReversed(), makeChange, (node, change, i) => {
      fillChange(node, change, i === 0 ? (now - Date.parse(change.at)) / 1000 : change.duration_seconds, now, i === 0);
    });
  }

  #advise(d, now) {
    const p = this.#part;
    show(p.advice, Boolean(d.failure));
    if (!d.failure) return;
    attribute(p.advice, "class", `banner ${d.failure.alarm ? "bad" : "warn"}`);
    text(p.remedy, d.failure.remedy);
    const causes = d.last_failure?.kind === d.failure.kind ? d.last_failure.causes : [];
    rows(p.causes, causes, () => el("li", {}), text);
    show(p.why, causes.length > 0);
    const left = d.next_attempt_at ? (Date.parse(d.next_attempt_at) - now) / 1000 : NaN;
    const tried = d.failures_in_a_row > 1 ? ` ${plural(d.failures_in_a_row, "attempt")} have failed in a row.` : "";
    text(p.next, (Number.isNaN(left) ? "It is tried again now." : left > 1 ? `The next attempt is in ${span(left)}.` : "The next attempt is due.") + tried);
  }

  #ledger(d) {
    const make = () => el("tr", {}, el("th", { scope: "row" }), el("td", { class: "num" }), el("td", { class: "num" }));
    rows(this.#part.ledger, ledger, make, (row, [title, says]) => {
      text(row.children[0], title);
      text(row.children[1], says(d.up_ledger));
      text(row.children[2], says(d.down_ledger));
    });
    const balanced = [d.up_ledger, d.down_ledger].every((l) =>
      l.accepted_messages_total === l.delivered_messages_total + l.queued_messages + l.dropped_messages_total);
    text(this.#part.balance, balanced ? "Accepted = delivered + queued + dropped: it balances."
      : "Accepted is not delivered + queued + dropped. This must not be; please report it.");
  }

  #facts(d, now) {
    const p = this.#part;
    const cloud = this.#live.status?.clouds.find((c) => c.name === d.cloud);
    text(p.cloud, cloud ? `${d.cloud}, ${cloud.endpoint} (${cloud.provider})` : d.cloud);
    const since = d.local.since ? ` for ${span((now - Date.parse(d.local.since)) / 1000)}` : "";
    text(p.local, d.local.connected
      ? `connected${since} from ${d.local.remote_address ?? "?"}, MQTT ${d.local.protocol ?? "?"}` : `not connected${since}`);
    text(p.session, `${d.state} for ${span((now - Date.parse(d.since)) / 1000)}, ${plural(d.connects_total, "session")} so far` +
      (d.guest ? "; the device signs for its cloud itself" : ""));
    const age = d.queue.limit_age_seconds > 0 ? `, ${span(d.queue.limit_age_seconds)}` : "";
    text(p.queue, `at most ${plural(d.queue.limit_messages, "message")}, ${bytes(d.queue.limit_bytes)}${age}; ${onFull[d.queue.on_full]}`);
    const changes = [
      [d.lowered_messages_total, "sent at a lower QoS"],
      [d.stripped_messages_total, "without the retain flag"],
      [d.properties_stripped_messages_total, "without MQTT 5 properties"],
    ].filter(([n]) => n > 0).map(([n, what]) => `${number(n)} ${what}`);
    text(p.changed, changes.join(", ") || "nothing");
    text(p.cloudCertificate, expiry(d.certificates.cloud_expires_at, now));
    text(p.clientCertificate, expiry(d.certificates.client_expires_at, now));
  }

  #subscriptions(d) {
    const p = this.#part;
    const make = () => el("tr", {}, el("th", { scope: "row" }), el("td", {}), el("td", { "data-title": "Asked for" }),
      el("td", { "data-title": "Device's own" }));
    show(p.subscriptionsTable, d.subscriptions.length > 0);
    show(p.noSubscriptions, d.subscriptions.length === 0);
    rows(p.subscriptions, d.subscriptions, make, (row, s) => {
      const own = s.device_filters.filter((f) => f !== s.filter);
      const whose = [...(own.length > 0 ? own : s.device_filters.length > 0 ? ["the same"] : [])];
      if (s.configured) whose.push("configuration");
      text(row.children[0], s.filter);
      text(row.children[1], verdicts[s.verdict](s));
      attribute(row.children[1], "class", `verdict ${s.verdict}`);
      text(row.children[2], `QoS ${s.qos}`);
      text(row.children[3], whose.join(", ") || "–");
    });
    const more = d.subscriptions_total - d.subscriptions.length;
    text(p.late, [
      more > 0 ? `${number(more)} more are not shown.` : "",
      d.late_refusals_total > 0
        ? `The cloud has refused ${plural(d.late_refusals_total, "subscription")} that the device believes to be granted.` : "",
    ].filter(Boolean).join(" "));
  }

  #failure(f, now) {
    const p = this.#part;
    show(p.failure, Boolean(f));
    if (!f) return;
    const at = Date.parse(f.at);
    text(p.failedAt, `${moment(at, now)}, ${span((now - at) / 1000)} ago`);
    text(p.stage, f.stage);
    text(p.failed, f.reason);
    text(p.error, f.error);
    show(p.error.closest("div"), f.error !== f.reason);
    text(p.failureRemedy, f.remedy);
    rows(p.failureCauses, f.causes, () => el("li", {}), text);
  }
}

// headline says how a device is, since when and why.
function headline(d, now) {
  const since = Date.parse(d.failure ? d.offline_since ?? d.since : d.since);
  const state = d.failure ? "Offline" : capital(d.state);
  const why = d.failure?.reason ?? d.reason;
  return `${state} for ${span((now - since) / 1000)}${why ? `: ${why}` : ""}`;
}

function expiry(at, now) {
  if (!at) return "none seen";
  const left = (Date.parse(at) - now) / 1000;
  return left > 0 ? `expires in ${span(left)}, ${moment(Date.parse(at), now)}` : `expired ${span(-left)} ago`;
}

function makeChange() {
  const part = {
    state: el("strong", {}), time: el("time", {}), span: el("span", { class: "span" }), times: el("span", { class: "times" }),
    reason: el("span", { class: "reason" }),
  };
  const node = el("li", {}, el("div", {}, part.state, part.span, part.times, part.time), part.reason);
  node.parts = part;
  return node;
}

function fillChange(node, change, seconds, now, current) {
  const { parts: part } = node;
  attribute(node, "data-state", change.state);
  attribute(node, "aria-current", current ? "true" : null);
  text(part.state, change.state);
  text(part.span, current ? `for ${span(seconds)} so far` : `for ${seconds < 1 ? "a moment" : span(seconds)}`);
  text(part.times, change.times > 1 ? `${number(change.times)} times` : "");
  text(part.time, moment(Date.parse(change.at), now));
  attribute(part.time, "datetime", change.at);
  text(part.reason, change.reason);
}
