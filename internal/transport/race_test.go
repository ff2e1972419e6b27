package transport

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bridged/internal/failure"
)

// blackHole returns a port of an address where SYNs get no answer: its backlog is full.
func blackHole(t testing.TB, ip netip.Addr, port int) int {
	t.Helper()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: ip.As16(), Port: port})
	if ip.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4(), Port: port}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if ip.Is6() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch got := got.(type) {
	case *unix.SockaddrInet4:
		port = got.Port
	case *unix.SockaddrInet6:
		port = got.Port
	}
	for range 8 { // until one is not accepted any more
		d := net.Dialer{Timeout: 200 * time.Millisecond}
		c, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(ip, uint16(port)).String())
		if err != nil {
			return port
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("the backlog does not fill")
	return 0
}

var (
	loop4 = netip.MustParseAddr("127.0.0.1")
	loop6 = netip.MustParseAddr("::1")
)

func TestTCPFailures(t *testing.T) {
	hole := strconv.Itoa(blackHole(t, loop4, 0))
	l := listen(t)
	refused := l.Addr().String()
	_ = l.Close() // nobody listens there now
	for name, tc := range map[string]struct {
		host string
		kind failure.Kind
	}{
		"refused":     {refused, failure.Refused},
		"timeout":     {"127.0.0.1:" + hole, failure.Timeout},
		"unreachable": {"224.0.0.1:80", failure.Unreachable}, // TCP to a multicast address fails in this machine
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, newDialer(t, Options{Timeouts: brief(tc.kind)}), at("ws", tc.host), tc.kind, failure.StageTCP)
		})
	}
}

func TestNoFreeFiles(t *testing.T) {
	u := serve(t, echo("mqtt"), nil)
	d := newDialer(t, Options{})
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	f := fails(t, d, Target{URL: u}, failure.Blocked, failure.StageTCP)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	says(t, f, "too many open files")
	connects(t, d, Target{URL: u})
}

// IPv6 comes first. If it is refused, IPv4 follows at once; if it is silent, soon.
func TestBrokenIPv6(t *testing.T) {
	u := serve(t, echo("mqtt"), nil) // on 127.0.0.1 only
	ns := newNameserver(t)
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.1", "::1"}})
	d := newDialer(t, Options{Resolver: ns.resolver()})
	target := at("ws", "cloud.test.:"+u.Port())

	target.Trace = &Trace{}
	connects(t, d, target)
	if tries := target.Trace.Tries; len(tries) != 2 || tries[0].Address.Addr() != loop6 || tries[0].Err == nil ||
		tries[1].Address.Addr() != loop4 || tries[1].Begin.Sub(tries[0].Begin) >= attemptDelay {
		t.Errorf("refused: %+v", tries)
	}

	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	blackHole(t, loop6, port)
	begin := time.Now()
	connects(t, d, target)
	if took := time.Since(begin); took < attemptDelay || took > patience/2 {
		t.Errorf("silent: took %s", took)
	}
	if got := target.Trace.Remote.Addr(); got != loop4 {
		t.Errorf("connected to %s", got)
	}
}

func TestWorkingIPv6(t *testing.T) {
	u := serve(t, echo("mqtt"), nil)
	l, err := net.Listen("tcp", "[::1]:"+u.Port())
	if err != nil {
		t.Fatal(err)
	}
	accept(t, l, silent)
	ns := newNameserver(t)
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.1", "::1"}})
	target := at("ws", "cloud.test.:"+u.Port())
	target.Trace = &Trace{}
	d := newDialer(t, Options{Resolver: ns.resolver(), Timeouts: Timeouts{Upgrade: briefly}})
	fails(t, d, target, failure.NoAnswer, failure.StageUpgrade) // whoever accepts is asked, and nobody else
	if target.Trace.Remote.Addr() != loop6 || len(target.Trace.Tries) != 1 {
		t.Errorf("connected to %s, tried %v", target.Trace.Remote, target.Trace.Tries)
	}
}

// Of several addresses that fail, the one that says most is reported.
func TestAllAddressesFail(t *testing.T) {
	l := listen(t)
	port := portOf(t, l.Addr().String())
	_ = l.Close() // nobody listens there now
	ns := newNameserver(t)
	ns.set("cloud.test", entry{addrs: []string{"224.0.0.1", "127.0.0.1", "ff02::1", "224.0.0.2"}})
	target := at("ws", "cloud.test.:"+port)
	target.Trace = &Trace{}
	f := fails(t, newDialer(t, Options{Resolver: ns.resolver()}), target, failure.Refused, failure.StageTCP)
	says(t, f, "127.0.0.1:"+port, "224.0.0.2:"+port)
	if len(target.Trace.Tries) != 4 || len(target.Trace.Names) != 4 {
		t.Errorf("tried %v of %v", target.Trace.Tries, target.Trace.Names)
	}
}

func TestManyAddresses(t *testing.T) {
	ns := newNameserver(t)
	var e entry
	for i := range 20 {
		e.addrs = append(e.addrs, "224.0.0."+strconv.Itoa(i+1))
	}
	ns.set("cloud.test", e)
	target := at("ws", "cloud.test.:80")
	target.Trace = &Trace{}
	fails(t, newDialer(t, Options{Resolver: ns.resolver()}), target, failure.Unreachable, failure.StageTCP)
	if n := len(target.Trace.Tries); n != maxTries {
		t.Errorf("tried %d addresses", n)
	}
}

func TestCancelledConnect(t *testing.T) {
	port := blackHole(t, loop4, 0)
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	target := at("ws", "127.0.0.1:"+strconv.Itoa(port))
	target.Trace = &Trace{Step: func(s Step) {
		if s.Stage == failure.StageDNS {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
	}}
	failsWith(ctx, t, newDialer(t, Options{}), target, failure.Cancelled, failure.StageTCP)
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("took %s", took)
	}
}

// The families take turns, also when one of them comes later.
func TestAddressOrder(t *testing.T) {
	ips := func(s ...string) (a []netip.Addr) {
		for _, s := range s {
			a = append(a, netip.MustParseAddr(s))
		}
		return a
	}
	v4, v6 := answer{addrs: ips("1.1.1.1", "1.1.1.2", "1.1.1.3")}, answer{v6: true, addrs: ips("::1", "::2")}
	want := ips("::1", "1.1.1.1", "::2", "1.1.1.2", "1.1.1.3")
	for name, got := range map[string][]answer{"IPv4 first": {v4, v6}, "IPv6 first": {v6, v4}} {
		r := newRace(got, 0, nil, 1)
		for i, a := range r.queue {
			if a != want[i] {
				t.Errorf("%s: %v", name, r.queue)
				break
			}
		}
	}
	late := newRace([]answer{v6}, 1, nil, 1)
	late.queue, late.started = late.queue[1:], 1
	late.add(v4)
	if want := ips("1.1.1.1", "::2", "1.1.1.2", "1.1.1.3"); len(late.queue) != 4 || late.queue[0] != want[0] ||
		late.queue[1] != want[1] {
		t.Errorf("IPv4 late: %v", late.queue)
	}
}

func TestConnectKind(t *testing.T) {
	for errno, want := range map[syscall.Errno]failure.Kind{
		syscall.ECONNREFUSED: failure.Refused, syscall.EHOSTUNREACH: failure.Unreachable,
		syscall.ENETUNREACH: failure.Unreachable, syscall.ETIMEDOUT: failure.Timeout, syscall.EPERM: failure.Blocked,
		syscall.EACCES: failure.Blocked, syscall.EMFILE: failure.Blocked, syscall.ECONNRESET: failure.HungUp,
		syscall.EADDRNOTAVAIL: failure.Unreachable, syscall.EINVAL: failure.Other,
	} {
		err := &net.OpError{Op: "dial", Net: "tcp", Err: errno}
		if got := connectKind(err); got != want {
			t.Errorf("%v: %s, want %s", errno, got, want)
		}
	}
}
