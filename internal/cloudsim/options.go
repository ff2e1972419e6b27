package cloudsim

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kind is which cloud is simulated.
type Kind string

// The kinds of cloud.
const (
	Aliyun  Kind = "aliyun"
	Tencent Kind = "tencent"
	Generic Kind = "generic"
)

// ClientCerts says what the wss listener asks of clients.
type ClientCerts string

const (
	// CertsDefault is CertsOptional for tencent, whose certificate devices need it, and CertsNone for the others.
	CertsDefault ClientCerts = ""
	// CertsNone asks for no client certificate.
	CertsNone ClientCerts = "none"
	// CertsOptional verifies a client certificate if the client presents one.
	CertsOptional ClientCerts = "optional"
	// CertsRequired fails the TLS handshake of a client without a certificate of this cloud's CA.
	CertsRequired ClientCerts = "required"
)

// Device is one identity of an aliyun or tencent cloud.
type Device struct {
	// Name is the device name, and how every method of Cloud names it. It is unique in a Cloud.
	Name string
	// Product is the product key (aliyun) or product id (tencent); Options.Product if empty.
	Product string
	// Secret is the device secret. Its own bytes are the key for aliyun, it is base64 for tencent.
	Secret string
	// Certificate says that a tencent device logs in with a client certificate, see CA.IssueClient, instead of a
	// secret.
	Certificate bool
	// Disabled has every login refused, as the vendor's console does.
	Disabled bool
}

// Options are the settings of New. The zero value of everything but Kind is usable.
type Options struct {
	Kind Kind

	// Addr and TLSAddr are where ws and wss are served; default 127.0.0.1:0.
	Addr, TLSAddr string
	// NoWS and NoWSS leave one of the two out.
	NoWS, NoWSS bool
	// Paths are the accepted URL paths, others get 404; default "/" and "/mqtt".
	Paths []string
	// CheckUpgrade, if set, sees each upgrade request first. It returns an HTTP status to refuse it with, or 0. It is
	// called from many goroutines.
	CheckUpgrade func(*http.Request) int

	// CA signs the server certificate and the client certificates; default a fresh one.
	CA *CA
	// Hosts are further names and addresses for the server certificate, beside localhost, 127.0.0.1 and ::1.
	Hosts []string
	// ServerCert replaces the generated server certificate.
	ServerCert *tls.Certificate
	// ClientCerts says whether wss clients need a certificate.
	ClientCerts ClientCerts

	// Product is the default of Device.Product.
	Product string
	// Devices are the identities of an aliyun or tencent cloud.
	Devices []Device
	// Users are user names and passwords of a generic cloud; nil lets everybody in. A device's name is its client id.
	Users map[string]string
	// Anonymous lets clients without a user name in although Users is set.
	Anonymous bool

	// Rules are the limits; default RulesFor(Kind).
	Rules *Rules
	// Window is how many QoS 1 and 2 messages may be unacknowledged towards a device; default 20.
	Window int
	// FrameSize splits what is sent into WebSocket messages of at most so many bytes, so that MQTT packets span them;
	// 0 sends whatever has gathered as one.
	FrameSize int
	// MaxPacket is the largest MQTT packet in bytes that is read at all; default 16 MiB. A larger one is a violation.
	MaxPacket int

	// Date is what the Date header of answers to upgrades says; nil sends none.
	Date func() time.Time
	// Now is the clock that tencent's expiry is checked against; default time.Now. Rates and records use real time.
	Now func() time.Time
	// KeepReceived is how many of the newest messages Received keeps, and acknowledgements Acked: 0 keeps 100,000, a
	// negative number none. Totals counts all the same.
	KeepReceived int
	// OnMessage, if set, is called for each message that a device published, wills excepted, before it is acknowledged
	// and in order for each device. It runs in the goroutine that reads the device's connection, with no lock held: it
	// may call any method but Close, and should not wait for something that the same device is to do.
	OnMessage func(Received)
}

const (
	loopback         = "127.0.0.1:0"
	defaultWindow    = 20
	defaultKeep      = 100_000
	defaultMaxPacket = 16 << 20
)

// withDefaults returns a completed copy, or every fault found.
func (o Options) withDefaults() (Options, error) {
	if o.Addr == "" {
		o.Addr = loopback
	}
	if o.TLSAddr == "" {
		o.TLSAddr = loopback
	}
	if len(o.Paths) == 0 {
		o.Paths = []string{"/", "/mqtt"}
	}
	if o.ClientCerts == CertsDefault {
		o.ClientCerts = CertsNone
		if o.Kind == Tencent {
			o.ClientCerts = CertsOptional
		}
	}
	if o.Rules == nil {
		r := RulesFor(o.Kind)
		o.Rules = &r
	}
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = defaultMaxPacket
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.KeepReceived == 0 {
		o.KeepReceived = defaultKeep
	}
	return o, o.check()
}

func (o Options) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch o.Kind {
	case Aliyun, Tencent:
		if o.Users != nil || o.Anonymous {
			fault("cloudsim: Users and Anonymous belong to a generic cloud; list Devices instead")
		}
	case Generic:
		if len(o.Devices) > 0 {
			fault("cloudsim: Devices belong to an aliyun or tencent cloud; list Users instead")
		}
	default:
		fault("cloudsim: kind %q: use aliyun, tencent or generic", o.Kind)
	}
	if o.NoWS && o.NoWSS {
		fault("cloudsim: NoWS and NoWSS leave nothing to serve; set one of them only")
	}
	switch o.ClientCerts {
	case CertsNone, CertsOptional, CertsRequired:
	default:
		fault("cloudsim: client certificates %q: use none, optional or required", o.ClientCerts)
	}
	if o.Window < 0 || o.Window > 65535 {
		fault("cloudsim: window %d: use 1 to 65535", o.Window)
	}
	if o.FrameSize < 0 || o.MaxPacket < 0 {
		fault("cloudsim: frame size %d, max packet %d: use positive numbers", o.FrameSize, o.MaxPacket)
	}
	for _, p := range o.Paths {
		if !strings.HasPrefix(p, "/") {
			fault("cloudsim: path %q: begin it with a slash", p)
		}
	}
	return errors.Join(errs...)
}
