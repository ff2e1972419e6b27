package cloudsim

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// What parses is exactly what its parts say.
func FuzzAliyunID(f *testing.F) {
	for _, v := range aliyunVectors {
		f.Add(v.clientID)
	}
	for _, s := range []string{"", "|", "||", "a||", "a|b=c|", "a|b=c,|", "a|=|", "a|b=c|d", "a|b==|", "a|b=,b=|"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseAliyunID(s)
		if err != nil {
			return
		}
		var parts []string
		for _, p := range id.params {
			parts = append(parts, p.key+"="+p.value)
		}
		if again := id.id + "|" + strings.Join(parts, ",") + "|"; again != s || id.id == "" {
			t.Fatalf("%q parsed as %+v", s, id)
		}
	})
}

func FuzzTencentUser(f *testing.F) {
	for _, v := range tencentVectors {
		f.Add(v.username)
	}
	for _, s := range []string{
		"", ";;;", "a;1;b;1", "a;1;b;01", "a;1;b;9223372036854775808", "a;1;b;-1", "a;+1;b;1", "a;1;b;1;",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseTencentUser(s)
		if err != nil {
			return
		}
		again := fmt.Sprintf("%s;%s;%s;%d", u.clientID, u.sdkAppID, u.connID, u.expiry)
		if again != s || u.expiry < 0 || u.clientID == "" || u.connID == "" || u.sdkAppID == "" {
			t.Fatalf("%q parsed as %+v", s, u)
		}
	})
}

// A packet that the reader takes is what its fields say, to the last byte, and nothing panics.
func FuzzPacketReader(f *testing.F) {
	will := withUser(login("d", true), "u", "p")
	will.WillFlag, will.WillTopic, will.WillMessage, will.WillQos = true, "w", []byte("m"), 1
	for _, p := range []packets.ControlPacket{
		login("d", true), will, publishPacket("a/b", "payload", 0, 0), dup(publishPacket("a", "", 2, 7)),
		subscribePacket(1, "a", 0, "b/#", 2), unsubscribePacket(2, "a", "b"), idPacket(packets.Puback, 1),
		idPacket(packets.Pubrec, 2), idPacket(packets.Pubrel, 3), idPacket(packets.Pubcomp, 4),
		packets.NewControlPacket(packets.Pingreq), packets.NewControlPacket(packets.Disconnect),
	} {
		f.Add(encode(p))
		f.Add(append(encode(p), 0))
		f.Add(encode(p)[:len(encode(p))-1])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rest := bytes.NewReader(b)
		r := packetReader{r: rest, limit: 1 << 16}
		p, err := r.next()
		if err != nil {
			return
		}
		if c, ok := p.(*packets.ConnectPacket); ok && (c.ProtocolVersion != version || c.ReservedBit != 0 ||
			!c.WillFlag && (c.WillQos != 0 || c.WillRetain)) {
			return // refused by whoever asked
		}
		read := b[:len(b)-rest.Len()]
		body := func(b []byte) []byte { // without the length, which may be written in more bytes than needed
			n := 1
			for b[n]&0x80 != 0 {
				n++
			}
			return b[n+1:]
		}
		if again := encode(p); again[0] != read[0] || !bytes.Equal(body(again), body(read)) {
			t.Fatalf("% x was taken for %v, % x", read, p, again)
		}
	})
}
