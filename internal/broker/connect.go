package broker

import (
	"bytes"
	"math"
	"strconv"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"go.uber.org/zap"

	"bridged/internal/mqtt"
)

// request is what a CONNECT asks for.
type request struct {
	version    byte // 3 (MQTT 3.1), 4 (3.1.1) or 5
	clientID   string
	keepalive  time.Duration // 0: none
	fresh      bool          // what an earlier session left is not wanted
	expiry     uint32        // seconds that the session is kept after the connection, or mqtt.Forever
	receiveMax int           // messages that may be in flight to the device
	maxPacket  int           // bytes of the largest packet that the device takes
	will       *will
	quiet      bool // no reason strings, please

	// What enter made of it.
	resumed bool // an earlier session goes on
	clean   bool // the cloud side was told that the session ends with the connection
}

// session is what the cloud side has to know. Whether the session goes on is for the device to say.
func (r *request) session(resumed bool) mqtt.Connect {
	c := mqtt.Connect{Clean: r.expiry == 0 && !resumed, Expiry: r.expiry}
	c.Reset = r.fresh && !c.Clean
	if r.will != nil && !r.will.held {
		c.Will = &r.will.message
	}
	return c
}

// The return codes of MQTT 3.1.1 for a refused CONNECT (3.2.2.3).
const (
	connackVersion     = 1
	connackIdentifier  = 2
	connackUnavailable = 3
	connackCredentials = 4
	connackNotAllowed  = 5
)

// connect handles CONNECT. If the login is accepted it leaves mochi a CONNECT that asks for nothing of its own: no
// will, no credentials, no session beyond the connection, and an identifier that nobody else has.
func (l *link) connect(cl *mochi.Client, pk *packets.Packet) error {
	l.req.version = pk.ProtocolVersion
	if err := l.checkConnect(pk); err != nil {
		return err
	}
	if err := l.readRequest(pk); err != nil {
		return err
	}
	username, password := pk.Connect.Username, pk.Connect.Password
	if !pk.Connect.UsernameFlag {
		username = nil
	}
	d, login, refused := l.b.logins.check(l, l.req.clientID, username, password)
	unclaimed := refused == unknownClient || refused == wrongAddress && !l.b.logins.claims(l.req.clientID)
	if unclaimed && l.b.cfg.Guests != nil {
		var a Admission
		if d, a = l.admit(username, password); d == nil {
			return l.refuseGuest(a)
		}
		refused = accepted
	}
	if refused != accepted {
		l.logRefusal(refused, d)
		return l.refuseLogin(refused)
	}
	l.device, l.client, l.login = d, cl, login
	l.proof = l.b.logins.proof(username, password)
	if l.req.clientID == "" {
		l.assigned = l.b.logins.unused(d.name)
	}
	if l.req.will != nil && l.req.will.stripped {
		d.stripped.Add(1)
	}

	c := &pk.Connect
	c.ClientIdentifier = d.name + "/" + strconv.FormatUint(l.b.serial.Add(1), 10)
	c.Clean = true
	c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = false, nil, false, nil
	pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 0, false
	return nil
}

// checkConnect validates a CONNECT and takes out of it what mochi refuses though it is legal: an empty will payload, an
// empty password. A malformed CONNECT of MQTT 3 ends the connection without an answer (MQTT 3.1.1, 3.1.4-1).
func (l *link) checkConnect(pk *packets.Packet) error {
	c := &pk.Connect
	mqtt3 := pk.ProtocolVersion != 5
	is311, is31 := bytes.Equal(c.ProtocolName, []byte("MQTT")), bytes.Equal(c.ProtocolName, []byte("MQIsdp"))
	switch {
	case is311 && pk.ProtocolVersion != 4 && pk.ProtocolVersion != 5, is31 && pk.ProtocolVersion != 3:
		l.req.version = 4 // to be told in (3.1.2-2)
		return l.refuse(connackVersion, packets.ErrUnsupportedProtocolVersion)
	case mqtt3 && c.PasswordFlag && !c.UsernameFlag: // 3.1.2-22
		return l.violation(packets.ErrProtocolViolationUsernameNoFlag)
	case !c.WillFlag && c.WillQos != 0: // 3.1.2-13
		return l.refuse(0, packets.ErrProtocolViolationQosOutOfRange)
	case c.WillFlag && c.WillQos > 2: // 3.1.2-14
		return l.refuse(0, packets.ErrProtocolViolationQosOutOfRange)
	case c.WillFlag && !mqtt.ValidTopic(c.WillTopic):
		return l.refuse(0, packets.ErrTopicNameInvalid)
	case !mqtt3 && pk.Properties.AuthenticationMethod != "", len(pk.Properties.AuthenticationData) > 0:
		return l.refuse(0, packets.ErrBadAuthenticationMethod)
	}
	rest := *pk
	rest.Connect.WillFlag, rest.Connect.WillRetain = false, c.WillRetain && !c.WillFlag
	if len(c.Password) == 0 {
		rest.Connect.PasswordFlag = false
	}
	if code := rest.ConnectValidate(); code != packets.CodeSuccess {
		return l.refuse(0, code)
	}
	return nil
}

// readRequest fills in the link's request and clears the will, which is ours.
func (l *link) readRequest(pk *packets.Packet) error {
	c, p := &pk.Connect, &pk.Properties
	r := &l.req
	r.clientID = c.ClientIdentifier
	r.keepalive = time.Duration(c.Keepalive) * time.Second
	r.fresh = c.Clean
	r.receiveMax = math.MaxUint16
	switch {
	case r.version == 5:
		r.expiry = p.SessionExpiryInterval
		r.maxPacket = int(min(p.MaximumPacketSize, math.MaxInt32))
		r.quiet = p.RequestProblemInfoFlag && p.RequestProblemInfo == 0
		if p.ReceiveMaximum > 0 {
			r.receiveMax = int(p.ReceiveMaximum)
		}
	case !c.Clean:
		r.expiry = mqtt.Forever
	}
	if r.clientID == "" && (r.version == 3 || r.version == 4 && !c.Clean) { // MQTT 3.1.1, 3.1.3-8
		return l.refuse(connackIdentifier, packets.ErrClientIdentifierNotValid)
	}
	if c.WillFlag {
		r.will = newWill(r.version, r.expiry, c)
	}
	c.WillFlag, c.WillTopic, c.WillPayload, c.WillQos, c.WillRetain = false, "", nil, 0, false
	c.WillProperties = packets.Properties{}
	return nil
}

func (l *link) refuseLogin(why refusal) error {
	switch why {
	case badCredentials:
		return l.refuse(connackCredentials, packets.ErrBadUsernameOrPassword)
	case busy:
		return l.refuse(connackUnavailable, packets.ErrServerBusy)
	}
	return l.refuse(connackNotAllowed, packets.ErrNotAuthorized)
}

// refuse answers CONNECT with a CONNACK that says no, and ends the link. With code3 0 MQTT 3 devices get no answer.
func (l *link) refuse(code3 byte, code packets.Code) error {
	if l.req.version == 5 || code3 != 0 {
		ack := packets.Packet{
			FixedHeader:     packets.FixedHeader{Type: packets.Connack},
			ProtocolVersion: l.req.version,
			ReasonCode:      code3,
		}
		if l.req.version == 5 {
			ack.ReasonCode, ack.Properties.ReasonString = code.Code, code.Reason
		}
		var buf bytes.Buffer
		if err := ack.ConnackEncode(&buf); err == nil {
			l.send(buf.Bytes())
		}
	}
	return l.violation(code)
}

// logRefusal tells why a login was refused; d is the device that it came closest to, nil if none.
func (l *link) logRefusal(why refusal, d *device) {
	if d != nil {
		l.logRefusedFor(why.String(), zap.String("device", d.name))
	} else {
		l.logRefusedFor(why.String())
	}
}

// logRefusedFor tells why a login was refused. A device that tries again and again is told of once a minute.
func (l *link) logRefusedFor(reason string, more ...zap.Field) {
	l.told = true
	l.b.mu.Lock()
	l.b.count.Refused++
	l.b.mu.Unlock()
	ok, missed := l.b.refusals.allow(l.remote.Addr().String()+reason, time.Now())
	if !ok {
		return
	}
	fields := l.fields(zap.String("reason", reason), clientIDField(l.req.clientID), unreported(missed))
	l.b.log.Warn("login refused", append(fields, more...)...)
}

// clientIDField is what a device calls itself. It may have made it up to be as long as possible.
func clientIDField(id string) zap.Field { return zap.String("client_id", id[:min(len(id), 64)]) }

// disconnectPacket is a DISCONNECT for an MQTT 5 device.
func (r *request) disconnectPacket(code packets.Code) []byte {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Disconnect},
		ProtocolVersion: r.version,
		ReasonCode:      code.Code,
		Properties:      packets.Properties{ReasonString: code.Reason},
		Mods:            packets.Mods{MaxSize: uint32(r.maxPacket), DisallowProblemInfo: r.quiet},
	}
	var buf bytes.Buffer
	_ = pk.DisconnectEncode(&buf) // a buffer takes everything
	return buf.Bytes()
}
