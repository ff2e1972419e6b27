package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fault is what a fake does to a message: it returns what to send instead of the packet.
type fault func(device, number uint32, packet []byte) [][]byte

// fake is a subject in this process: it relays packets to a cloud over TCP.
func fake(t *testing.T, f fault) subject {
	return subject{name: "fake", scheme: "tcp", start: func(e env) (*process, error) {
		l, err := net.Listen("tcp", e.listen)
		if err != nil {
			return nil, err
		}
		var running sync.WaitGroup
		running.Go(func() {
			for {
				device, err := l.Accept()
				if err != nil {
					return
				}
				cloud, err := net.Dial("tcp", e.cloud)
				if err != nil {
					t.Error(err)
					_ = device.Close() // it gets no further
					return
				}
				running.Go(func() {
					_, _ = io.Copy(device, cloud) // whatever ends it
					_ = device.Close()            // the same
				})
				running.Go(func() {
					defer cloud.Close()
					fakeUp(t, &conn{Conn: device}, cloud, f)
				})
			}
		})
		return &process{pid: os.Getpid(), stop: func() {
			_ = l.Close() // there is nothing else to do
			t.Cleanup(running.Wait)
		}}, nil
	}}
}

func fakeUp(t *testing.T, c *conn, cloud net.Conn, f fault) {
	_ = c.serve(func(head byte, body []byte) error {
		packet := append(appendHeader(nil, head, len(body)), body...)
		packets := [][]byte{packet}
		if f != nil && head&0xf0 == publish {
			id, payload, err := published(head, body)
			device, number, _, ok := stamped(payload)
			if err != nil || !ok {
				t.Errorf("malformed: %x", packet)
			}
			if packets = f(device, number, packet); packets == nil { // lost: the device is told that it is not
				return c.send(appendPuback(nil, id))
			}
		}
		_, err := cloud.Write(bytes.Join(packets, nil))
		return err
	}, func() error { return nil }) // the run ends it
}

func small(c testcase) *testcase {
	c.name, c.devices, c.payload, c.keepalive = "small", 3, 40, time.Minute
	return &c
}

func runOnce(t *testing.T, c *testcase, s subject, e env) figures {
	t.Helper()
	const briefly = 300 * time.Millisecond
	o := &options{dir: t.TempDir(), time: briefly, warm: briefly / 3, settle: briefly / 3}
	e.ca = filepath.Join(o.dir, "ca.pem")
	var err error
	if o.cert, err = certificate(e.ca); err != nil {
		t.Fatal(err)
	}
	f, err := execute(t.Context(), c, s, e, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAccounts(t *testing.T) {
	const n = 5       // something happens to each device's message with this number
	var held sync.Map // by device
	for name, tt := range map[string]struct {
		fault fault
		want  tally // of three devices
	}{
		"all is well": {nil, tally{}},
		"lost": {func(_, number uint32, p []byte) [][]byte {
			if number == n {
				return nil
			}
			return [][]byte{p}
		}, tally{lost: 3}},
		"three times": {func(_, number uint32, p []byte) [][]byte {
			if number == n {
				return [][]byte{p, p, p}
			}
			return [][]byte{p}
		}, tally{duplicated: 6}},
		"late": {func(device, number uint32, p []byte) [][]byte {
			switch number {
			case n:
				held.Store(device, p)
				return [][]byte{}
			case n + 2:
				late, _ := held.Load(device)
				return [][]byte{p, late.([]byte)}
			}
			return [][]byte{p}
		}, tally{reordered: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runOnce(t, small(testcase{rate: 300}), fake(t, tt.fault), env{}).tally
			if got.sent < 100 {
				t.Errorf("only %d messages were sent", got.sent)
			}
			tt.want.sent, tt.want.arrived = got.sent, got.sent-tt.want.lost
			if got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// The real tunnel, with and without TLS, in each kind of case.
func TestTunnel(t *testing.T) {
	program := filepath.Join(t.TempDir(), "tunnel")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./tunnel")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("kinds", func(t *testing.T) {
		for name, c := range map[string]testcase{
			"paced":  {scheme: "wss", rate: 500},
			"closed": {scheme: "ws", window: 10},
			"bulk":   {scheme: "wss", window: 10, gather: true},
			"down":   {scheme: "ws", rate: 500, down: true},
			"idle":   {scheme: "wss", idle: 300 * time.Millisecond, pingEvery: 100 * time.Millisecond},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f := runOnce(t, small(c), tunnel(program), env{scheme: c.scheme})
				if !f.tally.ok() || f.tally.sent < 3 {
					t.Errorf("%+v", f.tally)
				}
				if c.idle > 0 {
					if f.residentPerDevice <= f.grownPerDevice || f.grownPerDevice <= 0 || f.pingsPerSecond < 10 ||
						f.startTime <= 0 || f.startCPU <= 0 || f.idleCPU <= 0 {
						t.Errorf("%+v", f)
					}
					return
				}
				if c.rate > 0 && (f.throughput < 0.2*c.rate || f.throughput > 2*c.rate) { // a busy machine
					t.Errorf("%g messages/s", f.throughput)
				}
				if f.throughput <= 0 || f.cpuPerMessage <= 0 || f.relayP50 <= 0 || f.relayP99 < f.relayP50 ||
					f.ackP50 < f.relayP50 || f.load <= 0 || f.own <= 0 || f.atEnd <= 0 {
					t.Errorf("%+v", f)
				}
			})
		}
	})
}

// A subject that hangs up is no result.
func TestSubjectFails(t *testing.T) {
	s := subject{scheme: "tcp", start: func(e env) (*process, error) {
		l, err := net.Listen("tcp", e.listen)
		if err != nil {
			return nil, err
		}
		var accepting sync.WaitGroup
		accepting.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close() // that is the fault
			}
		})
		return &process{pid: os.Getpid(), stop: func() { _ = l.Close(); accepting.Wait() }}, nil
	}}
	o := &options{dir: t.TempDir()}
	if f, err := execute(t.Context(), small(testcase{rate: 1}), s, env{}, o); err == nil {
		t.Errorf("%+v", f)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	if q := h.quantile(0.5); q != 0 {
		t.Errorf("of nothing: %s", q)
	}
	for i := range 10_000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 5 * time.Millisecond, 0.99: 9900 * time.Microsecond} {
		if got := h.quantile(q); got < want-want/16 || got > want+want/16 {
			t.Errorf("quantile %g: %s, want %s", q, got, want)
		}
	}
}

func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for own := ownCPU(); ownCPU()-own < 20*time.Millisecond; { // work
	}
	after, err := cpuTime(os.Getpid())
	if spent := after - before; err != nil || spent < 20*time.Millisecond {
		t.Errorf("%s, %v", spent, err)
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("all")
	if err != nil || len(all) != len(allCases()) {
		t.Errorf("%d cases, %v", len(all), err)
	}
	for pattern, want := range map[string]string{
		"":               "50/wss 100/wss full/wss idle/wss",
		"full,grow10/ws": "full/wss full/ws grow10/ws",
		"grow1?/wss":     "grow10/wss",
	} {
		var names []string
		cases, err := choose(pattern)
		for _, c := range cases {
			names = append(names, c.name)
		}
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", pattern, got, err, want)
		}
	}
	if _, err := choose("fast"); err == nil {
		t.Error("a case that does not exist was found")
	}
}

func TestTable(t *testing.T) {
	c := &testcase{name: "small", scheme: "ws", about: "few"}
	runs := func(cpu ...time.Duration) (all []figures) {
		for _, v := range cpu {
			all = append(all, figures{cpuPerMessage: v, throughput: 1234, tally: tally{sent: 10, arrived: 9, lost: 1}})
		}
		return all
	}
	var b strings.Builder
	write(&b, c, []row{{"bridged", runs(10_000, 30_000, 20_000)}, {"tunnel", runs(10_000, 20_000, 50_000)}})
	for _, want := range []string{
		"| bridged | 1,234 | 20.0 µs |", "| tunnel | 1,234 | 20.0 µs |", "| 3, 0, 0 of 30 |",
		"| **bridged / tunnel** | 1.00 | 1.00 |", // of 1, 1.5 and 0.4
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestSplit(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 300)
	stream := appendPublish(appendPuback(nil, 7), "a/b", 9, long)
	head, body, rest, ok := split(stream)
	if !ok || head != puback || !bytes.Equal(body, []byte{0, 7}) {
		t.Fatalf("%x %x %v", head, body, ok)
	}
	for n := range len(rest) {
		if _, _, left, ok := split(rest[:n]); ok || len(left) != n {
			t.Fatalf("%d of %d bytes are enough", n, len(rest))
		}
	}
	head, body, rest, ok = split(rest)
	id, payload, err := published(head, body)
	if !ok || len(rest) != 0 || id != 9 || !bytes.Equal(payload, long) || err != nil {
		t.Errorf("%v %d %d %q %v", ok, len(rest), id, payload, err)
	}
	if _, _, err := published(publish, []byte{0}); !errors.Is(err, errMalformed) {
		t.Error(err)
	}
	name, err := clientID(appendConnect(nil, "me", 3)[2:])
	if name != "me" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
