package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// link is a connection of a device: packets by somebody else's codec, and no client library, so that the test decides
// what is sent again.
type link struct {
	conn    net.Conn
	present bool                       // the session goes on
	in      chan packets.ControlPacket // closed when the connection is over
	done    chan struct{}
	wg      sync.WaitGroup
}

// errBroken is the end of a connection, which is what happens to devices here.
var errBroken = errors.New("the connection broke")

// A wrongError is what bridged must not do to a device.
type wrongError struct{ what string }

func (e *wrongError) Error() string { return e.what }

func wrong(format string, args ...any) error { return &wrongError{fmt.Sprintf(format, args...)} }

// dial connects a device.
func dial(ctx context.Context, addr, id string, clean bool) (*link, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, errBroken
	}
	l := &link{conn: conn, in: make(chan packets.ControlPacket, 64), done: make(chan struct{})}
	l.wg.Go(l.read)
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.ClientIdentifier, c.CleanSession = "MQTT", 4, id, clean
	c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, "lan", true, []byte(lanPassword)
	if err := l.login(ctx, c); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *link) login(ctx context.Context, c *packets.ConnectPacket) error {
	if err := l.send(c); err != nil {
		return err
	}
	select {
	case p, ok := <-l.in:
		ack, isAck := p.(*packets.ConnackPacket)
		switch {
		case !ok:
			return errBroken
		case !isAck || ack.ReturnCode != 0:
			return wrong("the answer to CONNECT is %v", p)
		case ack.SessionPresent && c.CleanSession:
			return wrong("a clean session is said to go on")
		}
		l.present = ack.SessionPresent
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *link) read() {
	defer close(l.in)
	for {
		p, err := packets.ReadPacket(l.conn)
		if err != nil {
			return
		}
		select {
		case l.in <- p:
		case <-l.done:
			return
		}
	}
}

// send writes a packet.
func (l *link) send(p packets.ControlPacket) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience)) // it fails only on a closed connection, as writing will
	if err := p.Write(l.conn); err != nil {
		return errBroken
	}
	return nil
}

// answer sends an acknowledgement.
func (l *link) answer(kind byte, id uint16) error {
	head := kind << 4
	if kind == packets.Pubrel {
		head |= 2
	}
	if _, err := l.conn.Write([]byte{head, 2, byte(id >> 8), byte(id)}); err != nil {
		return errBroken
	}
	return nil
}

// goodbye says DISCONNECT.
func (l *link) goodbye() { _ = l.send(packets.NewControlPacket(packets.Disconnect)) }

// close closes the connection and waits.
func (l *link) close() {
	close(l.done)
	_ = l.conn.Close()
	l.wg.Wait()
}

// text is the payload of a device's message: its number, the device, and some more, so that sizes vary.
func text(device string, n int) []byte {
	filler := strings.Repeat(strconv.Itoa(n%10), n*37%300)
	return fmt.Appendf(nil, "%d %s %s", n, device, filler)
}

// number is the reverse of text.
func number(device string, payload []byte) (int, error) {
	head, _, _ := strings.Cut(string(payload), " ")
	n, err := strconv.Atoi(head)
	if err != nil || string(payload) != string(text(device, n)) {
		return 0, wrong("%s: not one of its messages: %.80q", device, payload)
	}
	return n, nil
}

// order is what arrived of one device's numbered messages, which have to come in order. A message may come again, where
// its acknowledgement was lost.
type order struct {
	device  string
	next    int              // the one after the highest
	missing map[int]struct{} // before next
	all     int
	links   []came
	strange []string
}

// came is what came on one connection.
type came struct {
	link    int64
	numbers []int
}

// back is how often an older one came after another, or the same.
func (c *came) back() (n int) {
	for i := 1; i < len(c.numbers); i++ {
		if c.numbers[i] <= c.numbers[i-1] {
			n++
		}
	}
	return n
}

// follows returns the first number that cannot have come if all came in the order in which they were sent.
func (c *came) follows(sent []int) (n int, ok bool) {
	for _, n := range c.numbers {
		i := slices.Index(sent, n)
		if i < 0 {
			return n, false
		}
		sent = sent[i+1:]
	}
	return 0, true
}

// take takes a message that came on a connection: which one, by a number that grows.
func (o *order) take(n int, link int64) {
	if _, late := o.missing[n]; late {
		o.strange = append(o.strange, fmt.Sprintf("%d came late", n))
		delete(o.missing, n)
	}
	for ; o.next <= n; o.next++ {
		if o.next == n {
			continue
		}
		if o.missing == nil {
			o.missing = make(map[int]struct{})
		}
		o.missing[o.next] = struct{}{}
		o.strange = append(o.strange, fmt.Sprintf("%d came before %d", n, o.next))
	}
	if len(o.links) == 0 || o.links[len(o.links)-1].link != link {
		o.links = append(o.links, came{link: link})
	}
	l := &o.links[len(o.links)-1]
	l.numbers = append(l.numbers, n)
	o.all++
}

// check tells what is wrong with it.
//
// bridged sends what it holds in order, and begins again on a new connection only. So on one connection an older
// message comes after a newer one only where the sender had begun again, which it does with each of its own
// connections, while bridged is killed and the cloud is away. Several such beginnings may lie behind each other in a
// lane, more of them on a busy machine, where less is acknowledged in between; and all of them come once more, on
// another connection, if their acknowledgements are lost. Therefore each connection is looked at alone.
func (o *order) check(total int, s source) error {
	var errs []error
	for _, s := range o.strange {
		errs = append(errs, fmt.Errorf("%s: %s", o.device, s))
	}
	if o.next != total || len(o.missing) > 0 {
		errs = append(errs, fmt.Errorf("%s: messages are lost: %v of %d, and those after %d",
			o.device, slices.Sorted(maps.Keys(o.missing)), total, o.next-1))
	}
	for i := range o.links {
		l := &o.links[i]
		n, ok := l.follows(s.sent)
		switch back := l.back(); {
		case s.sent != nil && !ok:
			errs = append(errs, fmt.Errorf("%s: on one connection %d came where it had not been sent: %s came of %s",
				o.device, n, middleOut(fmt.Sprint(l.numbers)), middleOut(fmt.Sprint(s.sent))))
		case s.sent == nil && back > s.repeats:
			errs = append(errs, fmt.Errorf("%s: on one connection it went back to an older message %d times, and the "+
				"sender had %d times: %s", o.device, back, s.repeats, middleOut(fmt.Sprint(l.numbers))))
		}
	}
	return errors.Join(errs...)
}

// source is what is known of how the messages were sent.
type source struct {
	sent    []int // each attempt, in order; nil if they are not known
	repeats int   // then, how often the sender may have begun again with a message that was not acknowledged
}
