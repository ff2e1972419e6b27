package broker

import (
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi hands packets over. It must stay the only one: mochi asks all hooks and takes any one's yes.
type hook struct{ mochi.HookBase }

// ID names the hook.
func (*hook) ID() string { return "bridged" }

// Provides lists the methods below.
func (*hook) Provides(b byte) bool {
	switch b {
	case mochi.OnPacketRead, mochi.OnPacketEncode, mochi.OnConnectAuthenticate, mochi.OnSessionEstablish,
		mochi.OnSessionEstablished:
		return true
	}
	return false
}

func linkOf(cl *mochi.Client) *link {
	l, ok := cl.Net.Conn.(*link)
	if !ok {
		panic("broker: mochi serves a connection that is no link")
	}
	return l
}

// inert is a packet that mochi does nothing about.
var inert = packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}

// OnPacketRead handles CONNECT before mochi does, which goes on with it, without what it would do itself. The only
// error that counts for it is packets.ErrRejectPacket, which ends the connection.
func (*hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	l := linkOf(cl)
	l.ours = true
	pk, err := l.packet(cl, pk)
	l.ours = false
	return pk, err
}

// OnConnectAuthenticate confirms the login that the CONNECT passed in OnPacketRead.
func (*hook) OnConnectAuthenticate(cl *mochi.Client, _ packets.Packet) bool {
	return linkOf(cl).device != nil
}

// OnSessionEstablish comes before CONNACK.
func (*hook) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	l := linkOf(cl)
	l.ours = true
	l.device.enter(l)
	l.ours = false
}

// OnPacketEncode completes the CONNACK.
func (*hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	if l := linkOf(cl); pk.FixedHeader.Type == packets.Connack && l.session != nil {
		l.connack(&pk)
	}
	return pk
}

// OnSessionEstablished comes after CONNACK.
func (*hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	l := linkOf(cl)
	l.ours = true
	l.begin()
	l.ours = false
}

// packet handles CONNECT and returns what is left of it for mochi.
func (l *link) packet(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if l.device == nil && !l.over() {
		err := l.connect(cl, &pk) // mochi lets nothing else pass first
		return pk, err
	}
	return inert, l.received(&pk)
}

var pingresp = []byte{packets.Pingresp << 4, 0}

// received handles a packet after CONNECT.
func (l *link) received(pk *packets.Packet) error {
	if l.over() { // what is still in the read buffer is not looked at
		return packets.ErrRejectPacket
	}
	switch pk.FixedHeader.Type {
	case packets.Pingreq:
		l.send(pingresp)
	case packets.Publish:
		return l.publish(pk)
	case packets.Pubrel:
		return l.pubrel(pk.PacketID)
	case packets.Puback:
		l.puback(pk.PacketID)
	case packets.Pubrec:
		l.pubrec(pk)
	case packets.Pubcomp:
		l.pubcomp(pk.PacketID)
	case packets.Subscribe:
		return l.subscribe(pk)
	case packets.Unsubscribe:
		return l.unsubscribe(pk)
	case packets.Disconnect:
		return l.disconnect(pk)
	case packets.Connect:
		return l.violation(packets.ErrProtocolViolationSecondConnect)
	default: // what only servers send, and AUTH without an authentication method
		return l.violation(packets.ErrProtocolViolation)
	}
	return nil
}
