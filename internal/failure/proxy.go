package failure

// What the proxy does, or is.
const (
	ProxyConfig          Kind = "proxy_config"
	ProxyDNS             Kind = "proxy_dns"
	ProxyUnreachable     Kind = "proxy_unreachable"
	ProxyTLS             Kind = "proxy_tls"
	ProxyNoAnswer        Kind = "proxy_no_answer"
	ProxyAuthRequired    Kind = "proxy_auth_required"
	ProxyAuthRejected    Kind = "proxy_auth_rejected"
	ProxyAuthUnsupported Kind = "proxy_auth_unsupported"
	ProxyRefused         Kind = "proxy_refused"
	ProxyThrottled       Kind = "proxy_throttled"
	ProxyCloudUnknown    Kind = "proxy_cloud_unreachable"
	ProxyProtocol        Kind = "proxy_protocol"
)

var proxyTable = map[Kind]Info{
	ProxyConfig: {
		Class: ClassConfig, Delay: DelaySlow, Alarm: true,
		Says:   "the proxy setting cannot be used",
		Causes: []string{"a malformed HTTPS_PROXY, HTTP_PROXY or ALL_PROXY in the service's environment"},
		Remedy: "write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT there, " +
			"or set the cloud's proxy in the configuration",
	},
	ProxyDNS: {
		Class: ClassProxy, Delay: DelayBackoff,
		Says:   "the proxy's name cannot be resolved",
		Causes: []string{"a typing error in proxy", "a DNS server that does not answer"},
		Remedy: "check the host in proxy and the name servers in /etc/resolv.conf, or write the proxy's address",
	},
	ProxyUnreachable: {
		Class: ClassProxy, Delay: DelayBackoff,
		Says:   "the proxy cannot be reached",
		Causes: []string{"the proxy is not running", "a wrong host or port in proxy", "the plant's network is down"},
		Remedy: "check host and port in proxy, or in HTTPS_PROXY and its like in the environment; " +
			"proxy: none connects directly",
	},
	ProxyTLS: {
		Class: ClassProxy, Delay: DelaySlow,
		Says:   "no TLS connection with the proxy",
		Causes: []string{"a certificate of the plant's own authority", "a proxy that does not speak TLS at this port"},
		Remedy: "add the authority's certificate to tls.ca_file, or write http:// instead of https:// in proxy",
	},
	ProxyNoAnswer: {
		Class: ClassProxy, Delay: DelayBackoff,
		Says: "the proxy did not answer in time, or hung up",
		Causes: []string{
			"a proxy that waits for the cloud itself", "socks5:// where http:// is right, or the reverse",
			"something else than a proxy at this address",
		},
		Remedy: "check the proxy's log, and the scheme (http, https, socks5), host and port in proxy",
	},
	ProxyAuthRequired: {
		Class: ClassProxy, Delay: DelaySlow, Alarm: true,
		Says:   "the proxy asks for a user name and a password",
		Causes: []string{"no credentials in proxy"},
		Remedy: "write proxy: http://USER@HOST:PORT and set proxy_password",
	},
	ProxyAuthRejected: {
		Class: ClassProxy, Delay: DelaySlow, Alarm: true,
		Says:   "the proxy does not accept the user name or the password",
		Causes: []string{"a password that was changed", "a typing error"},
		Remedy: "check the user name in proxy, and proxy_password",
	},
	ProxyAuthUnsupported: {
		Class: ClassProxy, Delay: DelaySlow, Alarm: true,
		Says:   "the proxy only knows ways of logging in that bridged does not",
		Causes: []string{"a proxy that asks for NTLM, Kerberos or Digest"},
		Remedy: "have the proxy allow Basic authentication, or let the gateway's address through without a login",
	},
	ProxyRefused: {
		Class: ClassProxy, Delay: DelaySlow, Alarm: true,
		Says: "the proxy does not let bridged through to the cloud",
		Causes: []string{
			"the cloud's host is not on the proxy's list", "the proxy allows CONNECT to port 443 only",
			"the gateway's address is not allowed",
		},
		Remedy: "have the proxy allow CONNECT to the host and port of the cloud's url; " +
			"wss:// on port 443 is what most proxies allow",
	},
	ProxyThrottled: {
		Class: ClassThrottled, Delay: DelayLater,
		Says:   "the proxy asks to come back later",
		Causes: []string{"too many connections", "a proxy in maintenance"},
		Remedy: "nothing if it passes; otherwise raise the proxy's limits",
	},
	ProxyCloudUnknown: {
		Class: ClassProxy, Delay: DelayBackoff,
		Says:   "the proxy cannot reach the cloud",
		Causes: []string{"no uplink", "a typing error in url", "the proxy cannot resolve the cloud's name"},
		Remedy: "check host and port of the cloud's url, and the proxy's own uplink and DNS",
	},
	ProxyProtocol: {
		Class: ClassProxy, Delay: DelaySlow,
		Says:   "what is at the proxy's address does not answer as a proxy does",
		Causes: []string{"socks5:// where http:// is right, or the reverse", "a wrong port in proxy"},
		Remedy: "check the scheme (http, https, socks5) and the port in proxy",
	},
}
