// The page: which view is shown, and what all of them have in common.

import { attribute, show, text } from "./dom.js";
import { plural, span, timeOfDay } from "./format.js";
import { Device } from "./device.js";
import { Fleet } from "./fleet.js";
import { Histories, History } from "./history.js";
import { Live } from "./live.js";
import { Login } from "./login.js";

const quiet = 3_000; // ms between two things that are read out

const main = document.getElementById("main");
const place = (id) => document.getElementById(id);
const live = new Live(changed);
const past = new History();
const pasts = new Histories();
const fleet = new Fleet(live, past);
const login = new Login(live);
let view = null;

function changed(what) {
  if (what === "status") {
    past.add(Date.parse(live.status.at), live.status.up, live.status.down);
    if (view instanceof Device) view.refresh();
  }
  if (what === "devices") fleet.stale();
  if (what === "connection") route(false);
  render();
}

// route shows the view that the address names. moved says that somebody went there, whose focus goes along.
function route(moved) {
  const before = view;
  if (live.state === "login") view = login;
  else view = named();
  if (view === before) return;
  main.replaceChildren(view.node);
  if (!moved && !(view instanceof Login)) return;
  scrollTo(0, 0);
  view.focus();
}

function named() {
  const [path, params] = location.hash.slice(1).split("?", 2);
  if (path.startsWith("/devices/")) {
    const name = decode(path.slice("/devices/".length));
    if (view instanceof Device && view.name === name) return view;
    const device = new Device(live, name, pasts.of(name));
    if (live.state === "live") device.refresh();
    return device;
  }
  fleet.open(new URLSearchParams(params));
  return fleet;
}

function decode(s) {
  try {
    return decodeURIComponent(s);
  } catch {
    return s;
  }
}

let due = false;

// render brings the page up to date once, however much has changed.
function render() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    view?.update();
    frame();
  });
}

// frame is what is around the view.
function frame() {
  const { status, state } = live;
  const words = { starting: "Connecting…", live: "● Live", lost: "▲ Connection lost", login: "Token needed" };
  text(place("connection"), words[state]);
  attribute(place("connection"), "data-state", state);
  attribute(document.body, "data-stale", state === "lost" && status !== null);
  show(place("lost"), state === "lost");
  if (state === "lost") {
    text(place("lost"), `Connection to bridged lost at ${timeOfDay(live.lostAt)}. ` +
      (status ? "What you see is how it was then. " : "") + "Trying again…");
  }
  text(place("place"), location.hostname);
  const wrong = status?.devices.failing ?? 0;
  const what = view instanceof Device ? `${view.name} · bridged` : wrong > 0 ? `${wrong} offline · bridged` : "bridged";
  document.title = state === "lost" ? `Lost · ${what}` : what;
  if (status) {
    text(place("version"), `bridged ${status.version}${status.revision ? ` (${status.revision.slice(0, 12)})` : ""}, ` +
      `up ${span((live.now() - Date.parse(status.started_at)) / 1000)}`);
    announce(state === "lost" ? "Connection to bridged lost." : Fleet.says(status, live.now()));
  }
}

let said = "";
let saidAt = -Infinity;

// announce has a screen reader say what has changed, and not too often.
function announce(sentence) {
  if (sentence === said || performance.now() - saidAt < quiet) return;
  said = sentence;
  saidAt = performance.now();
  text(place("announcer"), sentence);
}

place("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is the view's
  main.focus();
});
addEventListener("hashchange", () => {
  const before = view;
  route(true);
  if (view === before && view === fleet) named();
  render();
});
setInterval(render, 1000);
route(false);
render();
live.connect();
