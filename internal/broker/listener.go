package broker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"go.uber.org/zap"

	"bridged/internal/pulse"
)

// listener is a bound address.
type listener struct {
	acceptor
	tls   *tls.Config // nil for plain TCP
	pulse *pulse.Pulse
}

// acceptor is a *net.TCPListener.
type acceptor interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// listen binds all addresses, or none.
func listen(cfgs []Listener) ([]listener, error) {
	var bound []listener
	for _, c := range cfgs {
		l, err := net.Listen("tcp", c.Address)
		if err != nil {
			for _, other := range bound {
				err = errors.Join(err, other.Close())
			}
			return nil, fmt.Errorf("listen on %s: %w", c.Address, err)
		}
		bound = append(bound, listener{
			acceptor: l.(*net.TCPListener), tls: c.TLS, pulse: &pulse.Pulse{Name: "the listener on " + l.Addr().String()},
		})
	}
	return bound, nil
}

// The pause after an error of accept grows from the first to the second.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// accept takes connections until the listener is closed. An error like too many open files passes when connections end.
func (b *Broker) accept(l listener) {
	defer l.pulse.End()
	pause := time.Duration(0)
	round := time.Time{}
	for {
		l.pulse.Beat()
		if now := time.Now(); !now.Before(round) {
			round = now.Add(pulse.Every)
			_ = l.SetDeadline(round) // fails if it is closed only, which Accept says
		}
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded): // nobody has come in this round
			continue
		case err != nil:
			if pause == 0 {
				b.log.Warn("accepting connections fails", zap.Stringer("listen", l.Addr()), zap.NamedError("err", err))
			}
			pause = min(max(2*pause, minPause), maxPause)
			if !b.sleep(pause) {
				return
			}
			continue
		case pause > 0:
			pause = 0
			b.log.Info("accepting connections works again", zap.Stringer("listen", l.Addr()))
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok || !b.open(tcp, l.tls) {
			_ = c.Close() // nothing was said on it
		}
	}
}

// sleep returns false if the broker is stopping.
func (b *Broker) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-b.stopped:
		return false
	}
}

// open starts a link on a connection, unless there are too many.
func (b *Broker) open(c *net.TCPConn, config *tls.Config) bool {
	if !b.vacant() {
		return false
	}
	l, err := newLink(b, c, config)
	if err != nil {
		b.log.Debug("a connection ended at once", zap.NamedError("err", err))
		return false
	}
	b.mu.Lock()
	b.links[l] = struct{}{}
	b.mu.Unlock()
	b.running.Add(1) // until closed
	go l.open()
	return true
}

// vacant says whether another connection may be served. Reaching the limit is logged once, until there is some room
// again.
func (b *Broker) vacant() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.links) < b.cfg.MaxConnections {
		return true
	}
	b.count.TurnedAway++
	if !b.full {
		b.full = true
		b.log.Warn("max_connections is reached: further connections are closed at once",
			zap.Int("limit", b.cfg.MaxConnections))
	}
	return false
}

// closed is called when a link has ended.
func (b *Broker) closed(l *link) {
	defer b.running.Done()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.links, l)
	if b.full && len(b.links) <= b.cfg.MaxConnections-max(1, b.cfg.MaxConnections/10) {
		b.full = false
		b.log.Info("there is room for connections again", zap.Int("connections", len(b.links)))
	}
}
