package main

import (
	"errors"
	"fmt"
	"net"
)

var errRefused = errors.New("a login was refused")

// device is a device: it logs in, subscribes, and publishes a message. When that is acknowledged it is ready.
type device struct {
	*end
	up, down *flow
	ready    bool
}

func deviceName(device uint32) string { return fmt.Sprintf("device-%05d", device) }

// dial connects the device.
func (r *run) dial(d *device) error {
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return err
	}
	d.end = newEnd(r, &conn{Conn: c})
	r.track(c)
	if err := d.send(appendConnect(nil, deviceName(d.up.id), uint16(r.c.keepalive.Seconds()))); err != nil {
		return err
	}
	r.running.Go(func() { r.ended(d.serve(d.handle, d.flush)) })
	return nil
}

func (d *device) handle(head byte, body []byte) error {
	switch head & 0xf0 {
	case connack:
		if len(body) != 2 || body[1] != 0 {
			return errRefused
		}
		return d.send(appendSubscribe(nil, d.down.topic))
	case suback:
		return d.publish(d.up, 1)
	case puback:
		if !d.ready {
			d.ready = true
			d.r.ready.Add(1)
		}
	}
	return d.packet(head, body)
}

var ping = []byte{pingreq, 0}

// ping sends PINGREQ.
func (d *device) ping() error {
	d.sending.Lock()
	defer d.sending.Unlock()
	return d.send(ping)
}
