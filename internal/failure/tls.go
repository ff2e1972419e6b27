package failure

// What is wrong with certificates and TLS.
const (
	TLSUnknownAuthority   Kind = "tls_unknown_authority"
	TLSWrongName          Kind = "tls_wrong_name"
	TLSExpired            Kind = "tls_expired"
	TLSNotYetValid        Kind = "tls_not_yet_valid"
	TLSBadCertificate     Kind = "tls_bad_certificate"
	TLSPinMismatch        Kind = "tls_pin_mismatch"
	TLSClientCertRequired Kind = "tls_client_cert_required"
	TLSClientCertRefused  Kind = "tls_client_cert_refused"
	TLSClientCertUnusable Kind = "tls_client_cert_unusable"
	TLSNotTLS             Kind = "tls_not_tls"
	TLSVersion            Kind = "tls_version"
	TLSHandshake          Kind = "tls_handshake"
)

var tlsTable = map[Kind]Info{
	TLSUnknownAuthority: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says: "the cloud's certificate is not signed by a known authority",
		Causes: []string{
			"a server with a certificate of its own authority", "a firewall or proxy that inspects TLS",
			"no CA certificates on the gateway",
		},
		Remedy: "set tls.ca_file to the authority's certificate, or install the package ca-certificates",
	},
	TLSWrongName: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud's certificate is for another name",
		Causes: []string{"url has an address or an alias instead of the server's name", "a captive portal"},
		Remedy: "write the name in the certificate as the host of url, or set tls.server_name to it",
	},
	TLSExpired: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud's certificate has expired",
		Causes: []string{"a certificate that was not renewed", "a gateway whose clock is ahead"},
		Remedy: "renew the server's certificate; check the gateway's clock (timedatectl)",
	},
	TLSNotYetValid: {
		Class: ClassTLS, Delay: DelaySlow,
		Says:   "the cloud's certificate is not valid yet",
		Causes: []string{"a gateway whose clock is behind", "a certificate that was made for later"},
		Remedy: "check the gateway's clock (timedatectl), and let NTP out through the firewall",
	},
	TLSBadCertificate: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud's certificate is not fit for a server",
		Causes: []string{"a certificate made for another use", "a name that its authority must not sign for"},
		Remedy: "have the server's certificate issued for server authentication, with its name as a subject alternative name",
	},
	TLSPinMismatch: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "none of the cloud's keys is among tls.pins",
		Causes: []string{"a server that changed its key", "somebody in between"},
		Remedy: "if the change is right, add the new key's pin to tls.pins; keep a second one for the next change",
	},
	TLSClientCertRequired: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud asks for a client certificate",
		Causes: []string{"no cert_file for this device"},
		Remedy: "set cert_file and key_file of the device, or of the cloud's tls",
	},
	TLSClientCertRefused: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says: "the cloud does not accept the client certificate",
		Causes: []string{
			"an authority that the cloud does not know", "a certificate that expired or was revoked",
			"another device's certificate",
		},
		Remedy: "check cert_file: whether the cloud knows its authority, and its dates (openssl x509 -dates -in FILE)",
	},
	TLSClientCertUnusable: {
		Class: ClassConfig, Delay: DelaySlow, Alarm: true,
		Says:   "the client certificate cannot be used",
		Causes: []string{"a file that is missing or damaged", "a key that is not the certificate's"},
		Remedy: "check cert_file and key_file",
	},
	TLSNotTLS: {
		Class: ClassTLS, Delay: DelaySlow,
		Says:   "what is at the cloud's address does not speak TLS",
		Causes: []string{"wss:// where ws:// is right", "a wrong port in url", "a captive portal"},
		Remedy: "check ws:// or wss:// and the port of the cloud's url",
	},
	TLSVersion: {
		Class: ClassTLS, Delay: DelaySlow, Alarm: true,
		Says:   "the cloud and bridged have no TLS version in common",
		Causes: []string{"a server that does not know TLS 1.2 or 1.3", "tls.min_version is higher than the server's"},
		Remedy: "lower tls.min_version if it is 1.3; otherwise update the server",
	},
	TLSHandshake: {
		Class: ClassTLS, Delay: DelaySlow,
		Says:   "the TLS handshake with the cloud failed",
		Causes: []string{"a server that wants other ciphers or another name", "a firewall that inspects TLS"},
		Remedy: "check the host of the cloud's url and tls.server_name; compare with openssl s_client -connect HOST:PORT",
	},
}
