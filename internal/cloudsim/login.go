package cloudsim

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// attempt is what a login presents.
type attempt struct {
	clientID, username, password string
	hasUsername                  bool
	secure                       bool              // over wss
	cert                         *x509.Certificate // verified client certificate, nil if none
}

// verdict is what a kind's check makes of an attempt.
type verdict struct {
	device   string // as far as it could be told, also when refused
	clientID string // without parameters, the part that Rules.MaxClientID limits
	code     byte   // CONNACK return code, 0 accepts
	reason   string
}

func refuse(v verdict, code byte, format string, args ...any) verdict {
	v.code, v.reason = code, fmt.Sprintf(format, args...)
	return v
}

// CONNACK return codes (MQTT 3.1.1, 3.2.2.3).
const (
	codeVersion     = packets.ErrRefusedBadProtocolVersion
	codeClientID    = packets.ErrRefusedIDRejected
	codeUnavailable = packets.ErrRefusedServerUnavailable
	codeBadLogin    = packets.ErrRefusedBadUsernameOrPassword
	codeNotAllowed  = packets.ErrRefusedNotAuthorised
)

// loginKey is how a device's login names it: user name for aliyun, client id for tencent.
func loginKey(k Kind, d Device) string {
	if k == Aliyun {
		return d.Name + "&" + d.Product
	}
	return d.Product + d.Name
}

// connect answers CONNECT.
func (cn *conn) connect(p *packets.ConnectPacket) error {
	if err := checkConnect(p); err != nil {
		return err
	}
	c := cn.cloud
	v := c.verify(attempt{
		clientID: p.ClientIdentifier, username: p.Username, hasUsername: p.UsernameFlag, password: string(p.Password),
		secure: cn.secure, cert: cn.cert,
	})
	c.mu.Lock()
	if p.ClientIdentifier == "" && p.CleanSession && c.opts.Kind == Generic {
		c.anonymous++ // MQTT 3.1.1, 3.1.3.1
		v.device = fmt.Sprintf("anonymous-%d", c.anonymous)
		p.ClientIdentifier = v.device
	}
	cn.device, cn.clientID = v.device, p.ClientIdentifier
	c.mu.Unlock()
	if !cn.hold(func(f fault) bool { return f.connack }) {
		return errEnded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cn.ended {
		return errEnded
	}
	if p.ProtocolVersion != version {
		v = refuse(v, codeVersion, "protocol level %d, only 4 (MQTT 3.1.1) is served", p.ProtocolVersion)
	}
	if code, reason := c.refuseLocked(cn, v, p); code != 0 {
		c.loginFailedLocked(LoginFailure{
			Device: cn.device, ClientID: cn.clientID, Code: code, Reason: reason, Secure: cn.secure,
		})
		cn.sendLocked(encode(&packets.ConnackPacket{
			FixedHeader: packets.FixedHeader{MessageType: packets.Connack}, ReturnCode: code,
		}))
		return errRefused
	}
	if p.WillFlag && c.rules.NoWill {
		return breachf(RuleWill, "CONNECT with a will for %q", p.WillTopic)
	}
	c.admitLocked(cn, p)
	return nil
}

// checkConnect checks what the standard asks of CONNECT.
func checkConnect(p *packets.ConnectPacket) error {
	if p.ProtocolVersion != version {
		return nil // refused later, with the code for it
	}
	switch {
	case p.ProtocolName != "MQTT":
		return breachf(RuleProtocol, "protocol name %q", p.ProtocolName)
	case p.ReservedBit != 0:
		return breachf(RuleProtocol, "CONNECT with the reserved flag set (MQTT 3.1.1, 3.1.2.3)")
	case p.PasswordFlag && !p.UsernameFlag:
		return breachf(RuleProtocol, "CONNECT with a password but no user name (MQTT 3.1.1, 3.1.2.9)")
	case !p.WillFlag && (p.WillQos != 0 || p.WillRetain):
		return breachf(RuleProtocol, "CONNECT with will QoS or retain but no will (MQTT 3.1.1, 3.1.2.6)")
	case p.WillFlag && (p.WillQos > 2 || !validTopic(p.WillTopic)):
		return breachf(RuleProtocol, "CONNECT with will topic %q and QoS %d", p.WillTopic, p.WillQos)
	case !utf8.ValidString(p.ClientIdentifier) || !utf8.ValidString(p.Username):
		return breachf(RuleProtocol, "CONNECT with invalid UTF-8 (MQTT 3.1.1, 1.5.3)")
	}
	return nil
}

// verify checks credentials the way of the cloud's kind.
func (c *Cloud) verify(a attempt) verdict {
	switch c.opts.Kind {
	case Aliyun:
		return verifyAliyun(a, c.find)
	case Tencent:
		return verifyTencent(a, c.find, c.opts.Now())
	default:
		return verifyGeneric(a, c.opts.Users, c.opts.Anonymous)
	}
}

// refuseLocked returns the CONNACK code to refuse a login with, 0 to let it in. The caller holds c.mu.
func (c *Cloud) refuseLocked(cn *conn, v verdict, p *packets.ConnectPacket) (code byte, reason string) {
	bad := func(rule Rule, code byte, reason string) (byte, string) {
		c.violationLocked(cn.device, cn.clientID, rule, reason)
		return code, reason
	}
	if v.device != "" && !c.withinConnectsLocked(v.device) {
		r := c.rules.Connects
		return bad(RuleConnectRate, codeUnavailable, fmt.Sprintf("more than %d logins in %s", r.Count, r.Per))
	}
	if code := c.faults.of(v.device).refuse; code != 0 {
		return code, "fault"
	}
	r := &c.rules
	switch n := utf8.RuneCountInString(v.clientID); {
	case v.code == codeVersion:
		return bad(RuleProtocol, v.code, v.reason)
	case v.code != 0:
		return v.code, v.reason
	case cn.clientID == "":
		return bad(RuleProtocol, codeClientID, "an empty client id with a persistent session (MQTT 3.1.1, 3.1.3.1)")
	case r.MaxClientID > 0 && n > r.MaxClientID:
		return bad(RuleClientID, codeClientID,
			fmt.Sprintf("a client id of %d characters, more than %d", n, r.MaxClientID))
	case p.Keepalive < r.MinKeepalive || r.MaxKeepalive > 0 && p.Keepalive > r.MaxKeepalive:
		// The vendors do not say which code they use.
		return bad(RuleKeepalive, codeClientID,
			fmt.Sprintf("keepalive %d, not within %d to %d", p.Keepalive, r.MinKeepalive, r.MaxKeepalive))
	}
	return 0, ""
}

// withinConnectsLocked counts a login against Rules.Connects. A login that is refused for it is not counted.
func (c *Cloud) withinConnectsLocked(device string) bool {
	r := c.rules.Connects
	if r.Count == 0 {
		return true
	}
	id := c.identityLocked(device)
	now := time.Now()
	id.logins = slices.DeleteFunc(id.logins, func(t time.Time) bool { return now.Sub(t) >= r.Per })
	if len(id.logins) >= r.Count {
		return false
	}
	id.logins = append(id.logins, now)
	return true
}

// admitLocked gives a connection its session, takes the session from an older connection of the same identity, and
// sends CONNACK and what waits. The caller holds c.mu.
func (c *Cloud) admitLocked(cn *conn, p *packets.ConnectPacket) {
	id := c.identityLocked(cn.device)
	if id.session != nil && id.session.conn != nil {
		c.endLocked(id.session.conn, EndTakenOver, CutClose)
	}
	present := c.openLocked(cn, id, p.CleanSession)
	if p.WillFlag {
		cn.will = p
	}
	cn.keepalive = time.Duration(p.Keepalive) * time.Second
	cn.log = &Connection{
		Device: cn.device, ClientID: cn.clientID, Secure: cn.secure, Clean: p.CleanSession, SessionPresent: present,
		Keepalive: cn.keepalive, Start: time.Now(),
	}
	c.rec.totals.Connects++
	cn.number = c.rec.totals.Connects
	c.rec.connections.add(cn.log)
	cn.sendLocked(encode(&packets.ConnackPacket{
		FixedHeader: packets.FixedHeader{MessageType: packets.Connack}, SessionPresent: present,
	}))
	c.resendLocked(cn.session)
	c.pumpLocked(cn.session)
	c.wakeLocked()
}
