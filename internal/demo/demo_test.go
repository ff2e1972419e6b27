package demo

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"bridged/internal/cloudsim"
	"bridged/internal/testdevice"
)

// brisk is for tests, who read faster.
var brisk = rhythm{
	telemetry: 60 * time.Millisecond, command: 100 * time.Millisecond, calm: 400 * time.Millisecond, outage: time.Second,
}

// show is a demo at work.
type show struct {
	*screen
	end   func() // asks it to
	ended chan error
}

func play(tb testing.TB, o Options) *show {
	tb.Helper()
	s := &show{screen: new(screen), ended: make(chan error, 1)}
	o.Out = s.screen
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.rhythm == (rhythm{}) {
		o.rhythm = brisk
	}
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	s.end = cancel
	go func() { s.ended <- Run(ctx, o) }()
	return s
}

// result waits for the end.
func (s *show) result(tb testing.TB) error {
	tb.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		tb.Fatalf("the demo does not end:\n%s", s)
		return nil
	}
}

// The status page is there while the demo is, and shows its devices.
func TestStatusPage(t *testing.T) {
	s := play(t, Options{Calm: true, Version: "v1.2.3"})
	url := s.await(t, 1, `^The status page: (http://127\.0\.0\.1:\d+/)$`)[1]
	if page := fetch(t, url); !strings.Contains(page, "<title>") {
		t.Errorf("the page is %q", page)
	}
	if got := fetch(t, url+"api/v1/devices"); !strings.Contains(got, `"name":"boiler-1"`) {
		t.Errorf("the devices are %q", got)
	}
	if got := fetch(t, url+"api/v1/status"); !strings.Contains(got, `"version":"v1.2.3"`) {
		t.Errorf("the status is %q", got)
	}
	s.end()
	if err := s.result(t); err != nil {
		t.Errorf("%v\n%s", err, s)
	}
	if resp, err := client.Get(url); err == nil {
		_ = resp.Body.Close()
		t.Error("the page is still there")
	}
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

func TestRunEndsByItself(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	s := play(t, Options{For: time.Second})
	if err := s.result(t); err != nil {
		t.Errorf("%v\n%s", err, s)
	}
	holds(t, s.String(),
		`boiler-1 \+ aliyun wss online: signature verified \(hmacsha256\)$`,
		`pump-7   \+ tencent ws online: signature verified \(hmacsha1\)$`,
		`press-2  \+ lab wss    online: user name and password verified$`,
		`boiler-1 → aliyun wss telemetry \{"n":\d+,"t":[\d.]+\} +PUBACK`,
		`boiler-1 ← aliyun wss command   \{"n":1,"set":\d+\} +PUBACK`,
		`boiler-1 → aliyun wss answer    \{"n":\d+,"re":1\} +PUBACK`,
		`pump-7   → tencent ws telemetry \{"n":\d+,"bar":[\d.]+\} +PUBACK`,
		`pump-7   ← tencent ws command   \{"n":1,"rpm":\d+\} +PUBACK`,
		`press-2  ← lab wss    command   \{"n":1,"mm":\d+\} +PUBACK`,
		`boiler-1 - aliyun wss offline: DISCONNECT$`,
		`^  pump-7    tencent ws  up  +\d+ +\d+ +\d+ +0 `,
		`^The clouds verified 3 logins, refused 0, and saw 0 violations of their rules.$`,
		`^Every message arrived, in order, and was acknowledged.$`,
	)
	lacks(t, s.String(), "fault", "warn", "out of reach", "Ctrl-C")
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Through all troubles, and with an end in the middle of the last, nothing is lost.
func TestRunThroughTroubles(t *testing.T) {
	// What gathers while tencent is away stays below its 30 messages a second.
	steady := brisk
	steady.telemetry, steady.command = 300*time.Millisecond, 600*time.Millisecond
	s := play(t, Options{Verbose: true, rhythm: steady})
	s.await(t, 1, `demo +! lab wss +out of reach`)
	const acknowledged = `press-2  → lab wss    telemetry .* PUBACK`
	before := len(regexp.MustCompile(acknowledged).FindAllString(s.String(), -1))
	s.await(t, before+2, acknowledged) // by the disk
	s.end()
	if err := s.result(t); err != nil {
		t.Errorf("%v\n%s", err, s)
	}
	holds(t, s.String(),
		`Ctrl-C ends.`,
		`demo     ! tencent ws out of reach for 1s: messages go to disk$`,
		`pump-7     bridge     warn: .*reason=the cloud`,
		`pump-7   - tencent ws offline: the connection was cut$`,
		`demo     ! aliyun wss connection cut`,
		`demo     ! lab wss    within reach again`,
		`demo     ! +ending; waiting for \d+ last messages?$`,
		`info: bridged is running`,
		`^Every message arrived`,
	)
	lacks(t, s.String(), "fault")
}

// What a cloud acknowledged and lost is found out.
func TestRunFindsLosses(t *testing.T) {
	loseAfterThree := func(name string, o *cloudsim.Options) {
		if name == "aliyun" {
			rules := cloudsim.RulesFor(o.Kind)
			rules.Uplink, rules.DropExcess = cloudsim.Rate{Count: 3, Per: time.Hour}, true
			o.Rules = &rules
		}
	}
	s := play(t, Options{For: time.Second, Drain: time.Second, Calm: true, Tamper: loseAfterThree})
	err := s.result(t)
	var faults *FaultsError
	if !errors.As(err, &faults) {
		t.Fatalf("ended with %v, want faults:\n%s", err, s)
	}
	holds(t, s.String(),
		`fault    !            boiler-1 → aliyun wss: message 4 was lost: acknowledged, and never arrived`,
		`boiler-1 breaks a rule of aliyun \(uplink_rate\)`, `^\d+ faults:$`)
	lacks(t, s.String(), `pump-7 .* lost`, `^Every message arrived`)
}

// What a cloud refuses is a fault.
func TestRunFindsRefusedLogins(t *testing.T) {
	otherSecret := func(name string, o *cloudsim.Options) {
		if name == "tencent" {
			o.Devices[0].Secret = "b3RoZXI="
		}
	}
	s := play(t, Options{
		For: 400 * time.Millisecond, Drain: 100 * time.Millisecond, Calm: true, Tamper: otherSecret,
	})
	var faults *FaultsError
	if err := s.result(t); !errors.As(err, &faults) {
		t.Fatalf("ended with %v, want faults:\n%s", err, s)
	}
	holds(t, s.String(),
		`fault    !            tencent refused a login of pump-7: the signature does not match`, `refused 1`)
}

// The guests' devices work as the instructions say, from a device's connection to what another one sees.
func TestRunJoinIn(t *testing.T) {
	dir := t.TempDir()
	s := play(t, Options{Calm: true, Dir: dir})
	sub := s.await(t, 1, `^  mosquitto_sub -h (\S+) -p (\d+) -i (\S+) -u (\S+) -P (\S+) -q 1 -v -t '#'$`)
	pub := s.await(t, 1, `^  mosquitto_pub -h (\S+) -p (\d+) -i (\S+) -u (\S+) -P (\S+) -q 1 -t hello -m hi$`)
	connect := func(m []string) *testdevice.Device {
		return testdevice.Connect(t, net.JoinHostPort(m[1], m[2]),
			testdevice.Options{ClientID: m[3], Username: m[4], Password: m[5]})
	}
	watching := connect(sub)
	if codes := watching.Subscribe(1, "#"); codes[0] != 1 {
		t.Fatalf("SUBACK %v", codes)
	}
	connect(pub).Publish("hello", []byte("hi"), 1)
	s.await(t, 1, `you      → lab wss    hello     hi +arrived$`)
	for _, name := range []string{"watcher", "boiler-1", "press-2", "pump-7"} {
		s.await(t, 1, name+` +\+ .*online`)
	}
	watching.Disconnect()
	s.end()
	if err := s.result(t); err != nil {
		t.Errorf("%v\n%s", err, s)
	}
	holds(t, s.String(), `verified 5 logins`)
	for _, file := range []string{"config.yaml", "aliyun-ca.pem", "lab-ca.pem"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
}

// A device whose connection is taken by somebody else comes back, and sends again what was not acknowledged.
func TestRunTakenOver(t *testing.T) {
	s := play(t, Options{Calm: true})
	at := s.await(t, 1, `-h (\S+) -p (\d+)`)
	s.await(t, 2, `pump-7   → tencent ws telemetry`)
	thief := testdevice.Connect(t, net.JoinHostPort(at[1], at[2]),
		testdevice.Options{ClientID: pump, Username: pump, Password: "pump-login", Persist: true})
	s.await(t, 1, `pump-7   - bridge     lost its connection`)
	thief.Disconnect()
	s.await(t, 2, `pump-7   \+ bridge     connected`)
	before := strings.Count(s.String(), "pump-7   → tencent ws telemetry")
	s.await(t, before+2, `pump-7   → tencent ws telemetry`)
	s.end()
	_ = s.result(t) // the thief may have taken a command, which it acknowledged or not
	holds(t, s.String(), `^  pump-7 `)
}

func TestRunFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		o    Options
		want error
	}{
		"port in use":  {Options{Listen: taken.Addr().String()}, syscall.EADDRINUSE},
		"no directory": {Options{Dir: filepath.Join(file, "dir")}, syscall.ENOTDIR},
		"no such address": {Options{Tamper: func(_ string, o *cloudsim.Options) {
			o.Addr, o.TLSAddr = "192.0.2.1:0", "192.0.2.1:0"
		}}, syscall.EADDRNOTAVAIL},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, test.o)
			if err := s.result(t); !errors.Is(err, test.want) {
				t.Errorf("ended with %v, want %v\n%s", err, test.want, s)
			}
		})
	}
}

func TestListenAddress(t *testing.T) {
	if got, err := listenAddress("0.0.0.0:1"); err != nil || got != "0.0.0.0:1" {
		t.Errorf("%s, %v", got, err)
	}
	l, err := net.Listen("tcp", usualPort)
	if err == nil { // otherwise somebody else has it, which does as well
		defer func() { _ = l.Close() }()
	}
	got, err := listenAddress("")
	if err != nil || got == usualPort || !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("%s, %v", got, err)
	}
}
