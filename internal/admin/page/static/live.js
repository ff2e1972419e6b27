// What is known of the bridge, kept up to date by server-sent events.

const silentFor = 10_000; // ms without an event after which the connection counts as lost; there is one each second
const longest = 8_000; // ms between attempts to connect
const atOnce = 2_000; // devices in one answer

export class Live {
  // What happens: "starting", "live", "lost", "login" when a token is needed.
  state = "starting";
  status = null;
  devices = new Map(); // by name
  loaded = false; // all devices are there
  version = 0; // rises when devices change
  lostAt = 0;

  #stream = null;
  #skew = 0; // the gateway's clock less this one's
  #heard = 0;
  #wait = 500;
  #timer = 0;
  #early = null; // changes that came while the list was on its way
  #changed;

  // changed(what) is called after each change: "connection", "status", "devices".
  constructor(changed) {
    this.#changed = changed;
    setInterval(() => {
      if (this.#stream && performance.now() - this.#heard > silentFor) this.#lose();
    }, 1000);
  }

  // now is the gateway's time in ms; when the connection is lost, that of the moment of which something is known.
  now() {
    return (this.state === "lost" ? this.lostAt : Date.now()) + this.#skew;
  }

  async connect() {
    clearTimeout(this.#timer);
    let answer;
    try {
      answer = await fetch("/api/v1/status", { signal: AbortSignal.timeout(silentFor) });
      if (answer.status === 401) return this.#become("login");
      if (!answer.ok) throw new Error(answer.statusText);
      this.#know(await answer.json());
    } catch {
      return this.#lose();
    }
    this.#listen();
  }

  // login gives the token, and says whether it is the right one. The bridge answers with a cookie.
  async login(token) {
    const answer = await fetch(`/api/v1/status?token=${encodeURIComponent(token)}`);
    if (!answer.ok) return false;
    this.state = "starting";
    await this.connect();
    return true;
  }

  // device fetches one in full; null if there is none.
  async device(name) {
    const answer = await fetch(`/api/v1/devices/${encodeURIComponent(name)}`);
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.json();
  }

  #listen() {
    const stream = new EventSource("/api/v1/events");
    this.#stream = stream;
    this.#heard = performance.now();
    let first = true;
    const mine = (f) => (event) => {
      if (this.#stream !== stream) return;
      this.#heard = performance.now();
      f(event);
    };
    stream.addEventListener("status", mine((event) => {
      this.#know(JSON.parse(event.data));
      if (!first) return;
      first = false;
      this.#wait = 500;
      this.#become("live");
      this.#load(stream);
    }));
    stream.addEventListener("devices", mine((event) => {
      const change = JSON.parse(event.data);
      if (this.#early) this.#early.push(change);
      else if (this.loaded) this.#apply(change);
    }));
    stream.addEventListener("error", () => {
      if (this.#stream === stream) this.#lose();
    });
  }

  // load fetches the list of all devices. Changes since the first event are kept meanwhile, and come on top of it.
  async #load(stream) {
    this.#early = [];
    const all = new Map();
    try {
      for (let total = 1, offset = 0; offset < total; offset += atOnce) {
        const answer = await fetch(`/api/v1/devices?limit=${atOnce}&offset=${offset}`);
        if (!answer.ok) throw new Error(answer.statusText);
        const list = await answer.json();
        total = list.total;
        for (const d of list.devices) all.set(d.name, this.#prepare(d));
      }
    } catch {
      if (this.#stream === stream) this.#lose();
      return;
    }
    if (this.#stream !== stream) return;
    this.devices = all;
    const early = this.#early;
    this.#early = null;
    this.loaded = true;
    for (const change of early) this.#apply(change);
    this.version++;
    this.#changed("devices");
  }

  #apply(change) {
    for (const d of change.changed) this.devices.set(d.name, this.#prepare(d));
    for (const name of change.removed) this.devices.delete(name);
    this.version++;
    this.#changed("devices");
  }

  // prepare adds to a device what is searched in, and when it was as told.
  #prepare(d) {
    d.text = [d.name, d.cloud, d.state, d.reason, d.failure?.kind, d.failure?.reason].join("\n").toLowerCase();
    d.told = this.now();
    return d;
  }

  #know(status) {
    if (this.status && (this.status.version !== status.version || this.status.revision !== status.revision)) {
      location.reload(); // another bridged, which may have another page
    }
    this.status = status;
    this.#skew = Date.parse(status.at) - Date.now();
    this.#changed("status");
  }

  #lose() {
    this.#stream?.close();
    this.#stream = null;
    this.#early = null;
    if (this.state !== "lost") this.lostAt = Date.now();
    this.#become("lost");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.connect(), this.#wait);
    this.#wait = Math.min(longest, this.#wait * 2);
  }

  #become(state) {
    this.state = state;
    this.#changed("connection");
  }
}
