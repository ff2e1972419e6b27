package doctor

import (
	"time"

	"bridged/internal/failure"
	"bridged/internal/transport"
)

// Stage is a part of an examination.
type Stage string

// The stages, in the order of an examination. With a proxy, DNS and TCP are about the proxy.
const (
	Configuration Stage = "configuration"
	Secrets       Stage = "secrets"
	Clock         Stage = "clock"
	Daemon        Stage = "daemon"
	DNS           Stage = "dns"
	TCP           Stage = "tcp"
	Proxy         Stage = "proxy"
	TLS           Stage = "tls"
	Upgrade       Stage = "upgrade"
	Connect       Stage = "connect"
	Subscribe     Stage = "subscribe"
	Publish       Stage = "publish"
	Goodbye       Stage = "goodbye"
)

// Status is how a stage went.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Result is how an examination went.
type Result string

// The results.
const (
	Passed Result = "ok"
	Broken Result = "failed"
	// Held: all is well until the WebSocket handshake. CONNECT was left out, since it would have ended the session that a
	// bridged has which runs.
	Held Result = "held"
)

// Report is an examination. Its JSON is documented for programs: names stay, others may be added. It holds no secret.
type Report struct {
	Device  string    `json:"device"`
	Cloud   string    `json:"cloud"`
	URL     string    `json:"url"`
	Result  Result    `json:"result"`
	At      time.Time `json:"at"`
	Seconds float64   `json:"duration_seconds"`
	Steps   []Step    `json:"steps"`
	// Failure is the first one, nil if there is none.
	Failure *Failure    `json:"failure,omitempty"`
	Daemon  DaemonState `json:"daemon"`
	Clock   ClockState  `json:"clock"`
	// Proxy is a URL without credentials, ProxyVariable the environment variable that names it.
	Proxy         string   `json:"proxy,omitempty"`
	ProxyVariable string   `json:"proxy_variable,omitempty"`
	Addresses     []string `json:"addresses,omitempty"`
	Tries         []Try    `json:"tries,omitempty"`
	TLS           *TLSInfo `json:"tls,omitempty"`
	ProxyTLS      *TLSInfo `json:"proxy_tls,omitempty"`
	// HTTPStatus and Headers are of the answer to the WebSocket handshake.
	HTTPStatus int                 `json:"http_status,omitempty"`
	Headers    map[string][]string `json:"http_headers,omitempty"`
	Session    *Session            `json:"session,omitempty"`
	Filters    []Filter            `json:"filters,omitempty"`
}

// Step is a stage that was gone through, or skipped.
type Step struct {
	Stage   Stage    `json:"stage"`
	Status  Status   `json:"status"`
	Seconds float64  `json:"duration_seconds"`
	Summary string   `json:"summary"`
	Notes   []string `json:"notes,omitempty"`
}

// Failure is why an examination failed, in words of package failure.
type Failure struct {
	Stage  Stage         `json:"stage"`
	Kind   failure.Kind  `json:"kind"`
	Class  failure.Class `json:"class"`
	Reason string        `json:"reason"`
	// Error is the reason and the cause.
	Error  string   `json:"error"`
	Causes []string `json:"causes"`
	Remedy string   `json:"remedy"`
	// RetryAfter is how long the other side asks to wait, 0 if it does not.
	RetryAfter float64 `json:"retry_after_seconds,omitempty"`
}

// DaemonState is what is known of a bridged that runs with the same state directory.
type DaemonState struct {
	Running bool `json:"running"`
	// State is the device's, empty if it is not told.
	State string `json:"state,omitempty"`
	// Holds says that it has, or may have, a session with the cloud for the device.
	Holds bool `json:"holds"`
}

// ClockState is how the gateway's clock is.
type ClockState struct {
	State string `json:"state"`
	// Offset is how far the clock is behind by the word of the cloud or the proxy, nil if they said nothing.
	Offset      *float64 `json:"offset_seconds,omitempty"`
	Uncertainty float64  `json:"uncertainty_seconds,omitempty"`
	Source      string   `json:"source,omitempty"`
}

// Try is an address that was tried. Error is empty for the one that answered first.
type Try struct {
	Address string  `json:"address"`
	Seconds float64 `json:"duration_seconds"`
	Error   string  `json:"error,omitempty"`
}

// TLSInfo is a TLS handshake. Version is empty if the certificate was refused.
type TLSInfo struct {
	Version          string        `json:"version,omitempty"`
	Cipher           string        `json:"cipher,omitempty"`
	ServerName       string        `json:"server_name"`
	Chain            []Certificate `json:"chain"`
	Pinned           bool          `json:"pinned"` // the chain has one of the configured keys
	CertificateAsked bool          `json:"client_certificate_asked"`
	CertificateShown bool          `json:"client_certificate_shown"`
}

// Certificate is one of a chain.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
	Pin       string    `json:"pin"`
}

// Session is the MQTT session with the cloud.
type Session struct {
	// Present says that the cloud had one for the device.
	Present bool `json:"present"`
	// Kept are messages that came and stay in the cloud, Lost those of QoS 0, which the device does not get.
	Kept int `json:"kept_messages"`
	Lost int `json:"lost_qos0_messages"`
	// Discarded says that the session, which was new, was discarded again.
	Discarded bool `json:"discarded"`
}

// Filter is a subscription that was asked for. Granted is nil if it was refused.
type Filter struct {
	Filter  string `json:"filter"`
	Asked   byte   `json:"asked_qos"`
	Granted *byte  `json:"granted_qos"`
}

// failed makes the report's failure.
func failed(stage Stage, f *failure.Failure) *Failure {
	info := f.Info()
	return &Failure{
		Stage: stage, Kind: f.Kind, Class: info.Class, Reason: f.Reason(), Error: f.Error(), Causes: info.Causes,
		Remedy: info.Remedy, RetryAfter: f.RetryAfter.Seconds(),
	}
}

// stages are those of package failure that have other names here, or none.
var stages = map[failure.Stage]Stage{
	failure.StageConfig: Configuration, failure.StageClock: Clock, failure.StageDNS: DNS, failure.StageProxy: Proxy,
	failure.StageTCP: TCP, failure.StageTLS: TLS, failure.StageUpgrade: Upgrade, failure.StageConnect: Connect,
	failure.StageSubscribe: Subscribe, failure.StageOnline: Publish,
}

// tlsInfo is nil for nil. pins are the configured ones.
func tlsInfo(t *transport.TLSTrace, pins []transport.Pin, now time.Time) *TLSInfo {
	if t == nil {
		return nil
	}
	info := &TLSInfo{
		Version: t.Version, Cipher: t.Cipher, ServerName: t.ServerName, Chain: []Certificate{},
		CertificateAsked: t.CertificateAsked, CertificateShown: t.CertificateShown,
	}
	for _, c := range t.Chain {
		info.Chain = append(info.Chain, Certificate{
			Subject: failure.Clean(c.Subject), Issuer: failure.Clean(c.Issuer), Names: cleaned(c.Names),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, DaysLeft: c.DaysLeft(now), Pin: c.Pin,
		})
		for _, p := range pins {
			info.Pinned = info.Pinned || p.String() == c.Pin
		}
	}
	return info
}

// cleaned makes what a certificate says fit for a terminal.
func cleaned(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = failure.Clean(n)
	}
	return out
}
