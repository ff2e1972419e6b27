package cloudsim

import (
	"errors"
	"net/http"
	"time"
)

// All stands for every device where a method takes one. A fault that was set for All and one that was set for a device
// both hold, but of two calls to LoseAcks or DropAfter the later; ending a fault for All ends it for every device.
//
// A method that acts at once returns how many connections it met, so that a test notices when it met none.
const All = ""

// Cut is how a connection is cut.
type Cut int

const (
	// CutClose closes the TCP connection without a WebSocket close frame.
	CutClose Cut = iota
	// CutReset resets the TCP connection (RST).
	CutReset
	// CutCloseFrame sends a WebSocket close frame (1001, going away) and closes.
	CutCloseFrame
)

func (c *Cloud) setFault(device string, end bool, change func(*fault)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.set(device, end, change)
}

// Heal ends every fault but Down and sends what was withheld.
func (c *Cloud) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	serial := c.faults.serial
	c.faults.wake()
	c.faults = faults{serial: serial}
	for cn := range c.conns {
		cn.releaseLocked(true, true)
	}
}

// Down closes the listeners and cuts every connection, as an outage does. When it returns every session is offline.
func (c *Cloud) Down() {
	c.life.Lock()
	defer c.life.Unlock()
	c.mu.Lock()
	up := c.state == stateUp
	if up {
		c.state = stateDown
	}
	c.mu.Unlock()
	if up {
		c.shut()
	}
}

// Up listens again, on the same ports.
func (c *Cloud) Up() error {
	c.life.Lock()
	defer c.life.Unlock()
	c.mu.Lock()
	was := c.state
	if was == stateDown {
		c.state = stateUp
	}
	c.mu.Unlock()
	switch was {
	case stateClosed:
		return errClosed
	case stateUp:
		return nil
	}
	for _, f := range c.fronts {
		if err := f.open(reopenFor); err != nil {
			return err
		}
	}
	return nil
}

// RefuseLogins answers logins with a CONNACK code, whatever their credentials; 0 ends it.
func (c *Cloud) RefuseLogins(device string, code byte) {
	c.setFault(device, code == 0, func(f *fault) { f.refuse = code })
}

// RefuseFilter answers 0x80 to a subscription to exactly this filter.
func (c *Cloud) RefuseFilter(device, filter string) {
	c.setFault(device, false, func(f *fault) {
		if f.filters == nil {
			f.filters = make(map[string]struct{})
		}
		f.filters[filter] = struct{}{}
	})
}

// AllowFilter ends RefuseFilter.
func (c *Cloud) AllowFilter(device, filter string) {
	c.setFault(device, true, func(f *fault) { delete(f.filters, filter) })
}

// AnswerUpgrade answers the next so many upgrade requests with an HTTP status; below 0 all of them, 0 ends it. The
// device is not known at that stage.
func (c *Cloud) AnswerUpgrade(status, times int) error {
	if times != 0 && (status < 200 || http.StatusText(status) == "") {
		return errors.New("cloudsim: not an HTTP status to end a request with")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.upgradeStatus, c.faults.upgradeTimes = status, times
	return nil
}

// StallTLS accepts TCP connections to the wss listener and does not begin the TLS handshake.
func (c *Cloud) StallTLS(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.stallTLS = on
	c.faults.wake()
}

// StallUpgrade accepts TCP connections, and TLS, and does not answer the upgrade request. When it ends, requests that
// are still waiting are answered.
func (c *Cloud) StallUpgrade(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.stallUpgrade = on
	c.faults.wake()
}

// StallConnack reads CONNECT and does nothing about it.
func (c *Cloud) StallConnack(device string, on bool) {
	c.setFault(device, !on, func(f *fault) { f.connack = on })
}

// StallReads stops reading from the device's connections and leaves them open, as a hung server does: nothing is
// answered, pings neither. What is published to the device is still sent.
func (c *Cloud) StallReads(device string, on bool) {
	c.setFault(device, !on, func(f *fault) { f.reads = on })
}

// WithholdAcks takes and records what the device publishes, and keeps PUBACK, PUBREC and PUBCOMP back.
func (c *Cloud) WithholdAcks(device string) {
	c.setFault(device, false, func(f *fault) { f.acks = true })
}

// ReleaseAcks ends WithholdAcks and sends what was kept back and still has its connection. It returns for how many
// connections that was.
func (c *Cloud) ReleaseAcks(device string) int {
	return c.release(device, true, false)
}

// WithholdSubacks subscribes and unsubscribes, and keeps SUBACK and UNSUBACK back.
func (c *Cloud) WithholdSubacks(device string) {
	c.setFault(device, false, func(f *fault) { f.subacks = true })
}

// ReleaseSubacks ends WithholdSubacks like ReleaseAcks.
func (c *Cloud) ReleaseSubacks(device string) int {
	return c.release(device, false, true)
}

func (c *Cloud) release(device string, acks, subacks bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults.set(device, true, func(f *fault) { f.acks, f.subacks = f.acks && !acks, f.subacks && !subacks })
	n := 0
	for cn := range c.conns {
		still := c.faults.of(cn.device)
		if cn.releaseLocked(acks && !still.acks, subacks && !still.subacks) {
			n++
		}
	}
	return n
}

// Delay holds back by d everything that is sent to the device from now on, in order; 0 ends it.
func (c *Cloud) Delay(device string, d time.Duration) {
	c.setFault(device, d == 0, func(f *fault) { f.delay = d })
}

// LoseAcks takes and records the next n QoS 1 and 2 messages of the device, or of each device, acknowledges none of
// them, and resets the connection with the n-th. 0 ends it.
func (c *Cloud) LoseAcks(device string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.countdownLocked(n, 1)
	c.faults.set(device, n == 0, func(f *fault) { f.lose = next })
}

// DropAfter cuts each connection of the device when it reads its n-th packet from now on, CONNECT not counted, which is
// lost. It ends for each device after so many times, below 0 never. n 0 ends it.
func (c *Cloud) DropAfter(device string, n, times int, how Cut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.countdownLocked(n, times)
	c.faults.set(device, n == 0, func(f *fault) { f.drop, f.dropHow = next, how })
}

func (c *Cloud) countdownLocked(packets, times int) countdown {
	if packets == 0 {
		return countdown{}
	}
	c.faults.serial++
	return countdown{serial: c.faults.serial, packets: packets, times: times}
}

// Drop cuts the device's connections now. When it returns their sessions are offline.
func (c *Cloud) Drop(device string, how Cut) int {
	return c.each(device, func(cn *conn) { c.endLocked(cn, EndFault, how) })
}

// CutInFrame sends the first half of a WebSocket frame and closes the connection.
func (c *Cloud) CutInFrame(device string) int {
	// A binary frame of 100 bytes that begins with a PUBLISH of 98, and ends after 50 of them.
	half := append([]byte{0x82, 100, 0x30, 98, 0, 3, 'c', 'u', 't'}, make([]byte, 43)...)
	return c.each(device, func(cn *conn) {
		c.detachLocked(cn, EndFault)
		cn.finalLocked(final{raw: half})
	})
}

// SendBytes sends any bytes: framed, as a binary WebSocket message, so that they are bad MQTT; otherwise in place of a
// WebSocket frame. The connection stays open.
func (c *Cloud) SendBytes(device string, b []byte, framed bool) int {
	return c.each(device, func(cn *conn) { cn.sendRawLocked(b, framed) })
}

// each calls do for each connection of a device that is logged in.
func (c *Cloud) each(device string, do func(*conn)) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for cn := range c.conns {
		if cn.session != nil && (device == All || cn.device == device) {
			do(cn)
			n++
		}
	}
	return n
}
