package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"bridged/internal/lane"
)

const (
	cannotStore = "messages cannot be stored on disk"
	storesAgain = "the disk can be used again"
)

const diskLimit = 1 << 20

// fault is what can happen to the store.
type fault struct {
	name   string
	remedy string // that bridged offers
	total  bool   // nothing can be stored while it lasts
	// outlives says that it goes on when bridged is started anew, which is possible.
	outlives bool
	arrange  func(*faultRun)
	begin    func(*faultRun)
	end      func(*faultRun)
}

// faultRun is a test of one fault: some devices whose cloud is away, some whose cloud is well.
type faultRun struct {
	*testing.T
	fault      fault
	durability string

	disk       *tmpfs  // where there is one
	tracer     *tracer // the same
	limits     string  // YAML
	site       *site
	away, well *cloud

	many     int // further devices whose cloud is away
	window   int // of all of them
	crew     *crew
	finish   chan struct{}
	poor     []*sender // their cloud is away
	rich     []*sender
	listener string // a device that is away itself, at the well cloud; messages wait for it
	late     string // a device that comes while nothing can be stored, at the well cloud
	poorLate string // the same at the other
	idle     string
	waiting  int // messages for the listener
}

func inject(calls ...string) func(*faultRun) {
	return func(r *faultRun) { r.tracer = tamper(r, r.site.process.cmd.Process.Pid, calls...) }
}

func restore(r *faultRun) {
	r.tracer.restore()
	if n := r.tracer.tampered(); n == 0 {
		r.Error("no system call has failed: this shows nothing")
	}
}

func faults() []fault {
	const noRoom, kernelLog = "make room on the file system of state_dir", "look at the kernel's log"
	tmpfsOf := func(size string) func(*faultRun) {
		return func(r *faultRun) { r.disk = newTmpfs(r, size) }
	}
	eio := func(name string, calls ...string) fault {
		return fault{
			name: name, remedy: kernelLog, total: true,
			begin: inject(calls...), end: restore,
		}
	}
	return []fault{
		{
			name: "no room for others' files", remedy: noRoom, outlives: true,
			arrange: tmpfsOf("8m"),
			begin:   func(r *faultRun) { r.disk.fill() },
			end:     func(r *faultRun) { r.disk.empty() },
		},
		{
			name: "no room for messages", remedy: noRoom, outlives: true,
			arrange: tmpfsOf("1m"),
			begin:   func(*faultRun) {}, // it fills up by itself
			end:     func(r *faultRun) { r.disk.remount("size=64m") },
		},
		{
			name: "limit", remedy: "make limits.disk larger", outlives: true,
			arrange: func(r *faultRun) { r.limits = fmt.Sprint("disk: ", diskLimit) },
			begin:   func(*faultRun) {},
			end: func(r *faultRun) {
				if err := r.away.Up(); err != nil {
					r.Fatal(err)
				}
			},
		},
		{ // as when the kernel does so to a disk with errors: by hand it cannot be done while files are open
			name: "read-only", remedy: "mount the file system of state_dir for writing", total: true,
			begin: inject("pwrite64,ftruncate,fdatasync,fsync:error=EROFS"), end: restore,
		},
		eio("sync fails", "fdatasync,fsync:error=EIO"),
		eio("write fails", "pwrite64:error=EIO"),
		eio("write and sync fail", "pwrite64:error=EIO", "fdatasync,fsync:error=EIO"),
		{
			name: "every third sync fails", remedy: kernelLog,
			begin: inject("fdatasync,fsync:error=EIO:when=1+3"), end: restore,
		},
	}
}

// The store fails while devices publish. Nothing is acknowledged that is not safe, devices whose cloud is well do not
// notice, nobody's connection is stuck, and everything goes on when the fault is over.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	for _, f := range faults() {
		for _, durability := range durabilities {
			t.Run(f.name+"/"+durability, func(t *testing.T) {
				t.Parallel()
				r := &faultRun{T: t, fault: f, durability: durability, window: 50}
				r.start()
				f.begin(r)
				r.failing()
				r.during()
				if f.outlives {
					r.killed()
					r.failing()
				}
				f.end(r)
				r.recovers()
				r.killed()
				r.finishes()
			})
		}
	}
}

func (r *faultRun) start() {
	r.Helper()
	r.away, r.well = newCloud(r), newCloud(r)
	r.away.Down()
	all := names(10 + r.many)
	poor, rich := slices.Concat(all[:4], all[10:]), all[4:6]
	r.poorLate, r.listener, r.late, r.idle = all[6], all[7], all[8], all[9]
	if r.fault.arrange != nil {
		r.fault.arrange(r)
	}
	s := settings{
		cloud: r.away.WSURL(), well: r.well.WSURL(), devices: all,
		// A busy machine is not a slow cloud: of those whose cloud is well nothing is to be stored.
		queue: "{spill_after: 20s, max_messages: 100000, durability: " + r.durability + "}",
		more:  "limits: {" + r.limits + "}",
		each: func(i int) string {
			if rich := i == 4 || i == 5 || 7 <= i && i <= 9; rich {
				return ", cloud: well, upstream: always"
			}
			return ", cloud: sim"
		},
	}
	if r.disk != nil {
		s.state = r.disk.dir
	}
	r.site = newSite(r, s)
	r.site.fails = true
	r.site.start()
	r.site.ready()
	r.crew, r.finish = newCrew(r), make(chan struct{})
	r.poor = r.senders(poor, r.window, 5*time.Millisecond)
	r.rich = r.senders(rich, 5, 10*time.Millisecond)
	r.visit()
	r.crew.until("devices publish", both(r.progress(r.poor, 50), r.progress(r.rich, 20)), r.state)
}

func both(a, b func() bool) func() bool { return func() bool { return a() && b() } }

// senders starts devices of several kinds, which publish as many messages each pace as the window lets them.
func (r *faultRun) senders(names []string, window int, pace time.Duration) []*sender {
	var all []*sender
	for i, name := range names {
		d := &sender{
			name: name, addr: r.site.addr, clean: i%4 == 2, window: window, burst: window, pace: pace,
			qos: func(n int) byte { return []byte{1, 2, 1, byte(1 + n%2)}[i%4] }, finish: r.finish,
		}
		all = append(all, d)
		r.crew.run.Go(func() error { return d.run(r.crew.ctx) })
	}
	return all
}

// visit has the listener subscribe, and leave.
func (r *faultRun) visit() {
	l := subscribed(r.T, r.site, r.listener)
	l.goodbye()
	l.close()
	until(r, "the cloud has a subscription", func() bool { return r.well.subscribed([]string{r.listener}) }, nil)
}

// progress says whether each of some devices has had so many messages acknowledged from now on.
func (r *faultRun) progress(senders []*sender, more int64) func() bool {
	from := make([]int64, len(senders))
	for i, d := range senders {
		from[i] = d.acked.Load()
	}
	return func() bool {
		for i, d := range senders {
			if d.acked.Load() < from[i]+more {
				return false
			}
		}
		return true
	}
}

func sum(senders []*sender) (acked int64) {
	for _, d := range senders {
		acked += d.acked.Load()
	}
	return acked
}

func (r *faultRun) state() string {
	return upProgress(r.away, r.poor) + upProgress(r.well, r.rich) + "\n" + middleOut(r.site.process.said())
}

// failing waits until bridged has noticed.
func (r *faultRun) failing() {
	r.Helper()
	r.crew.until("bridged says that it cannot store", func() bool {
		said := r.site.process.said()
		i := strings.LastIndex(said, cannotStore)
		return i > strings.LastIndex(said, storesAgain) && strings.Contains(said[i:], r.fault.remedy)
	}, r.state)
}

// during looks at how things are while nothing can be stored.
func (r *faultRun) during() {
	r.Helper()
	acked := r.settled()
	rich := r.rich
	if r.durability == "always" {
		// PUBCOMP for what was stored waits until the disk has forgotten it, and fills the window of a device of QoS 2.
		rich = rich[:1]
	}
	goOn := r.progress(rich, 50)
	r.well.send(r.T, r.listener, 0, 1, 2, 3, 4)
	r.waiting = 5

	r.arrives(r.late, true)
	r.arrives(r.poorLate, false)
	r.crew.until("devices whose cloud is well go on", goOn, r.state)
	if !r.fault.total {
		return
	}
	calls := r.tracer.tampered()
	r.crew.until("bridged tries again", func() bool { return r.tracer.tampered() > calls+1 }, r.state)
	until(r, "the cloud has sent", func() bool { return len(r.well.unacked(r.listener)) == r.waiting }, nil)
	if now := sum(r.poor); now != acked {
		r.Errorf("%d messages were acknowledged while nothing could be stored", now-acked)
	}
	if n := len(r.well.unacked(r.listener)); n != r.waiting {
		r.Errorf("%d messages were acknowledged to the cloud while nothing could be stored", r.waiting-n)
	}
}

// settled waits until the devices whose cloud is away have read the acknowledgements that were on their way, if none
// can come any more, and returns how many there are.
func (r *faultRun) settled() int64 {
	r.Helper()
	if !r.fault.total {
		return 0
	}
	n, since := sum(r.poor), time.Now()
	r.crew.until("acknowledgements end", func() bool {
		if now := sum(r.poor); now != n {
			n, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	}, r.state)
	return n
}

// arrives has a device connect that has not been there before.
func (r *faultRun) arrives(name string, well bool) {
	r.Helper()
	l, err := dial(r.Context(), r.site.addr, name, true)
	if err != nil {
		r.Fatal(err)
	}
	defer l.close()
	r.ping(l)
	for i, qos := range []byte{1, 2, 1, 2} {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = "up/"+name, text(name, i), qos, uint16(i+1)
		if err := l.send(p); err != nil {
			r.Fatal(err)
		}
		if !well {
			continue
		}
		if qos == 1 {
			next[*packets.PubackPacket](r.T, l)
			continue
		}
		next[*packets.PubrecPacket](r.T, l)
		if err := l.answer(packets.Pubrel, p.MessageID); err != nil {
			r.Fatal(err)
		}
		next[*packets.PubcompPacket](r.T, l)
	}
	if well || r.fault.total {
		r.ping(l) // nothing else comes before the answer
	}
	l.goodbye()
}

func (r *faultRun) ping(l *link) {
	r.Helper()
	if err := l.send(packets.NewControlPacket(packets.Pingreq)); err != nil {
		r.Fatal(err)
	}
	next[*packets.PingrespPacket](r.T, l)
}

// killed kills bridged, looks whether what it has acknowledged is safe, and starts it again.
func (r *faultRun) killed() {
	r.Helper()
	r.site.kill()
	have := make(map[string]int)
	for _, d := range r.poor {
		have[d.name] = r.away.from(d.name)
	}
	for _, d := range r.rich {
		have[d.name] = r.well.from(d.name)
	}
	stored := r.site.ledger(func(k lane.Key, m *lane.Record) {
		n, err := number(k.Device, m.Message.Payload)
		if err != nil {
			r.Error(err)
		}
		if k.Direction == lane.Up && n == have[k.Device] {
			have[k.Device]++
		}
	})
	bytes := int64(0)
	for _, st := range stored {
		bytes += st.Bytes
	}
	// What is delivered counts as free at once, and its records are deleted with a later commit: a process that is killed
	// in between leaves that much more.
	if r.limits != "" && bytes > diskLimit+diskLimit/4 {
		r.Errorf("%d bytes are on the disk, more than limits.disk", bytes)
	}
	for _, d := range slices.Concat(r.poor, r.rich) {
		if n := int(d.acked.Load()); have[d.name] < n {
			r.Errorf("%s: %d messages were acknowledged, and %d are there", d.name, n, have[d.name])
		}
	}
	r.site.start()
	r.site.ready()
}

// recovers checks that everybody goes on now that the fault is over.
func (r *faultRun) recovers() {
	r.Helper()
	r.crew.until("bridged says that it can store again", func() bool {
		said := r.site.process.said()
		return strings.LastIndex(said, storesAgain) > strings.LastIndex(said, cannotStore)
	}, r.state)
	r.recovered()
}

// recovered checks that everybody goes on.
func (r *faultRun) recovered() {
	r.Helper()
	r.crew.until("everybody is acknowledged again", both(r.progress(r.poor, 50), r.progress(r.rich, 20)), r.state)
	r.crew.until("what waits for the listener is stored", func() bool {
		return len(r.well.unacked(r.listener)) == 0
	}, r.state)
}

// finishes has the cloud return, and checks that everything is there in the end.
func (r *faultRun) finishes() {
	r.Helper()
	if err := r.away.Up(); err != nil {
		r.Fatal(err)
	}
	close(r.finish)
	r.crew.until("all is acknowledged to the devices, and in the cloud", func() bool {
		return arrived(r.away, r.poor) && arrived(r.well, r.rich)
	}, r.state)
	r.crew.wait()
	r.away.check(r, r.poor)
	r.well.check(r, r.rich)
	r.away.behaved(r)
	r.well.behaved(r)
	r.listens()
	r.site.stop()
	l := r.site.ledger(nil)
	for _, d := range []lane.Direction{lane.Up, lane.Down} {
		l.drained(r, d, names(10+r.many))
	}
}

func arrived(c *cloud, senders []*sender) bool {
	for _, d := range senders {
		if !d.ended.Load() || c.from(d.name) < d.next {
			return false
		}
	}
	return true
}

// listens has the listener come back for its messages.
func (r *faultRun) listens() {
	r.Helper()
	l := resume(r.T, r.site, r.listener)
	defer l.close()
	came := order{device: r.listener}
	in, got := make(map[uint16]string), make(map[string]bool)
	for len(got) < r.waiting {
		select {
		case p := <-l.in:
			if m, ok := p.(*packets.PublishPacket); ok {
				n, err := number(r.listener, m.Payload)
				if err != nil {
					r.Fatal(err)
				}
				came.take(n, 1)
			}
			takeQoS2(r.T, l, p, in, got)
		case <-time.After(patience):
			r.Fatalf("the listener has %d messages", len(got))
		}
	}
	r.ping(l) // bridged has read what came before
	l.goodbye()
	if err := came.check(r.waiting, source{}); err != nil {
		r.Error(err)
	}
}
