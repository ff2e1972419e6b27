// What the states of devices come to for a person, the ones first that want attention.

export const groups = [
  { id: "action", word: "needs action", sign: "✖", help: "offline until somebody mends what is wrong" },
  { id: "offline", word: "offline", sign: "▲", help: "the last attempt or session failed; tried again" },
  { id: "connecting", word: "connecting", sign: "◌", help: "on the way to the cloud" },
  { id: "online", word: "online", sign: "●", help: "has a session with its cloud" },
  { id: "idle", word: "idle", sign: "○", help: "not connected here, nothing left to deliver" },
];

const byId = new Map(groups.map((g, i) => [g.id, { ...g, rank: i }]));

export const group = (id) => byId.get(id);

// groupOf is the group of a device, by its summary.
export function groupOf(device) {
  if (device.failure) return byId.get(device.failure.alarm ? "action" : "offline");
  switch (device.state) {
    case "online":
    case "draining":
      return byId.get("online");
    case "idle":
      return byId.get("idle");
  }
  return byId.get("connecting");
}

// label is the word on a device's badge.
export function label(device) {
  const g = groupOf(device);
  return g.id === "online" || g.id === "connecting" ? device.state : g.word;
}

// count gives how many of the API's counts are in each group.
export function count(devices) {
  const of = devices.by_state;
  const n = {
    action: devices.alarm,
    offline: devices.failing - devices.alarm,
    online: of.online + of.draining,
    idle: of.idle,
  };
  n.connecting = Math.max(0, devices.total - devices.failing - n.online - n.idle);
  return n;
}
