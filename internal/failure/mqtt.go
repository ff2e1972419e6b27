package failure

// What the cloud says in MQTT.
const (
	ConnackVersion       Kind = "connack_1"
	ConnackIdentifier    Kind = "connack_2"
	ConnackUnavailable   Kind = "connack_3"
	ConnackPassword      Kind = "connack_4"
	ConnackNotAuthorized Kind = "connack_5"
	ConnackUnknown       Kind = "connack_unknown"
	NoConnack            Kind = "no_connack"
	CloudBusy            Kind = "cloud_busy"
	SubackRefused        Kind = "suback_refused"
	TakenOver            Kind = "taken_over"
	KickWar              Kind = "kick_war"
	ProtocolError        Kind = "protocol_error"
	MessageRefused       Kind = "message_refused"
)

var mqttTable = map[Kind]Info{
	ConnackVersion: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud does not accept MQTT 3.1.1 (CONNACK 1)",
		Causes: []string{"a broker that speaks MQTT 5 only"},
		Remedy: "turn MQTT 3.1.1 on at the broker",
	},
	ConnackIdentifier: {
		Class: ClassRejected, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud does not accept the client id or its parameters (CONNACK 2)",
		Causes: []string{"a wrong product or device name", "a client id that is too long or has characters of its own"},
		Remedy: "check device_name, product_key or product_id, and client_id; bridged sign DEVICE prints what is sent",
	},
	ConnackUnavailable: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the cloud is not available now (CONNACK 3)",
		Causes: []string{"the cloud's maintenance or overload", "another client that connects with this device's identity"},
		Remedy: "nothing if it passes; otherwise look at the cloud's status page, " +
			"and for another client that uses this device's identity",
	},
	ConnackPassword: {
		Class: ClassRejected, Delay: DelaySlow, Alarm: true,
		Says: "the cloud does not accept user name or password (CONNACK 4)",
		Causes: []string{
			"a wrong device secret or password", "a gateway whose clock is wrong, if the login is signed with the time",
		},
		Remedy: "check device_secret, or username and password, with the cloud's console; check the clock (timedatectl)",
	},
	ConnackNotAuthorized: {
		Class: ClassRejected, Delay: DelaySlow, Alarm: true,
		Says: "the cloud does not authorise this device (CONNACK 5)",
		Causes: []string{
			"a device that the cloud does not know under this name, or that is disabled", "a wrong secret or password",
			"a gateway whose clock is wrong, if the login is signed with the time",
		},
		Remedy: "check in the cloud's console that the device exists under device_name and is enabled, and its secret",
	},
	ConnackUnknown: {
		Class: ClassProtocol, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud refused the login with a code that MQTT 3.1.1 does not have",
		Causes: []string{"a broker that speaks MQTT 5 only"},
		Remedy: "turn MQTT 3.1.1 on at the broker",
	},
	NoConnack: {
		Class: ClassProtocol, Delay: DelaySlow,
		Says:   "the cloud did not answer CONNECT with CONNACK",
		Causes: []string{"another service than MQTT at this path"},
		Remedy: "check the path of the cloud's url",
	},
	CloudBusy: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the cloud closed the connection and asks to come back later",
		Causes: []string{"the cloud's maintenance or overload"},
		Remedy: "nothing if it passes; otherwise look at the cloud's status page",
	},
	SubackRefused: {
		Class: ClassRejected, Delay: DelayNone,
		Says:   "the cloud refuses a subscription",
		Causes: []string{"a topic that the device may not subscribe to", "more subscriptions than the cloud allows"},
		Remedy: "allow the topic in the cloud's console, or correct subscribe, topics, or the device's own filter",
	},
	TakenOver: {
		Class: ClassTakenOver, Delay: DelaySlow,
		Says:   "another client connected with this device's identity",
		Causes: []string{"the same device behind a second gateway", "a test client with this device's credentials"},
		Remedy: "let only one client use the device's identity",
	},
	KickWar: {
		Class: ClassTakenOver, Delay: DelaySlow, Alarm: true,
		Says: "another client keeps connecting with this device's identity, and each ends the other's session",
		Causes: []string{
			"the same device behind a second gateway", "a cloned configuration", "a device that also connects itself",
		},
		Remedy: "find the other client (the cloud's console shows its address) and end it, or give it an identity of its own",
	},
	ProtocolError: {
		Class: ClassProtocol, Delay: DelaySlow,
		Says:   "the cloud sent what MQTT 3.1.1 does not allow",
		Causes: []string{"a fault of the cloud", "something in between that changes the data"},
		Remedy: "report it to the cloud's vendor, with the log at level debug",
	},
	MessageRefused: {
		Class: ClassMessage, Delay: DelayBackoff,
		Says: "the cloud closes the connection each time when it is sent a certain message",
		Causes: []string{
			"a topic to which the device may not publish", "a message beyond a limit of the cloud", "the cloud's quota",
		},
		Remedy: "check what the cloud lets this device publish, the device's quota, and the cloud's limits; " +
			"see limits of the cloud in the configuration",
	},
}
