// What is wrong with the bridge as a whole, as banners: what it is, and what to do.

import { attribute, el, rows, show, text } from "./dom.js";
import { bytes, moment, percent, plural, span } from "./format.js";

const expiresSoon = 14 * 86400; // seconds
const nearlyFull = 90; // percent
const levels = {
  bad: { sign: "✖", word: "Needs action" },
  warn: { sign: "▲", word: "Warning" },
  note: { sign: "●", word: "Note" },
};

// find lists { level, what, remedy, causes, href, link }.
export function find(status, now) {
  const all = [];
  const add = (level, what, remedy, more) => all.push({ level, what, remedy, ...more });
  const { spool, memory, local, clock } = status;
  if (spool.fault) {
    add("bad", `messages cannot be stored on disk since ${moment(Date.parse(spool.fault.since), now)}: ${spool.fault.error}`,
      spool.fault.remedy);
  }
  for (const reason of status.not_ready) {
    if (!spool.fault || !reason.includes(spool.fault.error)) add("bad", `not ready: ${reason}`, "");
  }
  for (const p of status.problems) {
    const whose = p.devices === 1 ? `${p.device} (${p.cloud})` : `${plural(p.devices, "device")} of ${p.cloud}`;
    add(p.alarm ? "bad" : "warn", `${whose} offline: ${p.says}`, p.remedy, {
      causes: p.causes,
      href: p.devices === 1 ? deviceAddress(p.device) : `#/?cloud=${encodeURIComponent(p.cloud)}&kind=${encodeURIComponent(p.kind)}`,
      link: p.devices === 1 ? `Show ${p.device}` : `Show the ${plural(p.devices, "device")}`,
    });
  }
  if (clock.state !== "fine") add(clock.state === "wrong" ? "bad" : "warn", `clock: ${clock.reason}`, clock.remedy);
  const full = percent(spool.bytes, spool.limit_bytes);
  if (full >= nearlyFull) {
    add("warn", `the spool is ${full} % full: ${bytes(spool.bytes)} of ${bytes(spool.limit_bytes)}`,
      "mend what keeps devices offline, so that it drains, or raise limits.disk");
  }
  const used = percent(memory.used_bytes, memory.limit_bytes);
  if (used >= nearlyFull) {
    add("warn", `queues use ${used} % of the memory they may: ${bytes(memory.used_bytes)} of ${bytes(memory.limit_bytes)}`,
      "mend what keeps devices offline, or raise limits.memory");
  }
  if (local.open_connections >= local.limit_connections) {
    add("bad", `all ${plural(local.limit_connections, "connection")} are taken: devices are turned away`,
      "raise limits.max_connections, or find out which devices connect more than once");
  }
  for (const c of status.clouds) {
    if (!c.certificate_expires_at) continue;
    const left = (Date.parse(c.certificate_expires_at) - now) / 1000;
    if (left < expiresSoon) {
      add("warn", left > 0 ? `the certificate of ${c.name} expires in ${span(left)}` : `the certificate of ${c.name} has expired`,
        `have whoever runs ${c.endpoint} renew it; without a valid one no device can connect`);
    }
  }
  if (status.leftovers.length > 0) {
    const names = status.leftovers.slice(0, 5).map((l) => l.device).join(", ");
    const n = status.leftovers.reduce((sum, l) => sum + l.up_messages + l.down_messages, 0);
    add("note", `${plural(n, "message")} are kept of devices that are not configured: ${names}${status.leftovers.length > 5 ? ", …" : ""}`,
      "configure a device again, and what is kept of it is delivered");
  }
  return all;
}

export const deviceAddress = (name) => `#/devices/${encodeURIComponent(name)}`;

function banner() {
  const part = {
    sign: el("span", { class: "sign", "aria-hidden": "true" }),
    word: el("strong", { class: "level" }),
    what: el("span", { class: "what" }),
    remedy: el("span", {}),
    causes: el("ul", {}),
    link: el("a", {}),
  };
  part.advice = el("p", { class: "remedy" }, el("strong", {}, "What to do: "), part.remedy);
  part.details = el("details", {}, el("summary", {}, "Usual causes"), part.causes);
  const node = el("li", { class: "banner" }, el("p", {}, part.sign, part.word, part.what), part.advice,
    el("div", { class: "more" }, part.link, part.details));
  node.parts = part;
  return node;
}

function fill(node, p) {
  const { parts: part } = node;
  attribute(node, "class", `banner ${p.level}`);
  text(part.sign, levels[p.level].sign);
  text(part.word, `${levels[p.level].word}:`);
  text(part.what, p.what);
  text(part.remedy, p.remedy ?? "");
  show(part.advice, Boolean(p.remedy));
  show(part.link, Boolean(p.href));
  attribute(part.link, "href", p.href);
  text(part.link, p.link ?? "");
  show(part.details, Boolean(p.causes?.length));
  rows(part.causes, p.causes ?? [], () => el("li", {}), text);
}

const atFirst = 4; // banners that are not folded away

export class Problems {
  #list = el("ul", { class: "banners" });
  #rest = el("ul", { class: "banners" });
  #summary = el("summary", {});
  #details = el("details", { class: "rest" }, this.#summary, this.#rest);
  node = el("section", { "aria-label": "Problems" }, this.#list, this.#details);

  update(all) {
    show(this.node, all.length > 0);
    rows(this.#list, all.slice(0, atFirst), banner, fill);
    rows(this.#rest, all.slice(atFirst), banner, fill);
    show(this.#details, all.length > atFirst);
    text(this.#summary, `${plural(all.length - atFirst, "more problem")}`);
  }
}
