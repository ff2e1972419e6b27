// Package config reads the configuration: the YAML file, the device files it names, the secrets and certificates that
// they refer to. It fills in defaults, merges what devices have in common, and checks everything.
//
// Load reports every fault in one run, each with file, line, column and YAML path, and with what to write instead. What
// it returns is resolved: secrets read, identities built, nothing left to look up. It is plain data that nobody changes
// after loading, so it may be read from several goroutines; the package starts none of its own.
//
// The keys of the file, with their meaning, defaults and ranges, stand in keys.go and nowhere else.
package config

import (
	"net/netip"
	"net/url"
	"time"

	"go.uber.org/zap/zapcore"

	"bridged/internal/credentials"
	"bridged/internal/mqtt"
	"bridged/internal/topicmap"
	"bridged/internal/transport"
)

// Secret is a string that does not show itself in logs, errors or encoders. Only Reveal tells it.
type Secret = credentials.Secret

// Config is a whole, valid configuration.
type Config struct {
	// File is the path that was loaded.
	File            string
	Listen          []Listener
	StateDir        string
	ShutdownTimeout time.Duration
	Log             Log
	Admin           Admin
	Limits          Limits
	// Clouds are by their name in the configuration.
	Clouds map[string]*Cloud
	// Devices are in the order of the configuration: those of the main file, then those of the device files.
	Devices []*Device
	// PassThrough are the entries that let in devices which sign for their cloud themselves, in the same order.
	PassThrough []*PassThrough
	// Warnings are for a person to see; none of them keeps bridged from working.
	Warnings []Problem
}

// Device returns the device of that name, nil if there is none.
func (c *Config) Device(name string) *Device {
	for _, d := range c.Devices {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Listener is where devices connect.
type Listener struct {
	// Address is host:port; an empty host means every address.
	Address string
	// TLS says that devices speak TLS here, with the certificate and key in CertFile and KeyFile.
	TLS      bool
	CertFile string
	KeyFile  string
}

// Log says how to log.
type Log struct {
	Level zapcore.Level
	// JSON says one JSON object a line, otherwise text for people.
	JSON bool
}

// Admin is where and to whom bridged shows how it is, over HTTP.
type Admin struct {
	// Listen is host:port, empty for nowhere.
	Listen string
	// Optional says that Listen is the default, which nobody has asked for.
	Optional bool
	// Token is what requests have to bring, empty for nothing. Then Listen is a loopback address.
	Token Secret
	// DeviceMetrics is for how many devices, at most, there are metrics of their own.
	DeviceMetrics int
	// PProf turns profiles on.
	PProf bool
}

// Limits are bounds for the whole process.
type Limits struct {
	MaxConnections int
	// ConnectTimeout is from accepting a connection to a valid CONNECT.
	ConnectTimeout time.Duration
	// MaxPacketSize bounds one MQTT packet from a device, in bytes.
	MaxPacketSize int64
	// Memory bounds what all queues together hold in memory, in bytes.
	Memory int64
	// Disk bounds what all queues together hold on disk, in bytes.
	Disk int64
	// DialsPerSecond and DialsAtOnce bound connects to one cloud; twice and one and a half times as many to all together.
	DialsPerSecond, DialsAtOnce int
}

// Queue bounds one device's queue of one direction.
type Queue struct {
	MaxMessages int
	MaxBytes    int64
	// MaxAge is how long a message may wait, 0 for ever.
	MaxAge time.Duration
	// SpillAfter is how long a message may be unacknowledged before it is stored on disk.
	SpillAfter time.Duration
	// Always says to store every message of QoS 1 and 2 first.
	Always bool
	OnFull OnFull
	// StoreQoS0 says to queue QoS 0 messages while the far side is away; otherwise they are dropped.
	StoreQoS0 bool
}

// OnFull says what happens to a QoS 1 or 2 message at a full queue.
type OnFull string

// The policies: stop acknowledging, or drop one or the other.
const (
	Block      OnFull = "block"
	DropOldest OnFull = "drop_oldest"
	DropNewest OnFull = "drop_newest"
)

// Cloud is where devices' sessions go.
type Cloud struct {
	Name string
	// Provider is one of credentials.ProviderAliyun, ProviderTencent, ProviderGeneric, or ProviderPassThrough.
	Provider string
	// Vendor is whose cloud it is: one of the first three.
	Vendor string
	// URL is ws or wss, with the port and a path in any case.
	URL       *url.URL
	Keepalive time.Duration
	// Limits are the provider's, with the configuration's overrides.
	Limits credentials.Limits
	// StallTimeout is how long a message may be unacknowledged before the session is begun anew, 0 for ever.
	StallTimeout time.Duration
	// Proxy says how to get there.
	Proxy transport.Proxy
	// Headers are sent along with the WebSocket handshake, by name.
	Headers map[string]Secret
	TLS     TLS
}

// TLS says how to check a cloud's certificate.
type TLS struct {
	// CAFile holds the certificates of authorities to trust beside the system's, if given, or, with CAOnly, instead.
	CAFile string
	CAOnly bool
	// Pins are keys of which one must be in the cloud's chain of certificates, if there are any.
	Pins []transport.Pin
	// CertFile and KeyFile are a client certificate for every device that has none of its own. Devices carry the
	// result in ClientCertificate.
	CertFile string
	KeyFile  string
	// ServerName is the name to expect in the certificate instead of the URL's host, if given.
	ServerName string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13.
	MinVersion uint16
}

// Certificate names the files of a certificate and its key. Both are empty if there is none.
type Certificate struct {
	CertFile string
	KeyFile  string
}

// Device is one device: how it logs in on the LAN, and who it is for its cloud.
type Device struct {
	// Name is unique, and printable without spaces and slashes.
	Name  string
	Cloud *Cloud
	Login Login
	// Identity signs each connection attempt.
	Identity credentials.Identity
	// ClientCertificate is what to present to the cloud, the device's own or else its cloud's.
	ClientCertificate Certificate
	// Always says to keep the cloud session up while the device is away.
	Always bool
	// Linger is how long the cloud session outlives the device's connection.
	Linger time.Duration
	// Persistent says to ask the cloud for a persistent session even if the device connects clean.
	Persistent bool
	Queue      Queue
	// Subscribe are cloud filters to subscribe to on the device's behalf.
	Subscribe []mqtt.Subscription
	// DoctorTopic is a topic of the cloud that may be published to in order to try whether that works, empty for none.
	DoctorTopic string
	// Secrets tells where the device's secrets were found, and those of its cloud, if not in the configuration itself.
	Secrets []SecretSource
	// Topics rename topics between device and cloud; what no rule names passes unchanged. They are
	// valid: topicmap.New takes them.
	Topics []topicmap.Rule
}

// Login is what a device presents on the LAN.
type Login struct {
	// ClientID is the only one accepted; empty means any, which only an anonymous login may have.
	ClientID string
	// Username is the only one accepted; empty means that it is not looked at.
	Username string
	// Password, or PasswordHash (bcrypt), is what the password is checked against. If both are empty it is not
	// looked at.
	Password     Secret
	PasswordHash Secret
	// Anonymous says that neither user name nor password are looked at.
	Anonymous bool
	// AllowFrom are the addresses the device may connect from, IPv4 ones never mapped into IPv6; empty means any.
	AllowFrom []netip.Prefix
}
