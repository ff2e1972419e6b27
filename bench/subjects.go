package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// subject is a program under test.
type subject struct {
	name string
	// scheme is how it speaks to the cloud, if that is not the case's.
	scheme string
	start  func(e env) (*process, error)
}

// env is where a subject runs.
type env struct {
	dir     string // for what it writes
	listen  string // where devices connect
	cloud   string // HOST:PORT
	scheme  string
	ca      string // a file
	devices int
	// keepalive is what is announced to the cloud.
	keepalive time.Duration
	profile   string // HOST:PORT for profiles, if they are wanted
}

func (e env) url() string { return fmt.Sprintf("%s://%s/mqtt", e.scheme, e.cloud) }

func tunnel(program string) subject {
	return subject{name: "tunnel", start: func(e env) (*process, error) {
		args := []string{"-listen", e.listen, "-url", e.url()}
		if e.scheme == "wss" {
			args = append(args, "-ca", e.ca)
		}
		return start(filepath.Join(e.dir, "log"), program, args...)
	}}
}

// bridged runs with the defaults, except that it may dial everybody at once, as the tunnel does.
func bridged(name, program string) subject {
	return subject{name: name, start: func(e env) (*process, error) {
		conf, err := e.configure()
		if err != nil {
			return nil, err
		}
		return start(filepath.Join(e.dir, "log"), program, "run", "-c", conf)
	}}
}

// configure writes bridged's configuration.
func (e env) configure() (file string, err error) {
	var y strings.Builder
	fmt.Fprintf(&y, "listen: [{url: 'tcp://%s'}]\nstate_dir: %s\n", e.listen, filepath.Join(e.dir, "state"))
	y.WriteString("limits: {dials_per_second: 10000, dials_at_once: 10000}\n")
	if e.profile == "" {
		y.WriteString("admin: {listen: ''}\n")
	} else {
		fmt.Fprintf(&y, "admin: {listen: '%s', pprof: true}\n", e.profile)
	}
	fmt.Fprintf(&y, "clouds:\n  cloud: {provider: generic, url: '%s', keepalive: %s", e.url(), e.keepalive)
	if e.scheme == "wss" {
		fmt.Fprintf(&y, ", tls: {ca_file: %s}", e.ca)
	}
	fmt.Fprintf(&y, "}\ndefaults: {login: {username: %s, password: %s}}\ndevices:\n", user, password)
	for i := range e.devices {
		fmt.Fprintf(&y, "  - {name: %s}\n", deviceName(uint32(i)))
	}
	file = filepath.Join(e.dir, "bridged.yaml")
	return file, os.WriteFile(file, []byte(y.String()), 0o600)
}

// bridgeName is mosquitto's at the cloud.
const bridgeName = "bridge"

// mosquitto is bridged to the cloud over TCP, which is all it can, with one session for all devices. Its queues have no
// bound: it acknowledges what it has in memory, and drops it at the bound.
func mosquitto(program string) subject {
	return subject{name: "mosquitto", scheme: "tcp", start: func(e env) (*process, error) {
		var y strings.Builder
		host, port, err := net.SplitHostPort(e.listen)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&y, "listener %s %s\nallow_anonymous true\npersistence false\nlog_type error\n", port, host)
		y.WriteString("max_queued_messages 0\nmax_inflight_messages 1000\n")
		fmt.Fprintf(&y, "connection cloud\naddress %s\nremote_clientid %s\ncleansession true\nnotifications false\n"+
			"try_private false\nbridge_protocol_version mqttv311\nkeepalive_interval %d\n"+
			"topic up/# out 1\ntopic down/# in 1\n", e.cloud, bridgeName, int(e.keepalive.Seconds()))
		conf := filepath.Join(e.dir, "mosquitto.conf")
		if err := os.WriteFile(conf, []byte(y.String()), 0o600); err != nil {
			return nil, err
		}
		return start(filepath.Join(e.dir, "log"), program, "-c", conf)
	}}
}

var errNoPort = errors.New("no free port")

// freeAddress is one with a port that no outgoing connection takes.
func freeAddress() (string, error) {
	const low, high = 10000, 32000
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		if l, err := net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errNoPort
}
