package transport

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bridged/internal/failure"
)

// Calling off ends every stage at once, and leaves no goroutine.
func TestCancelledStages(t *testing.T) {
	halfway := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			answers(text)(c)
			silent(c)
		}
	}
	for name, tc := range map[string]struct {
		setting string
		scheme  string
		peer    func(net.Conn)
		stage   failure.Stage // begins with the last thing that the peer reads
	}{
		"TLS":                  {"none", "wss", silent, failure.StageTLS},
		"upgrade":              {"none", "ws", silent, failure.StageUpgrade},
		"upgrade, halfway":     {"none", "ws", halfway("HTTP/1.1 101 Sw"), failure.StageUpgrade},
		"an endless page":      {"none", "ws", halfway("HTTP/1.1 404 Not Found\r\n\r\n<"), failure.StageUpgrade},
		"HTTP proxy":           {"http://", "wss", silent, failure.StageProxy},
		"HTTP proxy, halfway":  {"http://", "wss", halfway("HTTP/1.1 2"), failure.StageProxy},
		"HTTPS proxy":          {"https://", "wss", silent, failure.StageProxy},
		"SOCKS proxy":          {"socks5://", "wss", silent, failure.StageProxy},
		"SOCKS proxy, halfway": {"socks5://", "wss", halfway("\x05\x00"), failure.StageProxy},
		"TLS after a proxy":    {"http://", "wss", halfway("HTTP/1.1 200 OK\r\n\r\n"), failure.StageTLS},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			host := raw(t, func(c net.Conn) {
				reads := 1
				if tc.setting != "none" && tc.stage == failure.StageTLS {
					reads = 2
				}
				tc.peer(&watched{Conn: c, reads: reads, then: cancel})
			})
			setting, target := tc.setting, at(tc.scheme, "cloud.test")
			if setting == "none" {
				target = at(tc.scheme, host)
			} else {
				setting += host
			}
			begin := time.Now()
			failsWith(ctx, t, proxied(t, setting, Options{}), target, failure.Cancelled, tc.stage)
			if took := time.Since(begin); took > patience/4 {
				t.Errorf("took %s", took)
			}
		})
	}
}

// watched calls a function some time after a number of reads.
type watched struct {
	net.Conn
	reads int
	then  func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.reads--; w.reads == 0 {
		time.AfterFunc(20*time.Millisecond, w.then)
	}
	return n, err
}

// All stages together have a limit, and so has the caller's context; both are called no answer.
func TestTimeForAll(t *testing.T) {
	host := raw(t, silent)
	d := newDialer(t, Options{Timeouts: Timeouts{All: briefly}})
	fails(t, d, at("ws", host), failure.NoAnswer, failure.StageUpgrade)
	fails(t, d, at("wss", host), failure.NoAnswer, failure.StageTLS)
	ctx, cancel := context.WithTimeout(t.Context(), briefly)
	defer cancel()
	failsWith(ctx, t, newDialer(t, Options{}), at("wss", host), failure.NoAnswer, failure.StageTLS)
	<-ctx.Done()
	failsWith(ctx, t, newDialer(t, Options{}), at("ws", host), failure.Cancelled, failure.StageConfig)
}

func TestTrace(t *testing.T) {
	ca := newAuthority(t, "plant")
	conf := ca.conf(nil)
	u := serve(t, echo("mqtt"), conf)
	ns := newNameserver(t)
	ns.set("cloud.test", entry{addrs: []string{"127.0.0.1"}})
	var live []failure.Stage
	tr := new(Trace)
	tr.Step = func(s Step) {
		live = append(live, s.Stage)
		if len(tr.Names) != 1 {
			t.Errorf("after %s the names are %v", s.Stage, tr.Names)
		}
	}
	d := newDialer(t, Options{Resolver: ns.resolver(), TLS: TLS{CAFile: ca.file, ServerName: "cloud.test"}})
	target := at("wss", "cloud.test.:"+u.Port())
	target.Trace = tr
	for range 2 { // the second begins anew
		live = nil
		connects(t, d, target)
		want := []failure.Stage{failure.StageDNS, failure.StageTCP, failure.StageTLS, failure.StageUpgrade}
		if len(live) != len(want) || len(tr.Steps) != len(want) {
			t.Fatalf("stages: %v, %v", live, tr.Steps)
		}
		for i, s := range tr.Steps {
			if s.Stage != want[i] || live[i] != want[i] || s.End.Before(s.Begin) || s.Failure != nil ||
				i > 0 && s.Begin.Before(tr.Steps[i-1].End) {
				t.Errorf("step %d: %+v", i, s)
			}
		}
	}
	if tr.TLS == nil || tr.TLS.Version != "TLS 1.3" || !strings.HasPrefix(tr.TLS.Cipher, "TLS_") ||
		tr.TLS.ServerName != "cloud.test" || len(tr.TLS.Chain) != 1 || tr.TLS.Chain[0].Issuer != "CN=plant" ||
		tr.TLS.Chain[0].Pin != pinOf(conf.Certificates[0].Leaf).String() || len(tr.TLS.Chain[0].Names) != 2 {
		t.Errorf("%+v", tr.TLS)
	}
	if tr.Status != 101 || tr.Remote.String() != u.Host || !tr.Local.IsValid() || len(tr.Names) != 1 ||
		len(tr.Tries) != 1 || tr.Proxy != "" {
		t.Errorf("%+v", tr)
	}
}

// A refused certificate is shown, so that a person sees what is there.
func TestTraceOfAFailure(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	tr := &Trace{}
	o := fails(t, newDialer(t, Options{}), Target{URL: u, Trace: tr}, failure.TLSUnknownAuthority, failure.StageTLS)
	last := tr.Steps[len(tr.Steps)-1]
	if last.Stage != failure.StageTLS || last.Failure != o.f || len(tr.TLS.Chain) != 1 {
		t.Errorf("%+v, %+v", last, tr.TLS)
	}
}

func TestDate(t *testing.T) {
	said := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, status := range []int{200, 503} {
		u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", said.Format(http.TimeFormat))
			w.WriteHeader(status)
		}, nil)
		var got []Date
		d := newDialer(t, Options{OnDate: func(d Date) { got = append(got, d) }})
		tr := &Trace{}
		begin := time.Now()
		o := fails(t, d, Target{URL: u, Trace: tr}, failure.HTTPStatus(status), failure.StageUpgrade)
		if len(got) != 1 || !got[0].Said.Equal(said) || got[0].Proxy || got[0].Verified || got[0].Sent.Before(begin) ||
			got[0].Received.Before(got[0].Sent) || got[0].Host != "127.0.0.1" || got[0].TLS != nil ||
			got[0].Header.Get("Date") == "" || len(tr.Dates) != 1 || tr.Dates[0].Header != nil {
			t.Errorf("%v: %+v", o.f, got)
		}
	}
	for _, header := range []string{"", "yesterday"} {
		u := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"] = []string{header}
			w.WriteHeader(503)
		}, nil)
		d := newDialer(t, Options{OnDate: func(d Date) { t.Errorf("told %+v", d) }})
		fails(t, d, Target{URL: u}, failure.HTTP503, failure.StageUpgrade)
	}
}

func TestDateOffset(t *testing.T) {
	sent := time.Unix(1000, 0)
	d := Date{Said: time.Unix(2000, 0), Sent: sent, Received: sent.Add(2 * time.Second)}
	if offset, uncertain := d.Offset(); offset != 999500*time.Millisecond || uncertain != 1500*time.Millisecond {
		t.Errorf("%s +- %s", offset, uncertain)
	}
}

// What is bounded in the handshakes is not bounded later.
func TestMuchData(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	ws, nc, err := newDialer(t, Options{TLS: TLS{CAFile: ca.file}}).Dial(limited(t), Target{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	sent := []byte(strings.Repeat("0123456789abcdef", 64<<10))
	if err := ws.WriteMessage(websocket.BinaryMessage, sent); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.ReadMessage(); err != nil || string(got) != string(sent) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	_ = nc.Close() // everything is here
	nc.Wait()
}

// Many dial at once with one Dialer.
func TestConcurrentDials(t *testing.T) {
	ca := newAuthority(t, "plant")
	u := serve(t, echo("mqtt"), ca.conf(nil))
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}, Header: http.Header{"X-Tenant": {"a"}}})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ws, nc, err := d.Dial(limited(t), Target{URL: u, Trace: &Trace{}})
			if err != nil {
				t.Errorf("%v", err)
				return
			}
			_ = ws.Close() // the test is about dialling
			nc.Wait()
		})
	}
	wg.Wait()
}

func BenchmarkDial(b *testing.B) {
	ca := newAuthority(b, "plant")
	for name, u := range map[string]Target{
		"ws":  {URL: serve(b, echo("mqtt"), nil)},
		"wss": {URL: serve(b, echo("mqtt"), ca.conf(nil))},
	} {
		b.Run(name, func(b *testing.B) {
			d := newDialer(b, Options{TLS: TLS{CAFile: ca.file}})
			b.ReportAllocs()
			for b.Loop() {
				_, nc, err := d.Dial(b.Context(), u)
				if err != nil {
					b.Fatal(err)
				}
				_ = nc.Close() // the benchmark is about dialling
				nc.Wait()
			}
		})
	}
}
