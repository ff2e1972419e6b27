package demo

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"bridged/internal/cloudsim"
)

// introduce says how to use the simulated clouds.
func (s *simulation) introduce() error {
	var b strings.Builder
	if s.opts.Config == nil {
		if err := s.introduceMadeUp(&b); err != nil {
			return err
		}
	} else {
		s.introduceConfig(&b)
	}
	b.WriteString("\nCtrl-C ends.\n\n")
	s.acct.text(b.String())
	return nil
}

// introduceMadeUp writes a configuration for the made-up clouds, and says who may log in to them.
func (s *simulation) introduceMadeUp(b *strings.Builder) error {
	set := settings{Command: "sim", Listen: usualPort, Clouds: make(map[string]place)}
	fmt.Fprintf(b, "Simulated clouds, with made-up devices:\n")
	for _, spec := range clouds() {
		for _, c := range s.clouds {
			if c.name != spec.name {
				continue
			}
			fmt.Fprintf(b, "\n  %s  (%s)\n    %s\n    %s\n", c.name, spec.title,
				s.url(c, true), s.url(c, false))
			writeIdentities(b, c)
			set.Clouds[c.name] = place{URL: s.url(c, false)}
			if spec.secure {
				set.Clouds[c.name] = place{URL: s.url(c, true), CAFile: filepath.Base(s.caFile())}
			}
		}
	}
	file, err := set.write(s.opts.Dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\nTheir CA certificate, new with each start:\n    %s\n", s.caFile())
	fmt.Fprintf(b, "A configuration for all that, ready to run:\n    bridged run -c %s\n", file)
	return nil
}

func writeIdentities(b *strings.Builder, c *simCloud) {
	for _, d := range c.opts.Devices {
		product := "product_key"
		if c.opts.Kind == cloudsim.Tencent {
			product = "product_id"
		}
		fmt.Fprintf(b, "    %s %s, device_name %s, device_secret %s\n", product, c.opts.Product, d.Name, d.Secret)
	}
	for _, name := range sortedKeys(c.opts.Users) {
		fmt.Fprintf(b, "    username %s, password %s\n", name, c.opts.Users[name])
	}
}

// introduceConfig says what to change in the configuration.
func (s *simulation) introduceConfig(b *strings.Builder) {
	fmt.Fprintf(b, "Simulating the clouds of %s. To try it, change in a copy of it:\n\nclouds:\n", s.opts.Config.File)
	certs := false
	for _, c := range s.clouds {
		fmt.Fprintf(b, "  %s:\n", c.name)
		certs = certs || len(c.certs) > 0
		if c.cfg.URL.Scheme == "wss" {
			fmt.Fprintf(b, "    url: %s\n    tls: {ca_file: %s}\n", s.url(c, true), s.caFile())
		} else {
			fmt.Fprintf(b, "    url: %s\n", s.url(c, false))
		}
	}
	if certs {
		b.WriteString("devices:\n")
	}
	for _, c := range s.clouds {
		for _, cc := range c.certs {
			fmt.Fprintf(b, "  - name: %s\n    cert_file: %s\n    key_file: %s\n", cc.device, cc.certFile, cc.keyFile)
		}
	}
	b.WriteString("\nThe certificates are new with each start: start or reload the bridge after this command.\n")
	for _, c := range s.clouds {
		if c.unchecked() {
			fmt.Fprintf(b, "\n%s refuses every login: its devices sign with secrets that are not in the configuration.\n"+
				"To try it, give it the url of \"bridged sim --%s\", and sign as the device that is made up there.\n",
				c.name, c.cfg.Vendor)
		}
	}
}

// url is where a cloud can be reached, with the query of the configured URL.
func (s *simulation) url(c *simCloud, secure bool) string {
	address := c.cloud.WSURL()
	if secure {
		address = c.cloud.WSSURL()
	}
	address = withHost(address, s.host)
	if c.cfg == nil || c.cfg.URL.RawQuery == "" {
		return address
	}
	return address + "?" + c.cfg.URL.RawQuery
}

// tell prints an event of a cloud.
func (s *simulation) tell(c *simCloud, secure bool, device, clientID string, m mark, t tone, text string) {
	if device == "" {
		device = clientID
	}
	if device == "" {
		device = "?"
	}
	s.acct.print(line{device: device, mark: m, cloud: c.label(secure), text: text, tone: t})
}

func (c *simCloud) label(secure bool) string {
	if secure {
		return c.name + " wss"
	}
	return c.name + " ws"
}

// watch tells what happens in a cloud.
func (s *simulation) watch(c *simCloud) *watch {
	return &watch{
		cloud: c.cloud,
		online: func(n cloudsim.Connection) {
			s.tell(c, n.Secure, n.Device, n.ClientID, online, good, fmt.Sprintf("online: %s, keepalive %s, client id %s",
				sessionOf(n), n.Keepalive, n.ClientID))
		},
		offline: func(n cloudsim.Connection) {
			s.tell(c, n.Secure, n.Device, n.ClientID, offline, plain, fmt.Sprintf("offline after %s: %s",
				n.End.Sub(n.Start).Round(time.Millisecond), endings[n.Reason]))
		},
		refused: func(f cloudsim.LoginFailure) {
			s.tell(c, f.Secure, f.Device, f.ClientID, event, bad, refusal(f))
		},
		violation: func(v cloudsim.Violation) {
			s.acct.print(line{device: orUnknown(v.Device), mark: event, cloud: c.name, tone: bad,
				text: fmt.Sprintf("breaks a rule (%s): %s", v.Rule, v.Detail)})
		},
		acked: func(a cloudsim.Ack) {
			s.acct.print(line{device: a.Device, mark: down, cloud: c.name, text: fmt.Sprintf("%s  %s  QoS %d, acknowledged %s",
				a.Topic, printable(a.Payload), a.QoS, took(a.Time.Sub(a.Sent)))})
		},
		subscribed: func(device, filter string, qos byte) {
			text := fmt.Sprintf("subscribed to %s, QoS %d", filter, qos)
			s.acct.print(line{device: device, mark: local, cloud: c.name, text: text})
		},
	}
}

func orUnknown(device string) string {
	if device == "" {
		return "?"
	}
	return device
}

func sessionOf(n cloudsim.Connection) string {
	switch {
	case n.Clean:
		return "clean session"
	case n.SessionPresent:
		return "session resumed"
	}
	return "new persistent session"
}

// endings are why connections end, in words.
var endings = map[cloudsim.EndReason]string{
	cloudsim.EndDisconnect: "DISCONNECT",
	cloudsim.EndClosed:     "the connection was closed without DISCONNECT",
	cloudsim.EndKeepalive:  "nothing came for one and a half times the keepalive",
	cloudsim.EndTakenOver:  "the same identity connected again",
	cloudsim.EndViolation:  "it broke a rule",
	cloudsim.EndStuck:      "it did not read what was sent to it",
	cloudsim.EndFault:      "the connection was cut",
	cloudsim.EndDown:       "the connection was cut",
}

// refusal says why a login failed.
func refusal(f cloudsim.LoginFailure) string {
	switch {
	case f.Status != 0:
		return fmt.Sprintf("upgrade refused with HTTP %d: %s", f.Status, f.Reason)
	case f.Code != 0:
		return fmt.Sprintf("login refused with CONNACK %d: %s", f.Code, f.Reason)
	}
	return "no login: " + f.Reason
}

// arrived prints a message that a device has published.
func (s *simulation) arrived(c *simCloud, r cloudsim.Received) {
	select {
	case <-c.ready:
		c.watch.catchUp()
	default: // the cloud is just starting
	}
	flags := fmt.Sprintf("QoS %d", r.QoS)
	if r.Dup {
		flags += ", DUP"
	}
	if r.Retain {
		flags += ", retain"
	}
	s.tell(c, r.Secure, r.Device, r.ClientID, up, plain, fmt.Sprintf("%s  %s  %s", r.Topic, printable(r.Payload), flags))
}

// summarise prints what was counted.
func (s *simulation) summarise() {
	s.acct.text("\n")
	for _, c := range s.clouds {
		t := c.cloud.Totals()
		s.acct.text(fmt.Sprintf("%s: %s, %d refused; %s received, %d sent, %d of them acknowledged; %s of its rules\n",
			c.name, count(int(t.Connects), "login"), t.LoginFailures, count(int(t.Received), "message"), t.Sent, t.Acked,
			count(int(t.Violations), "violation")))
	}
}
