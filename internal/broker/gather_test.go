package broker

import (
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"bridged/internal/lane"
	"bridged/internal/mqtt"
)

// gathering is a cloud side that counts in how many pieces things come.
type gathering struct {
	*cloud
	flushes, runs atomic.Int64
}

func (g *gathering) Flush()                               { g.flushes.Add(1) }
func (g *gathering) Settled(t mqtt.Token, o lane.Outcome) { downSource{g.cloud}.Settled(t, o) }
func (g *gathering) SettledAll()                          { g.runs.Add(1) }
func (g *gathering) Room()                                {}

// What comes from the device in one piece goes to the cloud in one piece.
func TestGathersUp(t *testing.T) {
	const n = 16
	r, cl := one(t)
	cl.manual = true
	g := &gathering{cloud: cl}
	cl.detach()
	cl.up.Attach(g, lane.Window{}).Start()
	c, _ := r.connect(4, "dev")
	var b []byte
	for id := range uint16(n) {
		b = append(b, encode(t, &packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, TopicName: "t", PacketID: id + 1,
		})...)
	}
	c.write(b)
	cl.receive(n)
	until(t, "Flush", func() bool { return g.flushes.Load() > 0 })
	if got := g.flushes.Load(); got != 1 {
		t.Errorf("the messages came in %d pieces, want one", got)
	}

	for i := range n {
		cl.down.Offer(mqtt.Message{Topic: "t", QoS: 1}, g, mqtt.Token(i+1))
	}
	b = nil
	for range n {
		b = appendAck(b, puback, c.expect(packets.Publish).PacketID)
	}
	c.write(b)
	until(t, "acknowledgements", func() bool {
		cl.mu.Lock()
		defer cl.mu.Unlock()
		return len(cl.settled) == n
	})
	until(t, "the end of a run", func() bool { return g.runs.Load() > 0 })
	if got := g.runs.Load(); got != 1 {
		t.Errorf("the acknowledgements came in %d pieces, want one", got)
	}
}

// A link that waits for room in the up lane does not keep the lane from making some.
func TestGathersAndWaits(t *testing.T) {
	const n = 3 * maxParked
	r := start(t, options{up: lane.Config{MaxMessages: 1}}, plain("dev"))
	cl := r.clouds["dev"]
	cl.manual = true
	c, _ := r.connect(4, "dev")
	var b []byte
	for id := range uint16(n) {
		b = append(b, encode(t, &packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, TopicName: "t", PacketID: id + 1,
		})...)
	}
	c.write(b)
	for i := range n {
		cl.receive(i + 1)
		cl.done(i)
		c.acked(packets.Puback, uint16(i+1))
	}
}

// counted counts calls of Write.
type counted struct {
	net.Conn
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes++
	return c.Conn.Write(p)
}

// What is ready together for the device goes in one piece.
func TestGathersDown(t *testing.T) {
	const n = 16
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	c := dial(t, listener.Addr())
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLink(&Broker{stall: patience}, conn.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.nc.Wait()
	defer func() { _ = l.nc.Close() }()
	device := &counted{Conn: l.nc}
	l.Conn = device
	up, down := lane.New(lane.Config{Hold: true}), lane.New(lane.Config{Hold: true})
	l.req.version, l.req.receiveMax = 4, 100
	l.session = newSession(up)
	l.session.connected(l)
	l.reader = down.Attach(l, lane.Window{})
	l.reader.Start()

	down.Cork()
	for i := range n {
		down.Offer(mqtt.Message{Topic: "t", QoS: 1}, &willSource{}, mqtt.Token(i+1))
	}
	down.Uncork()
	if device.writes != 1 {
		t.Errorf("messages were sent with %d writes, want one", device.writes)
	}
	for range n {
		c.expect(packets.Publish)
	}

	cloud := newCloud(t, lane.Config{}, lane.Config{})
	cloud.manual = true
	reader := up.Attach(cloud, lane.Window{})
	reader.Start()
	for id := range uint16(n) {
		m := mqtt.Message{Topic: "t", QoS: 1}
		l.session.mu.Lock()
		_, token := l.session.in.Publish(id+1, false, &m)
		l.session.mu.Unlock()
		up.Offer(m, l.session, token)
	}
	device.writes = 0
	reader.Cork()
	got := cloud.receive(n)
	slices.Reverse(got)
	for _, d := range got {
		reader.Done(d.Seq)
	}
	reader.Uncork()
	if device.writes != 1 {
		t.Errorf("acknowledgements were sent with %d writes, want one", device.writes)
	}
	for id := range uint16(n) {
		c.acked(packets.Puback, id+1)
	}
}
