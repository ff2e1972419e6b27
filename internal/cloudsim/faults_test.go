package cloudsim

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

func TestRefuseLogins(t *testing.T) {
	c := generic(t)
	c.RefuseLogins("d", 5)
	dialRaw(t, c, c.WSURL()).connect(login("d", true), 5)
	online(t, c, "other", true)
	c.RefuseLogins(All, 3)
	dialRaw(t, c, c.WSURL()).connect(login("other", true), 3)
	dialRaw(t, c, c.WSURL()).connect(login("d", true), 5)
	if f := c.LoginFailures(); len(f) != 3 || f[0].Device != "d" || f[0].Code != 5 || f[0].Reason != "fault" {
		t.Errorf("login failures %+v", f)
	}
	c.RefuseLogins(All, 0) // ends that of the device too
	online(t, c, "d", true)
	noViolations(t, c)
}

func TestRefuseFilter(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	codes := func() string {
		r.send(subscribePacket(1, "a", 1, "b", 1, "c", 1))
		return fmt.Sprint(expect[*packets.SubackPacket](r).ReturnCodes)
	}
	c.RefuseFilter("d", "b")
	c.RefuseFilter(All, "c")
	c.RefuseFilter("other", "a")
	if got := codes(); got != "[1 128 128]" {
		t.Errorf("granted %s", got)
	}
	if err := c.Publish("d", "b", nil, 1); !isErr(err, ErrNotSubscribed) {
		t.Errorf("publish to a refused filter: %v", err)
	}
	c.AllowFilter("d", "b")
	if got := codes(); got != "[1 1 128]" {
		t.Errorf("granted %s", got)
	}
	noViolations(t, c)
}

func TestDrop(t *testing.T) {
	for name, tt := range map[string]struct {
		how  Cut
		want func(error) bool
	}{
		"close": {CutClose, func(err error) bool { return websocket.IsCloseError(err, 1006) }},
		"reset": {CutReset, func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
		"frame": {CutCloseFrame, func(err error) bool { return websocket.IsCloseError(err, 1001) }},
	} {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				c := generic(t)
				url := c.WSURL()
				if scheme == "wss" {
					url = c.WSSURL()
				}
				r := dialRaw(t, c, url)
				r.connect(login("d", true), 0)
				if n := c.Drop("nobody", tt.how); n != 0 {
					t.Errorf("cut %d connections of nobody", n)
				}
				if n := c.Drop("d", tt.how); n != 1 {
					t.Errorf("cut %d connections", n)
				}
				if c.Online("d") {
					t.Error("online after Drop")
				}
				if _, err := packets.ReadPacket(r.in); !tt.want(err) {
					t.Errorf("the client sees %v", err)
				}
				if log := c.Connections("d"); len(log) != 1 || log[0].Reason != EndFault {
					t.Errorf("connections %+v", log)
				}
				noViolations(t, c)
			})
		}
	}
}

func TestDropAfter(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	other := online(t, c, "e", true)
	c.DropAfter("d", 3, 2, CutReset)
	for round := range 3 {
		r.send(publishPacket("x", "1", 1, 1), publishPacket("x", "2", 0, 0))
		must(t, waitPayloads(t, c, strings.Repeat(" 1 2", round+1)[1:]))
		r.send(publishPacket("x", "3", 1, 2))
		if round < 2 {
			r.ends()
			r = online(t, c, "d", true)
		}
	}
	must(t, waitPayloads(t, c, "1 2 1 2 1 2 3")) // twice, then no more
	other.pinged()
	if log := c.Connections("d"); len(log) != 3 || log[1].Reason != EndFault || log[2].Reason != "" {
		t.Errorf("connections %+v", log)
	}
	c.DropAfter(All, 1, -1, CutClose)
	for range 3 {
		other.send(packets.NewControlPacket(packets.Pingreq))
		other.ends()
		other = online(t, c, "e", true)
	}
	c.DropAfter(All, 0, 0, CutClose)
	other.pinged()
	r.send(packets.NewControlPacket(packets.Pingreq))
}

func waitPayloads(t *testing.T, c *Cloud, want string) error {
	t.Helper()
	err := c.WaitUntil(ctx(t), func() bool { return payloads(c.Received()) == want })
	if err != nil {
		err = fmt.Errorf("received %q, want %q: %w", payloads(c.Received()), want, err)
	}
	return err
}

func TestDownAndUp(t *testing.T) {
	c := generic(t)
	ws, wss := c.WSURL(), c.WSSURL()
	r := online(t, c, "d", false)
	r.subscribe("x", 1)
	c.Down()
	if s, ok := c.Session("d"); !ok || s.Connected {
		t.Errorf("after Down: %+v, %t", s, ok)
	}
	r.ends()
	for _, url := range []string{ws, wss} {
		_, resp, err := dialer(c).Dial(url, nil)
		if resp != nil {
			must(t, resp.Body.Close())
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial %s: %v", url, err)
		}
	}
	must(t, c.Publish("d", "x", []byte("m"), 1))
	c.Down() // again: nothing
	must(t, c.Up())
	must(t, c.Up())
	if c.WSURL() != ws || c.WSSURL() != wss {
		t.Errorf("moved from %s, %s to %s, %s", ws, wss, c.WSURL(), c.WSSURL())
	}
	r = dialRaw(t, c, wss)
	if !r.connect(login("d", false), 0) {
		t.Error("the session is gone")
	}
	r.expectPublish("1 x=m 1")
	if log := c.Connections("d"); log[0].Reason != EndDown {
		t.Errorf("ended for %q", log[0].Reason)
	}
	c.Close()
	if err := c.Up(); err == nil {
		t.Error("up after Close")
	}
}

func TestAnswerUpgrade(t *testing.T) {
	c := generic(t)
	for _, status := range []int{401, 403, 404, 429, 503} {
		must(t, c.AnswerUpgrade(status, 1))
		_, resp, err := dialer(c).Dial(c.WSURL(), nil)
		if !errors.Is(err, websocket.ErrBadHandshake) {
			t.Fatalf("%d: %v", status, err)
		}
		must(t, resp.Body.Close())
		if resp.StatusCode != status {
			t.Errorf("status %d, want %d", resp.StatusCode, status)
		}
		online(t, c, "d", true) // once
	}
	must(t, c.AnswerUpgrade(503, -1))
	for range 3 {
		_, resp, err := dialer(c).Dial(c.WSSURL(), nil)
		if err == nil || resp.StatusCode != 503 {
			t.Fatalf("%v", err)
		}
		must(t, resp.Body.Close())
	}
	must(t, c.AnswerUpgrade(0, 0))
	online(t, c, "d", true)
	if f := c.LoginFailures(); len(f) != 8 || f[0].Status != 401 || f[7].Status != 503 || !f[7].Secure {
		t.Errorf("login failures %+v", f)
	}
	for _, bad := range []int{0, 101, 999} {
		if err := c.AnswerUpgrade(bad, 1); err == nil {
			t.Errorf("status %d accepted", bad)
		}
	}
}

// silent expects no byte from a connection for a while: the one thing here that only time can show.
func silent(t *testing.T, conn net.Conn) {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(150*time.Millisecond)))
	var b [1]byte
	n, err := conn.Read(b[:])
	var timeout net.Error
	if n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("%d bytes, %v", n, err)
	}
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
}

func TestStallUpgrade(t *testing.T) {
	c := generic(t)
	c.StallUpgrade(true)
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(c.WSURL(), "ws://"), "/"))
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	value(io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Protocol: mqtt\r\n\r\n"))(t)
	silent(t, conn)
	c.StallUpgrade(false)
	line := make([]byte, len("HTTP/1.1 101"))
	value(io.ReadFull(conn, line))(t)
	if string(line) != "HTTP/1.1 101" {
		t.Errorf("answered with %q", line)
	}
}

func TestStallTLS(t *testing.T) {
	c := generic(t)
	c.StallTLS(true)
	short := dialer(c)
	short.HandshakeTimeout = 150 * time.Millisecond
	_, _, err := short.Dial(c.WSSURL(), nil)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("dial: %v", err)
	}
	online(t, c, "d", true) // ws goes on
	c.Heal()
	dialRaw(t, c, c.WSSURL()).connect(login("d", true), 0)
}

func TestStallConnack(t *testing.T) {
	c := generic(t)
	c.StallConnack("d", true)
	r := dialRaw(t, c, c.WSURL())
	r.send(login("d", true))
	silent(t, r.ws.NetConn())
	online(t, c, "e", true)
	if c.Online("d") {
		t.Error("online")
	}
	c.StallConnack("d", false)
	if ack := expect[*packets.ConnackPacket](r); ack.ReturnCode != 0 {
		t.Errorf("CONNACK %d", ack.ReturnCode)
	}
}

func TestStallReads(t *testing.T) {
	c := generic(t)
	r, e := online(t, c, "d", true), online(t, c, "e", true)
	r.subscribe("x", 1)
	c.StallReads("d", true)
	r.send(publishPacket("up", "m", 1, 1))
	must(t, c.Publish("d", "x", []byte("down"), 1)) // still sent
	r.expectPublish("1 x=down 1")
	silent(t, r.ws.NetConn())
	e.pinged()
	if n := len(c.Received()); n != 0 {
		t.Errorf("received %d messages", n)
	}
	c.StallReads(All, false)
	expect[*packets.PubackPacket](r)
	if got := payloads(c.Received()); got != "m" {
		t.Errorf("received %q", got)
	}
}

func TestWithholdAcks(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", false)
	c.WithholdAcks("d")
	r.send(publishPacket("x", "1", 1, 1), publishPacket("x", "2", 2, 2), publishPacket("x", "3", 1, 3))
	r.pinged()
	if got := payloads(c.Received()); got != "1 2 3" {
		t.Errorf("received %q", got)
	}
	if s, _ := c.Session("d"); s.Withheld == 0 {
		t.Error("nothing is withheld")
	}
	if n := c.ReleaseAcks("other"); n != 0 {
		t.Errorf("released %d of another device", n)
	}
	r.pinged()
	if n := c.ReleaseAcks("d"); n != 1 {
		t.Errorf("released %d", n)
	}
	for i, want := range []uint16{1, 2, 3} {
		if id := r.next().Details().MessageID; id != want {
			t.Errorf("answer %d is for %d", i, id)
		}
	}
	r.send(publishPacket("x", "4", 1, 1)) // at once again, the identifier is free
	expect[*packets.PubackPacket](r)

	// Withheld acknowledgements are lost with their connection.
	c.WithholdAcks(All)
	r.send(publishPacket("x", "5", 1, 9))
	must(t, waitPayloads(t, c, "1 2 3 4 5"))
	c.Drop("d", CutReset)
	r = dialRaw(t, c, c.WSURL())
	r.connect(login("d", false), 0)
	if n := c.ReleaseAcks(All); n != 0 {
		t.Errorf("released %d", n)
	}
	r.send(dup(publishPacket("x", "5", 1, 9)))
	expect[*packets.PubackPacket](r)
	if got := c.Received(); !got[len(got)-1].Redelivery {
		t.Errorf("last %+v", got[len(got)-1])
	}
	noViolations(t, c)
}

func TestWithholdSubacks(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	c.WithholdSubacks("d")
	r.send(subscribePacket(1, "a", 1), subscribePacket(2, "b", 1), unsubscribePacket(3, "a"))
	r.pinged()
	if s, _ := c.Session("d"); len(s.Subs) != 1 || s.Subs["b"] != 1 {
		t.Errorf("subscriptions %v", s.Subs)
	}
	if n := c.ReleaseSubacks(All); n != 1 {
		t.Errorf("released %d", n)
	}
	expect[*packets.SubackPacket](r)
	expect[*packets.SubackPacket](r)
	expect[*packets.UnsubackPacket](r)
	noViolations(t, c)
}

func TestDelay(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	const delay = 150 * time.Millisecond
	c.Delay("d", delay)
	begin := time.Now()
	r.send(publishPacket("x", "", 1, 1), publishPacket("x", "", 1, 2))
	expect[*packets.PubackPacket](r)
	if waited := time.Since(begin); waited < delay {
		t.Errorf("answered after %s", waited)
	}
	c.Delay("d", 0)
	r.send(publishPacket("x", "", 1, 3)) // does not overtake
	for _, want := range []uint16{2, 3} {
		if id := expect[*packets.PubackPacket](r).MessageID; id != want {
			t.Errorf("PUBACK %d, want %d", id, want)
		}
	}
	c.Delay(All, time.Hour) // Close does not wait for it
	r.send(packets.NewControlPacket(packets.Pingreq))
	c.Delay("d", delay) // neither does a refused login end before its answer
	c.RefuseLogins("e", 5)
	c.Delay(All, 0)
	c.Delay("e", delay)
	begin = time.Now()
	dialRaw(t, c, c.WSURL()).connect(login("e", true), 5)
	if waited := time.Since(begin); waited < delay {
		t.Errorf("refused after %s", waited)
	}
}

func TestLoseAcks(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", false)
	c.LoseAcks("d", 3)
	r.send(publishPacket("x", "1", 1, 1), publishPacket("x", "q", 0, 0), publishPacket("x", "2", 2, 2))
	r.pinged()
	r.send(publishPacket("x", "3", 1, 3))
	if rest := r.ends(); len(rest) > 0 {
		t.Errorf("answered with %v", rest)
	}
	if got := payloads(c.Received()); got != "1 q 2 3" {
		t.Errorf("received %q", got)
	}
	r = dialRaw(t, c, c.WSURL())
	r.connect(login("d", false), 0)
	r.send(dup(publishPacket("x", "1", 1, 1)), dup(publishPacket("x", "2", 2, 2)), dup(publishPacket("x", "3", 1, 3)))
	expect[*packets.PubackPacket](r)
	expect[*packets.PubrecPacket](r)
	expect[*packets.PubackPacket](r)
	if got := payloads(c.Received()); got != "1 q 2 3 1 3" { // QoS 2 once
		t.Errorf("received %q", got)
	}
	c.LoseAcks(All, 1) // and once more
	r.send(publishPacket("x", "4", 1, 4))
	if rest := r.ends(); len(rest) > 0 {
		t.Errorf("answered with %v", rest)
	}
	noViolations(t, c)
}

func TestCutInFrame(t *testing.T) {
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			c := generic(t)
			r := dialRaw(t, c, map[string]string{"ws": c.WSURL(), "wss": c.WSSURL()}[scheme])
			r.connect(login("d", true), 0)
			if n := c.CutInFrame("d"); n != 1 || c.Online("d") {
				t.Errorf("cut %d, online %t", n, c.Online("d"))
			}
			_, frame, err := r.ws.NextReader()
			must(t, err)
			got, err := io.ReadAll(frame)
			if err == nil || len(got) != 50 || got[0] != 0x30 {
				t.Errorf("%d bytes, then %v", len(got), err)
			}
		})
	}
}

func TestSendBytes(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	if n := c.SendBytes("d", []byte{0xf0, 0xff}, true); n != 1 {
		t.Errorf("sent to %d", n)
	}
	kind, got, err := r.ws.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage || string(got) != "\xf0\xff" {
		t.Errorf("%d, % x, %v", kind, got, err)
	}
	c.SendBytes("d", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), false)
	if _, _, err := r.ws.ReadMessage(); err == nil || websocket.IsUnexpectedCloseError(err) {
		t.Errorf("read: %v", err)
	}
}

func TestHeal(t *testing.T) {
	c := generic(t)
	r := online(t, c, "d", true)
	c.WithholdAcks(All)
	c.WithholdSubacks("d")
	c.LoseAcks("other", 1)
	c.RefuseLogins(All, 5)
	c.StallUpgrade(true)
	must(t, c.AnswerUpgrade(http.StatusTeapot, -1))
	c.DropAfter("e", 1, -1, CutReset)
	r.send(publishPacket("x", "", 1, 1), subscribePacket(2, "x", 1))
	r.pinged()
	c.Heal()
	expect[*packets.PubackPacket](r)
	expect[*packets.SubackPacket](r)
	online(t, c, "e", true).pinged()
}

// A client that does not read delays nobody else, and what is kept for it is bounded.
func TestStuckClient(t *testing.T) {
	c := start(t, Options{Kind: Generic, Window: 1000})
	stuck, lively := online(t, c, "stuck", true), online(t, c, "lively", true)
	stuck.subscribe("x", 1)
	lively.subscribe("x", 1)
	payload := make([]byte, 64<<10)
	dropped := func() int64 { return c.Totals().DroppedQoS0 }
	for begin := time.Now(); dropped() == 0; {
		must(t, c.Publish("lively", "x", payload, 1))
		lively.send(idPacket(packets.Puback, expect[*packets.PublishPacket](lively).MessageID))
		if err := c.Publish("stuck", "x", payload, 0); err != nil && !isErr(err, ErrQueueFull) {
			t.Fatal(err)
		}
		if time.Since(begin) > patience {
			t.Fatal("nothing was dropped")
		}
	}
	lively.pinged()
	if n := c.Drop("stuck", CutCloseFrame); n != 1 || c.Online("stuck") {
		t.Errorf("cut %d", n)
	}
}
