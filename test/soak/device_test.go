package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// device publishes and takes numbered messages of QoS 1, and comes and goes. It keeps what was not acknowledged and
// sends it again, as a client has to. Its codec is somebody else's.
type device struct {
	name, addr string
	dice       dice
	calm       *atomic.Bool // neither leave nor publish

	conn    net.Conn
	granted bool // it has a session with its subscription, which must be there from now on
	out     []*packets.PublishPacket
	id      uint16

	online atomic.Bool
	logins atomic.Int64
	mu     sync.Mutex // protects the following fields
	next   int        // the number of its next message
	acked  int
	got    order
}

// Ends of a connection.
var (
	errBroken = errors.New("the connection broke")
	errLeft   = errors.New("the device left")
)

const (
	lanUser, lanPassword = "lan", "s3cr3t"
	window               = 20
)

// run goes on until ctx ends. An error is something that bridged must not do.
func (d *device) run(ctx context.Context) error {
	for {
		err := d.session(ctx)
		d.online.Store(false)
		away := 50 * time.Millisecond
		switch {
		case errors.Is(err, errLeft):
			away = d.dice.between(0, 3*time.Second)
		case err != nil && !errors.Is(err, errBroken) && ctx.Err() == nil:
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if !wait(ctx, away) {
			return nil
		}
	}
}

// session is one connection.
func (d *device) session(ctx context.Context) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return errBroken
	}
	in, done := make(chan packets.ControlPacket, 64), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(in)
		for {
			p, err := packets.ReadPacket(conn)
			if err != nil {
				return
			}
			select {
			case in <- p:
			case <-done:
				return
			}
		}
	})
	defer reading.Wait()
	defer func() { _ = conn.Close() }()
	defer close(done)
	d.conn = conn
	if err := d.login(ctx, in); err != nil {
		return err
	}
	return d.stay(ctx, in)
}

func (d *device) login(ctx context.Context, in <-chan packets.ControlPacket) error {
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.ClientIdentifier, c.Keepalive = "MQTT", 4, d.name, 60
	c.UsernameFlag, c.Username, c.PasswordFlag, c.Password = true, lanUser, true, []byte(lanPassword)
	if err := d.send(c); err != nil {
		return err
	}
	var ack *packets.ConnackPacket
	select {
	case p, ok := <-in:
		if !ok {
			return errBroken
		}
		if ack, ok = p.(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
			return fmt.Errorf("the answer to CONNECT is %v", p)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	d.logins.Add(1)
	d.online.Store(true)
	if d.granted && !ack.SessionPresent {
		return errors.New("its session is gone")
	}
	if !d.granted {
		s := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		s.MessageID, s.Topics, s.Qoss = 65535, []string{"down/" + d.name}, []byte{1}
		if err := d.send(s); err != nil {
			return err
		}
	}
	for _, p := range d.out {
		p.Dup = ack.SessionPresent
		if err := d.send(p); err != nil {
			return err
		}
	}
	return nil
}

// stay publishes and takes messages until the connection ends or the device leaves.
func (d *device) stay(ctx context.Context, in <-chan packets.ControlPacket) error {
	pace := time.NewTicker(200 * time.Millisecond)
	defer pace.Stop()
	leave := time.NewTimer(d.dice.between(time.Second, 20*time.Second))
	defer leave.Stop()
	for {
		var err error
		select {
		case p, ok := <-in:
			if !ok {
				return errBroken
			}
			err = d.handle(p)
		case <-pace.C:
			err = d.publish()
		case <-leave.C:
			leave.Reset(d.dice.between(time.Second, 20*time.Second))
			if d.calm.Load() {
				continue
			}
			if d.dice.oneIn(2) {
				_ = d.send(packets.NewControlPacket(packets.Disconnect)) // it leaves in any case
			}
			return errLeft
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

func (d *device) send(p packets.ControlPacket) error {
	_ = d.conn.SetWriteDeadline(time.Now().Add(time.Minute)) // fails only on a closed connection, as writing does
	if err := p.Write(d.conn); err != nil {
		return errBroken
	}
	return nil
}

// publish publishes one or two messages, if the window allows it.
func (d *device) publish() error {
	if d.calm.Load() {
		return nil
	}
	for n := 1 + d.dice.IntN(2); n > 0 && len(d.out) < window; n-- {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		d.id = d.id%1000 + 1
		d.mu.Lock()
		p.TopicName, p.Payload, p.Qos, p.MessageID = "up/"+d.name, text(d.name, d.next), 1, d.id
		d.next++
		d.mu.Unlock()
		d.out = append(d.out, p)
		if err := d.send(p); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) handle(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.SubackPacket:
		if p.ReturnCodes[0] != 1 {
			return fmt.Errorf("SUBACK %v", p.ReturnCodes)
		}
		d.granted = true
	case *packets.PubackPacket:
		i := slices.IndexFunc(d.out, func(o *packets.PublishPacket) bool { return o.MessageID == p.MessageID })
		if i != 0 { // they come in order (MQTT 3.1.1, 4.6)
			return fmt.Errorf("PUBACK %d is for message %d of %d that wait", p.MessageID, i, len(d.out))
		}
		d.out = slices.Delete(d.out, 0, 1)
		d.mu.Lock()
		d.acked++
		d.mu.Unlock()
	case *packets.PublishPacket:
		d.mu.Lock()
		d.got.take(d.name, p.Payload)
		d.mu.Unlock()
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = p.MessageID
		return d.send(ack)
	case *packets.PingrespPacket:
	default:
		return fmt.Errorf("an unexpected %v", p)
	}
	return nil
}

// counts are how many messages it has published and were acknowledged, and how many it has taken.
func (d *device) counts() (sent, acked, got int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next, d.acked, d.got.next
}
