package config

// This file is the reference of the configuration: one struct per section, one field per key. The comment says what the
// key means; the tags say the rest:
//
//	yaml      its name
//	default   what it is if it is not written
//	oneof     the words it may be
//	min, max  its range
//	provider  which clouds' providers know it, if not all of them do
//
// text is a string, number an integer, boolean true or false. A duration is written as in Go (30s, 5m, 1h30m), a size
// in bytes or with KiB, MiB or GiB, a rate as in 5/1m. A secret is a string, or one of {file: PATH}, {env: NAME},
// {credential: NAME}; see secretKeys. Relative paths start at the directory of the file that they stand in.

// fileKeys is the configuration file.
type fileKeys struct {
	mark
	// Where devices connect. Default: one listener, tcp://0.0.0.0:1883.
	Listen list[listenKeys] `yaml:"listen"`
	// The directory for what has to survive a restart. One process at a time may use it.
	StateDir text `yaml:"state_dir" default:"/var/lib/bridged"`
	// How long to let queues drain on SIGTERM.
	ShutdownTimeout duration `yaml:"shutdown_timeout" default:"10s" min:"1ms"`
	// How to log.
	Log logKeys `yaml:"log"`
	// The status page, the API, metrics and health, over HTTP.
	Admin adminKeys `yaml:"admin"`
	// Bounds for the whole process.
	Limits limitKeys `yaml:"limits"`
	// Bounds for each device's queues, one per direction. Devices and defaults may override single keys.
	Queue queueKeys `yaml:"queue"`
	// The clouds by a name of your choice, which devices refer to.
	Clouds table[cloudKeys] `yaml:"clouds"`
	// What devices have in common: merged under every device, key by key.
	Defaults sharedKeys `yaml:"defaults"`
	// The devices.
	Devices list[deviceKeys] `yaml:"devices"`
	// More devices: YAML files (a list of devices, or a mapping with the key devices) and CSV files with a header line,
	// as the vendors' consoles export them. Patterns with *, ? and [...] may match any number of files.
	DeviceFiles list[text] `yaml:"device_files"`
}

type listenKeys struct {
	mark
	// tcp://HOST:PORT, or tls://HOST:PORT with a certificate. An empty HOST means every address.
	URL text `yaml:"url"`
	// The server certificate, PEM, with the intermediate certificates after it. Only for tls.
	CertFile text `yaml:"cert_file"`
	// Its private key, PEM, readable by its owner only. Only for tls.
	KeyFile text `yaml:"key_file"`
}

type logKeys struct {
	mark
	// The least severe level to log.
	Level text `yaml:"level" default:"info" oneof:"debug info warn error"`
	// One JSON object a line, or text for people.
	Format text `yaml:"format" default:"json" oneof:"json console"`
}

type adminKeys struct {
	mark
	// HOST:PORT to answer on; empty: nowhere. Other addresses than 127.0.0.1, ::1 and localhost need a token. Where the
	// key is not written and the port is taken, bridged runs without.
	Listen text `yaml:"listen" default:"127.0.0.1:9883"`
	// What requests have to bring, as "Authorization: Bearer TOKEN". At least 16 characters; head -c 24 /dev/urandom |
	// base64 makes one. Default: none.
	Token secret `yaml:"token"`
	// For how many devices, at most, there are metrics of their own. 0: for none; metrics are by cloud.
	DeviceMetrics number `yaml:"device_metrics" default:"0" min:"0" max:"100000"`
	// Whether to answer on /debug/pprof/, for finding out where time and memory go.
	PProf boolean `yaml:"pprof" default:"false"`
}

type limitKeys struct {
	mark
	// How many devices may be connected at once.
	MaxConnections number `yaml:"max_connections" default:"10000" min:"1" max:"1000000"`
	// How long a connection may take from its start to a valid CONNECT.
	ConnectTimeout duration `yaml:"connect_timeout" default:"10s" min:"1ms"`
	// The largest MQTT packet that a device may send. The default lets a payload of 256 KiB, the most that a cloud
	// takes, through with its topic.
	MaxPacketSize size `yaml:"max_packet_size" default:"272KiB" min:"1KiB" max:"256MiB"`
	// What all queues together may hold in memory. At least max_packet_size.
	Memory size `yaml:"memory" default:"64MiB" min:"1KiB"`
	// What all queues together may hold on disk, in the state_dir.
	Disk size `yaml:"disk" default:"1GiB" min:"1MiB"`
	// How many connects to one cloud may begin in a second; twice as many to all clouds together. After an outage that
	// decides how soon all devices are back.
	DialsPerSecond number `yaml:"dials_per_second" default:"25" min:"1" max:"10000"`
	// How many connects to one cloud may be under way at once; half as many again to all clouds together.
	DialsAtOnce number `yaml:"dials_at_once" default:"64" min:"1" max:"10000"`
}

type queueKeys struct {
	mark
	// How many messages may wait.
	MaxMessages number `yaml:"max_messages" default:"10000" min:"1" max:"100000000"`
	// How many bytes the waiting messages may have together, topics and bookkeeping included.
	MaxBytes size `yaml:"max_bytes" default:"16MiB" min:"1"`
	// How long a message may wait before it is dropped; 0s: until it is delivered.
	MaxAge duration `yaml:"max_age" default:"0s"`
	// How long a message may wait for its acknowledgement before it goes to disk. While the far side acknowledges sooner
	// nothing is written; while it is away messages go to disk at once.
	SpillAfter duration `yaml:"spill_after" default:"1s"`
	// Whether only such messages go to disk, or every message of QoS 1 and 2, before it is acknowledged and sent on.
	Durability text `yaml:"durability" default:"spill" oneof:"spill always"`
	// At a full queue: stop acknowledging until there is room, or drop the oldest or the newest message. QoS 0 messages
	// are dropped at a full queue in any case.
	OnFull text `yaml:"on_full" default:"block" oneof:"block drop_oldest drop_newest"`
	// QoS 0 messages while the far side is away: store or drop them.
	QoS0 text `yaml:"qos0" default:"store" oneof:"store drop"`
}

type cloudKeys struct {
	mark
	// What kind of cloud it is: Alibaba Cloud IoT Platform, Tencent Cloud IoT Hub, or any MQTT broker. Or passthrough,
	// for devices that sign for their cloud themselves: see vendor.
	Provider text `yaml:"provider" oneof:"aliyun tencent generic passthrough"`
	// Whose cloud it is: it decides about the form of the login and the limits. Devices of this cloud are not listed one
	// by one. An entry under devices lets in whoever comes from its login.allow_from with a login that the cloud accepts.
	Vendor text `yaml:"vendor" provider:"passthrough" oneof:"aliyun tencent generic"`
	// ws://HOST[:PORT][/PATH] or wss://... Default port: 443 for wss, and for aliyun in any case; 80 for ws. Default
	// path: /.
	URL text `yaml:"url"`
	// The product's key. Devices may override it.
	ProductKey text `yaml:"product_key" provider:"aliyun"`
	// The product's id. Devices may override it.
	ProductID text `yaml:"product_id" provider:"tencent"`
	// How to sign with the device secret. Tencent does not know hmacmd5.
	SignMethod text `yaml:"sign_method" provider:"aliyun tencent" default:"hmacsha256" oneof:"hmacsha256 hmacsha1 hmacmd5"`
	// Whether to send and sign the time of the attempt.
	Timestamp boolean `yaml:"timestamp" provider:"aliyun" default:"true"`
	// The application id in the user name.
	SDKAppID text `yaml:"sdkappid" provider:"tencent" default:"12010126"`
	// How long a signature is valid, in whole seconds.
	Expiry duration `yaml:"expiry" provider:"tencent" default:"1h" min:"1m"`
	// What a device with a certificate sends as its password: anything, or a signature by its key.
	CertPassword text `yaml:"cert_password" provider:"tencent" default:"any" oneof:"any rsa-sha256"`
	// The MQTT keepalive, in whole seconds. Default and range: aliyun 300s, 30s to 1200s; tencent 300s, 0s to 900s;
	// generic 60s, 0s to 65535s. 0s means none.
	Keepalive duration `yaml:"keepalive"`
	// How long the cloud may keep a message waiting for its acknowledgement before the session is ended and begun anew.
	// 0s: for ever.
	StallTimeout duration `yaml:"stall_timeout" default:"60s"`
	// How to leave the plant's network: by the proxy http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, with
	// USER@ before the host if it asks for a login; none; or env, what HTTPS_PROXY (for wss), HTTP_PROXY (for ws),
	// ALL_PROXY and NO_PROXY say. The proxy resolves the cloud's name. Default: env.
	Proxy proxy `yaml:"proxy"`
	// The password for the proxy, if it is not in its URL.
	ProxyPassword secret `yaml:"proxy_password"`
	// HTTP headers to send along with the WebSocket handshake, by name. Values are secrets: they may be kept elsewhere.
	Headers table[secret] `yaml:"headers"`
	// How to check the cloud's certificate. Only for wss.
	TLS tlsKeys `yaml:"tls"`
	// Overrides of what the provider is known to allow, since vendors change it.
	Limits cloudLimitKeys `yaml:"limits"`
}

type tlsKeys struct {
	mark
	// The certificates of authorities to trust, PEM, beside the system's.
	CAFile text `yaml:"ca_file"`
	// Whether to trust those of ca_file only, instead of the system's.
	CAOnly boolean `yaml:"ca_only" default:"false"`
	// Keys of which one must be in the cloud's chain of certificates: sha256/ and the SHA-256 hash of the public key in
	// base64. Default: any that an authority has signed.
	Pins list[text] `yaml:"pins"`
	// A client certificate for all devices of this cloud that have none of their own, PEM.
	CertFile text `yaml:"cert_file" provider:"generic"`
	// Its private key, PEM, readable by its owner only.
	KeyFile text `yaml:"key_file" provider:"generic"`
	// The name to expect in the cloud's certificate. Default: the URL's host.
	ServerName text `yaml:"server_name"`
	// The oldest TLS version to speak.
	MinVersion text `yaml:"min_version" default:"1.2" oneof:"1.2 1.3"`
}

// cloudLimitKeys have the provider's values as their defaults. Where a count or size may be 0 it means no limit.
type cloudLimitKeys struct {
	mark
	// The range of keepalives that the cloud accepts.
	KeepaliveMin duration `yaml:"keepalive_min" max:"65535s"`
	KeepaliveMax duration `yaml:"keepalive_max" min:"1s" max:"65535s"`
	// The highest QoS. Messages and subscriptions above it are lowered.
	MaxQoS number `yaml:"max_qos" min:"0" max:"2"`
	// Whether the cloud keeps retained messages; otherwise the flag is removed.
	Retain boolean `yaml:"retain"`
	// Whether the cloud takes wills; otherwise bridged publishes them.
	Will boolean `yaml:"will"`
	// The largest payload.
	MaxPayload size `yaml:"max_payload" min:"0" max:"256MiB"`
	// Messages that one device may publish in a second.
	UplinkPerSecond number `yaml:"uplink_per_second" min:"0" max:"1000000"`
	// How often a device may connect, as in 5/1m: five times a minute. 0: no limit.
	Connects rate `yaml:"connects"`
	// How many messages may be unacknowledged at once.
	MaxInFlight number `yaml:"max_in_flight" min:"1" max:"65535"`
	// How many filters one SUBSCRIBE may carry.
	FiltersPerSubscribe number `yaml:"filters_per_subscribe" min:"0" max:"65535"`
	// How many filters a device may subscribe to.
	MaxSubscriptions number `yaml:"max_subscriptions" min:"0" max:"1000000"`
	// The longest topic or filter in bytes.
	MaxTopicBytes number `yaml:"max_topic_bytes" min:"0" max:"65535"`
	// The most levels of a topic or filter.
	MaxTopicLevels number `yaml:"max_topic_levels" min:"0" max:"65535"`
	// The longest client_id in characters.
	MaxClientID number `yaml:"max_client_id" min:"0" max:"65535"`
}

// sharedKeys are the keys that a device has and that defaults may hold for all of them.
type sharedKeys struct {
	mark
	// Which cloud the device belongs to. Default: the one whose product_key or product_id the device names, or the only
	// one there is.
	Cloud text `yaml:"cloud"`
	// What the device presents on the LAN.
	Login loginKeys `yaml:"login"`
	// When to be connected to the cloud: while the device is connected or has messages left, or always.
	Upstream text `yaml:"upstream" default:"on_demand" oneof:"on_demand always"`
	// How long the cloud session outlives the device's connection.
	Linger duration `yaml:"linger" default:"30s"`
	// Whether the cloud session is clean as the device's is, or persistent even if the device connects clean.
	Session text `yaml:"session" default:"mirror" oneof:"mirror persistent"`
	// Overrides of the queue bounds, key by key.
	Queue queueKeys `yaml:"queue"`
	// Cloud filters to subscribe to for a device that never subscribes.
	Subscribe list[subscribeKeys] `yaml:"subscribe"`
	// A topic of the cloud to which "bridged doctor" may publish a message, to see whether the device may publish at all.
	// Variables are replaced as in topics. Choose one where nobody minds. Default: none, it publishes nothing.
	DoctorTopic text `yaml:"doctor_topic"`
	// Other names for topics, for firmware with fixed short ones. Of several rules that apply the first one counts; what
	// no rule names passes unchanged.
	Topics list[topicKeys] `yaml:"topics"`
}

type deviceKeys struct {
	// The device's name in logs, metrics and the status. Unique, printable, without spaces and slashes.
	Name text `yaml:"name"`
	sharedKeys
	// The device's name in the cloud. Default: name.
	DeviceName text `yaml:"device_name"`
	// The product's key, if it is not the cloud's.
	ProductKey text `yaml:"product_key" provider:"aliyun"`
	// The product's id, if it is not the cloud's.
	ProductID text `yaml:"product_id" provider:"tencent"`
	// The device secret (tencent: the key, base64) from the cloud's console.
	DeviceSecret secret `yaml:"device_secret" provider:"aliyun tencent"`
	// The device's own client certificate, PEM, instead of a secret.
	CertFile text `yaml:"cert_file" provider:"tencent generic"`
	// Its private key, PEM, readable by its owner only.
	KeyFile text `yaml:"key_file" provider:"tencent generic"`
	// The client id in the cloud. Default: name for generic, product key and device name with a dot between for aliyun.
	ClientID text `yaml:"client_id" provider:"aliyun generic"`
	// The user name in the cloud.
	Username text `yaml:"username" provider:"generic"`
	// The password in the cloud.
	Password secret `yaml:"password" provider:"generic"`
	// How many different devices this entry lets in at most.
	MaxDevices number `yaml:"max_devices" provider:"passthrough" default:"1000" min:"1" max:"1000000"`
}

type loginKeys struct {
	mark
	// The client id that the device connects with. Default: name; with anonymous: any. Not in defaults.
	ClientID text `yaml:"client_id"`
	// The user name. Default: any.
	Username text `yaml:"username"`
	// The password.
	Password secret `yaml:"password"`
	// The password's bcrypt hash, instead of the password; bridged hash-password makes one.
	PasswordHash secret `yaml:"password_hash"`
	// Let the device in without user name and password.
	Anonymous boolean `yaml:"anonymous" default:"false"`
	// Addresses and networks (192.168.10.7, 192.168.10.0/24) that the device may connect from. Default: any.
	AllowFrom list[text] `yaml:"allow_from"`
}

type subscribeKeys struct {
	mark
	// The filter as the cloud knows it. Variables are replaced as in topics.
	Filter text `yaml:"filter"`
	// The QoS to ask for.
	QoS number `yaml:"qos" default:"1" min:"0" max:"2"`
}

// topicKeys is a topic rule. In both patterns ${name}, ${device_name}, ${client_id}, and ${product_key} or
// ${product_id}, stand for the device's values; the wildcards + and # must be the same on both sides.
type topicKeys struct {
	mark
	// The topic on the device's side.
	Local text `yaml:"local"`
	// The topic on the cloud's side.
	Cloud text `yaml:"cloud"`
	// From device to cloud, from cloud to device, or both.
	Direction text `yaml:"direction" default:"both" oneof:"up down both"`
}

// secretKeys is a secret that is kept elsewhere. Exactly one of them is written.
type secretKeys struct {
	mark
	// A file that only its owner may read. One line end after the secret is ignored.
	File text `yaml:"file"`
	// An environment variable.
	Env text `yaml:"env"`
	// A systemd credential, as in LoadCredential=NAME:PATH.
	Credential text `yaml:"credential"`
}
