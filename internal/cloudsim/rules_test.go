package cloudsim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// vendor is an aliyun cloud with one device and a client of it that is logged in.
func vendor(t *testing.T, change func(*Rules)) (*Cloud, *raw) {
	t.Helper()
	rules := RulesFor(Aliyun)
	if change != nil {
		change(&rules)
	}
	c := start(t, Options{Kind: Aliyun, Product: "pk", Devices: []Device{{Name: "d", Secret: "secret"}}, Rules: &rules})
	r := dialRaw(t, c, c.WSURL())
	r.connect(aliyunConnect("d", false), 0)
	return c, r
}

func TestPublishRules(t *testing.T) {
	retained := publishPacket("x", "", 1, 1)
	retained.Retain = true
	big := strings.Repeat("x", 256<<10)
	for name, tt := range map[string]struct {
		p    *packets.PublishPacket
		want Rule // empty: allowed
	}{
		"QoS 1":            {publishPacket("x", "", 1, 1), ""},
		"QoS 2":            {publishPacket("x", "", 2, 1), RuleQoS},
		"retain":           {retained, RuleRetain},
		"payload":          {publishPacket("x", big, 1, 1), ""},
		"payload too big":  {publishPacket("x", big+"x", 1, 1), RulePayload},
		"long topic":       {publishPacket(strings.Repeat("x", 128), "", 1, 1), ""},
		"too long a topic": {publishPacket(strings.Repeat("x", 129), "", 1, 1), RuleTopic},
		"seven levels":     {publishPacket("/sys/pk/d/thing/event/property/post", "", 1, 1), ""},
		"eight levels":     {publishPacket("/sys/pk/d/thing/event/property/post/x", "", 1, 1), RuleTopic},
	} {
		t.Run(name, func(t *testing.T) {
			c, r := vendor(t, nil)
			r.send(tt.p)
			if tt.want == "" {
				expect[*packets.PubackPacket](r)
				noViolations(t, c)
				return
			}
			r.ends()
			must(t, c.WaitOffline(ctx(t), "d"))
			wantRules(t, c, tt.want)
			if len(c.Received()) > 0 {
				t.Errorf("received %+v", c.Received())
			}
		})
	}
}

func TestSubscribeRules(t *testing.T) {
	filters := func(n int) *packets.SubscribePacket {
		var list []any
		for i := range n {
			list = append(list, fmt.Sprint("f", i), 1)
		}
		return subscribePacket(1, list...)
	}
	aGeneric := func(r *Rules) { *r = RulesFor(Generic) }
	aTencent := func(r *Rules) { *r = RulesFor(Tencent) }
	three := func(r *Rules) { r.MaxSubscriptions = 3 }
	for name, tt := range map[string]struct {
		rules func(*Rules)
		p     *packets.SubscribePacket
		codes string // empty: disconnected
		want  []Rule
	}{
		"eight filters":   {nil, filters(8), "1 1 1 1 1 1 1 1", nil},
		"nine filters":    {nil, filters(9), "", []Rule{RuleFilters}},
		"QoS 2":           {nil, subscribePacket(1, "a", 1, "b", 2, "c", 0), "1 128 0", []Rule{RuleQoS}},
		"too long":        {nil, subscribePacket(1, strings.Repeat("x", 129), 1), "128", []Rule{RuleTopic}},
		"levels":          {nil, subscribePacket(1, "/1/2/3/4/5/6/7", 1), "1", nil},
		"levels, eight":   {nil, subscribePacket(1, "/1/2/3/4/5/6/7/#", 1), "128", []Rule{RuleTopic}},
		"subscriptions":   {three, filters(4), "1 1 1 128", []Rule{RuleSubscriptions}},
		"the same again":  {three, subscribePacket(1, "a", 1, "b", 1, "c", 1, "a", 0), "1 1 1 0", nil},
		"tencent, one":    {aTencent, filters(1), "1", nil},
		"tencent, two":    {aTencent, filters(2), "", []Rule{RuleFilters}},
		"generic, QoS 2":  {aGeneric, subscribePacket(1, "a", 2), "2", nil},
		"generic, twenty": {aGeneric, filters(20), strings.Repeat("1 ", 19) + "1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, r := vendor(t, tt.rules)
			r.send(tt.p)
			if tt.codes == "" {
				r.ends()
				must(t, c.WaitOffline(ctx(t), "d"))
			} else {
				codes := strings.Trim(fmt.Sprint(expect[*packets.SubackPacket](r).ReturnCodes), "[]")
				if codes != tt.codes {
					t.Errorf("granted %s, want %s", codes, tt.codes)
				}
			}
			wantRules(t, c, tt.want...)
		})
	}
}

func TestConnectRules(t *testing.T) {
	keepalive := func(s uint16) func(*packets.ConnectPacket) {
		return func(p *packets.ConnectPacket) { p.Keepalive = s }
	}
	will := func(p *packets.ConnectPacket) { p.WillFlag, p.WillTopic = true, "x" }
	for name, tt := range map[string]struct {
		kind   Kind
		change func(*packets.ConnectPacket)
		code   int // below 0: no CONNACK
		want   []Rule
	}{
		"keepalive 29":        {Aliyun, keepalive(29), 2, []Rule{RuleKeepalive}},
		"keepalive 30":        {Aliyun, keepalive(30), 0, nil},
		"keepalive 1200":      {Aliyun, keepalive(1200), 0, nil},
		"keepalive 1201":      {Aliyun, keepalive(1201), 2, []Rule{RuleKeepalive}},
		"keepalive none":      {Aliyun, keepalive(0), 2, []Rule{RuleKeepalive}},
		"tencent, none":       {Tencent, keepalive(0), 0, nil},
		"tencent, 901":        {Tencent, keepalive(901), 2, []Rule{RuleKeepalive}},
		"generic, 65535":      {Generic, keepalive(65535), 0, nil},
		"will":                {Aliyun, will, -1, []Rule{RuleWill}},
		"tencent, will":       {Tencent, will, -1, []Rule{RuleWill}},
		"generic, will":       {Generic, will, 0, nil},
		"longest client id":   {Aliyun, func(p *packets.ConnectPacket) {}, 0, nil},
		"a longer client id":  {Aliyun, nil, 2, []Rule{RuleClientID}},
		"wrong, no violation": {Aliyun, func(p *packets.ConnectPacket) { p.Password = nil }, 4, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rules := RulesFor(tt.kind)
			rules.MaxClientID = len("cid")
			if tt.change == nil {
				rules.MaxClientID--
			}
			o := Options{Kind: tt.kind, Rules: &rules}
			p := login("d", true)
			switch tt.kind {
			case Aliyun:
				o.Product, o.Devices = "pk", []Device{{Name: "d", Secret: "secret"}}
				p = aliyunConnect("d", false)
			case Tencent:
				o.Product, o.Devices = "P", []Device{{Name: "d", Secret: tencentSecret}}
				p = tencentConnect(t, "d")
			}
			if tt.change != nil {
				tt.change(p)
			}
			c := start(t, o)
			r := dialRaw(t, c, c.WSURL())
			if tt.code >= 0 {
				r.connect(p, byte(tt.code))
			} else {
				r.send(p)
				if rest := r.ends(); len(rest) > 0 {
					t.Errorf("answered with %v", rest)
				}
			}
			if tt.code != 0 {
				wait(t, c, "a login failure", func() bool { return len(c.LoginFailures()) == 1 })
			}
			wantRules(t, c, tt.want...)
		})
	}
}

func TestConnectRate(t *testing.T) {
	c, _ := vendor(t, nil)
	for range 4 {
		dialRaw(t, c, c.WSURL()).connect(aliyunConnect("d", false), 0)
	}
	noViolations(t, c)
	dialRaw(t, c, c.WSURL()).connect(aliyunConnect("d", false), 3)
	wantRules(t, c, RuleConnectRate)
	if f := c.LoginFailures(); len(f) != 1 || f[0].Code != 3 || f[0].Device != "d" {
		t.Errorf("login failures %+v", f)
	}
	if n := len(c.Connections("d")); n != 5 {
		t.Errorf("%d connections", n)
	}
	must(t, c.SetDevice(Device{Name: "e", Secret: "secret"}))
	dialRaw(t, c, c.WSURL()).connect(aliyunConnect("e", false), 0) // each has its own

	rules := c.Rules()
	rules.Connects = Rate{}
	c.SetRules(rules)
	dialRaw(t, c, c.WSURL()).connect(aliyunConnect("d", false), 0)
}

// A wrong password counts too, and a refusal for the rate does not prolong it.
func TestConnectRatePasses(t *testing.T) {
	c, _ := vendor(t, func(r *Rules) { r.Connects = Rate{2, 200 * time.Millisecond} })
	wrong := aliyunConnect("d", false)
	wrong.Password[0] ^= 1
	dialRaw(t, c, c.WSURL()).connect(wrong, 5)
	for begin := time.Now(); ; {
		r := dialRaw(t, c, c.WSURL())
		r.send(aliyunConnect("d", false))
		code := expect[*packets.ConnackPacket](r).ReturnCode
		if code == 0 {
			return
		}
		if code != 3 || time.Since(begin) > patience {
			t.Fatalf("CONNACK %d after %s", code, time.Since(begin))
		}
	}
}

func TestUplinkRate(t *testing.T) {
	const n = 100
	for name, drop := range map[string]bool{"recorded": false, "dropped": true} {
		t.Run(name, func(t *testing.T) {
			c, r := vendor(t, func(r *Rules) { r.Uplink, r.DropExcess = Rate{10, time.Hour}, drop })
			for i := range uint16(10) {
				r.send(publishPacket("x", "", 1, i+1))
				expect[*packets.PubackPacket](r)
			}
			noViolations(t, c)
			for i := range uint16(n) {
				r.send(publishPacket("x", "", 1, i+20))
				expect[*packets.PubackPacket](r)
			}
			wantRules(t, c, RuleUplinkRate) // once, not for each message
			lost := map[bool]int64{true: n}[drop]
			if got := c.Totals(); got.Received != 10+n-lost || got.DroppedUplink != lost {
				t.Errorf("totals %+v", got)
			}
		})
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Unix(0, 0)
	rate := Rate{10, time.Second}
	take := func(n int) (within, crossed int) {
		for range n {
			w, c := b.take(rate, now)
			if w {
				within++
			}
			if c {
				crossed++
			}
		}
		return within, crossed
	}
	for i, tt := range []struct {
		after              time.Duration
		n, within, crossed int
	}{
		{0, 15, 10, 1},
		{100 * time.Millisecond, 2, 1, 0},
		{time.Second, 10, 10, 0},
		{0, 1, 0, 1},
		{time.Hour, 11, 10, 1},
	} {
		now = now.Add(tt.after)
		if w, c := take(tt.n); w != tt.within || c != tt.crossed {
			t.Errorf("step %d: %d within, crossed %d times; want %d, %d", i, w, c, tt.within, tt.crossed)
		}
	}
	// At the limit for a minute: never above.
	for range 600 {
		now = now.Add(100 * time.Millisecond)
		b.take(rate, now)
	}
	if _, crossed := take(1); crossed != 0 && b.over {
		t.Error("above the limit at a steady rate")
	}
}

func TestNoFanOutAtVendors(t *testing.T) {
	c := start(t, Options{Kind: Aliyun, Product: "pk", Devices: []Device{
		{Name: "a", Secret: "secret"}, {Name: "b", Secret: "secret"},
	}})
	a, b := dialRaw(t, c, c.WSURL()), dialRaw(t, c, c.WSSURL())
	a.connect(aliyunConnect("a", false), 0)
	b.connect(aliyunConnect("b", true), 0)
	a.subscribe("x", 1)
	b.subscribe("x", 1)
	a.send(publishPacket("x", "m", 1, 1))
	expect[*packets.PubackPacket](a)
	a.pinged()
	b.pinged()
	must(t, c.Publish("b", "x", []byte("for b"), 1))
	b.expectPublish("1 x=for b 1")
	a.pinged()
	if _, err := c.PublishAll("x", nil, 1, true); !isErr(err, ErrBadMessage) {
		t.Errorf("retained: %v", err)
	}
	if n := value(c.PublishAll("x", []byte("all"), 1, false))(t); n != 2 {
		t.Errorf("%d sessions took it", n)
	}
	a.expectPublish("1 x=all 1")
	noViolations(t, c)
}

func TestQueueLimit(t *testing.T) {
	rules := RulesFor(Generic)
	rules.MaxQueued = 3
	c := start(t, Options{Kind: Generic, Rules: &rules})
	r := online(t, c, "d", false)
	r.subscribe("x", 1)
	c.Drop("d", CutReset)
	for i := range 5 {
		err := c.Publish("d", "x", fmt.Append(nil, i), 1)
		if full := i >= 3; isErr(err, ErrQueueFull) != full {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if n := c.Totals().DroppedQueue; n != 2 {
		t.Errorf("%d dropped", n)
	}
	r = dialRaw(t, c, c.WSURL())
	r.connect(login("d", false), 0)
	for i := range 3 {
		r.expectPublish(fmt.Sprintf("%d x=%d 1", i+1, i))
	}
	r.pinged()
}
