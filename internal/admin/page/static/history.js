// What was, as far as this page has seen it: the API tells what is.

const keep = 600; // samples, about one a second
const gap = 5_000; // ms; a longer time without samples is shown as one

export class History {
  samples = []; // { at, up, down, upOut, downOut, upQueue, downQueue }

  add(at, up, down) {
    const last = this.samples.at(-1);
    if (last && at - last.at < 500) return;
    this.samples.push({
      at,
      upIn: up.accepted_messages_per_second,
      upOut: up.delivered_messages_per_second,
      downIn: down.accepted_messages_per_second,
      downOut: down.delivered_messages_per_second,
      upQueue: up.queued_messages,
      downQueue: down.queued_messages,
    });
    if (this.samples.length > keep) this.samples.shift();
  }

  // runs are the samples without gaps between them.
  runs() {
    const runs = [];
    let before = -Infinity;
    for (const s of this.samples) {
      if (s.at - before > gap) runs.push([]);
      runs.at(-1).push(s);
      before = s.at;
    }
    return runs;
  }
}

// Histories keeps those of the devices that were looked at last.
export class Histories {
  #most = 20;
  #all = new Map();

  of(name) {
    const history = this.#all.get(name) ?? new History();
    this.#all.delete(name);
    this.#all.set(name, history);
    if (this.#all.size > this.#most) this.#all.delete(this.#all.keys().next().value);
    return history;
  }
}
