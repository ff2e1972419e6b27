package failure

// What the cloud answers to the WebSocket handshake.
const (
	HTTP401      Kind = "http_401"
	HTTP403      Kind = "http_403"
	HTTP404      Kind = "http_404"
	HTTP429      Kind = "http_429"
	HTTP503      Kind = "http_503"
	HTTP5xx      Kind = "http_5xx"
	HTTPRedirect Kind = "http_redirect"
	HTTPOther    Kind = "http_other"
	NotWebSocket Kind = "not_websocket"
	Subprotocol  Kind = "subprotocol"
)

var upgradeTable = map[Kind]Info{
	HTTP401: {
		Class: ClassRejected, Delay: DelaySlow, Alarm: true,
		Says:   "the server asks for a login before MQTT",
		Causes: []string{"a reverse proxy in front of the broker that asks for credentials of its own"},
		Remedy: "give what it asks for in the cloud's headers, for example Authorization",
	},
	HTTP403: {
		Class: ClassRejected, Delay: DelaySlow, Alarm: true,
		Says:   "the server does not let this gateway in",
		Causes: []string{"an address that is not on the server's list", "a web application firewall", "a wrong path in url"},
		Remedy: "have the gateway's public address allowed; check host and path of the cloud's url",
	},
	HTTP404: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the server knows no such path",
		Causes: []string{"a wrong path in url"},
		Remedy: "check the path of the cloud's url: / and /mqtt are in use",
	},
	HTTP429: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the cloud says that there were too many requests",
		Causes: []string{"too many connects at once, of this gateway or of others behind the same address"},
		Remedy: "nothing if it passes; otherwise lower the cloud's limits.connects",
	},
	HTTP503: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the cloud is not available now",
		Causes: []string{"the cloud's maintenance or overload"},
		Remedy: "nothing if it passes; otherwise look at the cloud's status page",
	},
	HTTP5xx: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the server is in trouble",
		Causes: []string{"a reverse proxy whose broker is not running", "a fault of the server"},
		Remedy: "nothing if it passes; otherwise look into the server's log",
	},
	HTTPRedirect: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the server sends bridged to another address",
		Causes: []string{"a captive portal", "a server that wants wss://", "a wrong path in url"},
		Remedy: "log in to the network if it has a portal; otherwise write the address it names as the cloud's url",
	},
	HTTPOther: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the server does not accept the WebSocket handshake",
		Causes: []string{"a web server that is not the cloud's MQTT over WebSocket", "ws:// to a port for wss://"},
		Remedy: "check scheme, host, port and path of the cloud's url",
	},
	NotWebSocket: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "what is at the cloud's address does not speak WebSocket",
		Causes: []string{"a captive portal or another web server", "plain MQTT at this port", "ws:// to a port for wss://"},
		Remedy: "check scheme, host, port and path of the cloud's url",
	},
	Subprotocol: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the server speaks something else than MQTT over WebSocket",
		Causes: []string{"another service at this path"},
		Remedy: "check the path of the cloud's url",
	},
}
