package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bridged/internal/failure"
)

const (
	// attemptDelay is how long one address has a start over the next (RFC 8305, 5).
	attemptDelay = 250 * time.Millisecond
	// maxTries bounds how many addresses are tried.
	maxTries = 10
)

// race connects to the addresses of a name, one after another with a delay between them, until one of them answers.
type race struct {
	port    uint16
	queue   []netip.Addr
	answers <-chan answer
	pending int // answers to come

	names   []netip.Addr // all of them
	started int
	running int
	tries   []Try // that ended
}

// raced is a try with its connection, nil if it failed.
type raced struct {
	Try
	conn *net.TCPConn
}

func newRace(got []answer, pending int, answers <-chan answer, port uint16) *race {
	r := &race{port: port, answers: answers, pending: pending}
	for _, a := range got {
		r.add(a)
	}
	return r
}

// add queues the addresses of an answer, so that the families take turns, IPv6 first.
func (r *race) add(a answer) {
	r.names = append(r.names, a.addrs...)
	first, second := a.addrs, r.queue
	if !a.v6 && r.started == 0 {
		first, second = second, first
	}
	var mixed []netip.Addr
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			mixed = append(mixed, first[i])
		}
		if i < len(second) {
			mixed = append(mixed, second[i])
		}
	}
	r.queue = mixed
}

// run returns the first connection that is made. All others have ended when it returns.
func (r *race) run(ctx context.Context) (*net.TCPConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan raced)
	defer func() {
		cancel()
		for ; r.running > 0; r.running-- {
			if late := <-results; late.conn != nil {
				_ = late.conn.Close() // it lost
			}
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ready := false
	for {
		if ready && len(r.queue) > 0 && r.started < maxTries {
			r.start(ctx, results)
			ready = false
			timer.Reset(attemptDelay)
		}
		if r.running == 0 && r.pending == 0 && (len(r.queue) == 0 || r.started == maxTries) {
			return nil, r.failed()
		}
		select {
		case got := <-results:
			r.running--
			r.tries = append(r.tries, got.Try)
			if got.conn != nil {
				return got.conn, nil
			}
			ready = true
		case a := <-r.answers:
			r.pending--
			r.add(a)
		case <-timer.C:
			ready = true
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), r.failed())
		}
	}
}

func (r *race) start(ctx context.Context, results chan<- raced) {
	addr := netip.AddrPortFrom(r.queue[0], r.port)
	r.queue = r.queue[1:]
	r.started++
	r.running++
	begin := time.Now()
	go func() {
		conn, err := dialTCP(ctx, addr)
		results <- raced{Try{Address: addr, Begin: begin, End: time.Now(), Err: err}, conn}
	}()
}

func dialTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close() // it is of no use
		return nil, fmt.Errorf("%s: %T is not a TCP connection", addr, c)
	}
	return tcp, nil
}

// failed puts the errors of all tries together, the one that says most first.
func (r *race) failed() error {
	var all manyErrors
	for _, t := range r.tries {
		if all == nil || rank(t.Err) > rank(all[0]) {
			all = append(manyErrors{t.Err}, all...)
		} else {
			all = append(all, t.Err)
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	if all == nil {
		return nil
	}
	return all
}

// manyErrors is several errors in one line.
type manyErrors []error

func (m manyErrors) Error() string {
	var b strings.Builder
	for i, err := range m {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

func (m manyErrors) Unwrap() []error { return m }

// rank is how much an error of one address says about the whole: that there is no way for IPv6 says least.
func rank(err error) int {
	switch connectKind(err) {
	case failure.Refused:
		return 4
	case failure.Blocked:
		return 3
	case failure.Timeout:
		return 2
	case failure.Unreachable:
		return 0
	}
	return 1
}

// connectKind tells apart why TCP did not connect. Of several errors the first counts.
func connectKind(err error) failure.Kind {
	var many manyErrors
	if errors.As(err, &many) {
		err = many[0]
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ECONNREFUSED:
			return failure.Refused
		case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.EADDRNOTAVAIL:
			return failure.Unreachable
		case syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			return failure.Blocked
		case syscall.ETIMEDOUT:
			return failure.Timeout
		case syscall.ECONNRESET, syscall.ECONNABORTED:
			return failure.HungUp
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return failure.Timeout
	}
	return failure.Other
}

func portNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q: not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}
