package demo

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// session is one connection: it returns why it ended.
func (d *device) session(ctx context.Context) error {
	conn, err := (&net.Dialer{Timeout: lanTimeout}).DialContext(ctx, "tcp", d.addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the reader finds out
	defer func() { _ = conn.Close() }()                         // it is over either way
	if err := d.login(conn); err != nil {
		return err
	}
	d.tell(online, good, "connected over plain TCP, logged in")
	if err := d.begin(conn); err != nil {
		return err
	}
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return err
		}
		if err := d.handle(p); err != nil {
			return err
		}
	}
}

func (d *device) login(conn net.Conn) error {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.ClientIdentifier = "MQTT", 4, d.name
	p.UsernameFlag, p.Username = true, d.name
	p.PasswordFlag, p.Password = true, []byte(d.password)
	if err := conn.SetDeadline(time.Now().Add(lanTimeout)); err != nil {
		return err
	}
	if err := p.Write(conn); err != nil {
		return err
	}
	got, err := packets.ReadPacket(conn)
	if err != nil {
		return err
	}
	if ack, ok := got.(*packets.ConnackPacket); !ok || ack.ReturnCode != packets.Accepted {
		return fmt.Errorf("the login was answered with %s", got)
	}
	return conn.SetDeadline(time.Time{})
}

// begin subscribes, and sends what was not acknowledged on an earlier connection, or had none to be sent on.
func (d *device) begin(conn net.Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn = conn
	d.lan++
	sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	sub.MessageID, sub.Topics, sub.Qoss = d.nextIDLocked(), []string{d.command}, []byte{1}
	if err := d.writeLocked(sub); err != nil {
		return err
	}
	for _, p := range d.inFlight {
		if err := d.transmitLocked(p); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) nextIDLocked() uint16 {
	for {
		d.lastID++
		if _, used := d.numbers[d.lastID]; d.lastID != 0 && !used {
			return d.lastID
		}
	}
}

func (d *device) writeLocked(p packets.ControlPacket) error {
	if err := d.conn.SetWriteDeadline(time.Now().Add(lanTimeout)); err != nil {
		return err
	}
	return p.Write(d.conn)
}
