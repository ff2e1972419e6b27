package failure

// What is wrong on the gateway, and the rest.
const (
	ClockWrong    Kind = "clock_wrong"
	NoCredentials Kind = "no_credentials"
	Settings      Kind = "settings"
	Cancelled     Kind = "cancelled"
	Other         Kind = "other"
)

var gatewayTable = map[Kind]Info{
	ClockWrong: {
		Class: ClassClock, Delay: DelayBackoff,
		Says:   "the gateway's clock is plainly wrong",
		Causes: []string{"no battery for the clock, and no NTP yet"},
		Remedy: "set the time (timedatectl), and let NTP out through the firewall",
	},
	NoCredentials: {
		Class: ClassConfig, Delay: DelaySlow, Alarm: true,
		Says:   "no credentials can be made for this device",
		Causes: []string{"a secret that is missing or malformed", "a key that cannot sign"},
		Remedy: "check device_secret, or cert_file and key_file; bridged check says more",
	},
	Settings: {
		Class: ClassConfig, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud's settings cannot be used",
		Causes: []string{"a setting, or a file that it names, which is not what it was when bridged started"},
		Remedy: "run bridged check",
	},
	Cancelled: {
		Class: ClassNetwork, Delay: DelayNone,
		Says:   "the attempt was given up",
		Causes: []string{"the device left", "bridged stops or reloads"},
		Remedy: "nothing",
	},
	Other: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud cannot be reached",
		Causes: []string{"something that bridged does not know"},
		Remedy: "the log says more",
	},
}
