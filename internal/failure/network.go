package failure

// What the network does.
const (
	DNSNotFound    Kind = "dns_not_found"
	DNSFailed      Kind = "dns_failed"
	DNSTimeout     Kind = "dns_timeout"
	Refused        Kind = "refused"
	Unreachable    Kind = "unreachable"
	Blocked        Kind = "blocked"
	Timeout        Kind = "timeout"
	NoAnswer       Kind = "no_answer"
	HungUp         Kind = "hung_up"
	ConnectionLost Kind = "connection_lost"
	ClosedByCloud  Kind = "closed_by_cloud"
	KeepaliveLost  Kind = "keepalive_lost"
	Stalled        Kind = "stalled"
	SlowReader     Kind = "slow_reader"
)

var networkTable = map[Kind]Info{
	DNSNotFound: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud's name does not exist",
		Causes: []string{"a typing error in url", "a DNS server that knows the plant's own names only"},
		Remedy: "check the host in the cloud's url, and that the gateway's DNS server resolves names of the Internet; " +
			"where only the proxy may resolve names, set proxy",
	},
	DNSFailed: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the DNS server cannot resolve the cloud's name",
		Causes: []string{"the DNS server is not running or has no uplink", "the gateway has no network yet"},
		Remedy: "check the name servers in /etc/resolv.conf; where only the proxy may resolve names, set proxy",
	},
	DNSTimeout: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "no DNS server answers",
		Causes: []string{"no uplink", "a firewall that drops DNS queries", "wrong name servers"},
		Remedy: "check the uplink and the name servers in /etc/resolv.conf; " +
			"where only the proxy may resolve names, set proxy",
	},
	Refused: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud's address refuses connections",
		Causes: []string{"a wrong port in url", "the server is not running", "a firewall that rejects"},
		Remedy: "check host and port of the cloud's url; if only a proxy may connect to the Internet, set proxy",
	},
	Unreachable: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "there is no way to the cloud's address",
		Causes: []string{"no uplink", "no default route", "a router that rejects"},
		Remedy: "check the gateway's uplink and routes (ip route)",
	},
	Blocked: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "this machine does not let bridged connect",
		Causes: []string{"a firewall rule on the gateway", "no free files or ports", "the service unit's restrictions"},
		Remedy: "check the gateway's own firewall rules, the limits of the service (LimitNOFILE) and its IPAddressDeny",
	},
	Timeout: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud's address does not answer",
		Causes: []string{"a firewall that drops", "no uplink", "a wrong host or port in url"},
		Remedy: "have the firewall let the port of the cloud's url out; " +
			"if only a proxy may connect to the Internet, set proxy",
	},
	NoAnswer: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says: "the connection was made, and then no answer came in time",
		Causes: []string{
			"a link that loses packets", "an overloaded server", "something else than the cloud at this address",
		},
		Remedy: "check the quality of the uplink, its MTU, and host and port of the cloud's url",
	},
	HungUp: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says: "the other side closed the connection during the handshake",
		Causes: []string{
			"ws:// where wss:// is right, or the reverse", "a firewall that inspects traffic", "an overloaded server",
			"a client certificate that is missing or not accepted",
		},
		Remedy: "check ws:// or wss:// and the port of the cloud's url, and cert_file if it asks for a client certificate",
	},
	ConnectionLost: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the connection to the cloud was lost",
		Causes: []string{"an uplink that failed", "a firewall that forgot the connection", "a server that restarted"},
		Remedy: "nothing if it is rare; otherwise check the uplink, " +
			"and lower the cloud's keepalive below the firewall's timeout",
	},
	ClosedByCloud: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says: "the cloud closed the connection",
		Causes: []string{
			"the cloud's maintenance", "another client with the same client id",
			"a publish or subscribe that the cloud does not allow",
		},
		Remedy: "nothing if it is rare; otherwise look into the cloud's own log of the device",
	},
	KeepaliveLost: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud does not answer any more",
		Causes: []string{"an uplink that silently lost its way", "a firewall that forgot the connection"},
		Remedy: "check the uplink; a lower keepalive of the cloud keeps firewalls from forgetting the connection",
	},
	Stalled: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud takes messages and does not acknowledge them",
		Causes: []string{"a cloud in trouble", "messages that the cloud drops without a word, by rate or by rule"},
		Remedy: "look into the cloud's own log of the device; if the device publishes faster than the cloud takes, " +
			"set the cloud's limits.uplink_per_second",
	},
	SlowReader: {
		Class: ClassNetwork, Delay: DelayBackoff,
		Says:   "the cloud stopped reading what is sent to it",
		Causes: []string{"a link that eats packets", "an overloaded server"},
		Remedy: "check the quality of the uplink",
	},
}
