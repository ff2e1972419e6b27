package bridge

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"bridged/internal/broker"
	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/upstream"
)

// guests lets in devices that bring their own logins. It implements broker.Guests.
type guests struct {
	b      *Bridge
	log    *zap.Logger
	proofs *proofs
	// strangers bounds by its capacity how many logins are asked about at once of devices that no cloud has accepted yet:
	// whoever makes them up is not to keep others from connecting.
	strangers chan struct{}

	mu       sync.Mutex // protects the following fields; no other lock is taken while it is held
	entries  []*config.PassThrough
	refusals map[string]refusal
}

// maxStrangers is the capacity of guests.strangers. With the usual limits on dials it is a second's work.
const maxStrangers = 32

// Admit implements broker.Guests.
func (g *guests) Admit(ctx context.Context, l broker.GuestLogin) broker.Admission {
	presented := credentials.Login{ClientID: l.ClientID, Username: l.Username, Password: l.Password}
	entry, id, no := g.entry(l, presented)
	if entry == nil {
		return no
	}
	who, err := id.Who()
	if err != nil {
		return broker.Admission{Code: refusedIdentifier, Reason: err.Error()}
	}
	name := entry.DeviceName(who)
	if v, ok := g.refusedLately(name, presented); ok {
		return broker.Admission{Code: v.code, Reason: v.reason}
	}
	if g.b.find(name) == nil && !g.proofs.remembers(name) {
		select {
		case g.strangers <- struct{}{}:
			defer func() { <-g.strangers }()
		case <-ctx.Done():
			return broker.Admission{Code: refusedUnavailable, Reason: "too many devices come for the first time"}
		}
	}
	gu, no := g.guest(entry, name, who)
	if gu == nil {
		return no
	}
	return g.ask(ctx, gu, presented, l.Clean)
}

// entry finds the entry that a login is for: the first one whose addresses and whose form of a login fit.
func (g *guests) entry(l broker.GuestLogin, presented credentials.Login) (*config.PassThrough, credentials.PassThrough,
	broker.Admission,
) {
	g.mu.Lock()
	entries := g.entries
	g.mu.Unlock()
	no := broker.Admission{Code: refusedNotAllowed, Reason: "unknown client id, and no entry for devices that sign " +
		"themselves allows this address"}
	for _, e := range entries {
		if !contains(e.AllowFrom(), l.Remote) {
			continue
		}
		id, err := e.Identity(presented)
		if err == nil {
			return e, id, broker.Admission{}
		}
		no = broker.Admission{Code: refusedIdentifier, Reason: "the login is not one for the cloud of " + e.Name() + ": " +
			err.Error()}
	}
	return nil, credentials.PassThrough{}, no
}

// guest returns the device of a name, and adds it if need be.
func (g *guests) guest(entry *config.PassThrough, name, who string) (*guest, broker.Admission) {
	if d := g.b.find(name); d != nil {
		return guestOf(d), broker.Admission{Code: refusedNotAllowed, Reason: "a configured device has the name " + name}
	}
	err := g.b.add(entry.Device(who, &guest{name: name, who: who}), func() error { return g.room(entry) })
	if d := g.b.find(name); d != nil {
		return guestOf(d), broker.Admission{Code: refusedUnavailable, Reason: "a configured device has the name " + name}
	}
	no := broker.Admission{Code: refusedUnavailable, Reason: "the device has just been removed"}
	if err != nil {
		no.Reason = err.Error()
	}
	if errors.Is(err, errFull) {
		no.Code = refusedNotAllowed
	}
	return nil, no
}

var (
	errFull    = errors.New("there are as many devices as max_devices allows")
	errChanged = errors.New("the configuration has just changed")
)

// room says why an entry cannot let in another device, if it cannot. Nothing changes meanwhile.
func (g *guests) room(entry *config.PassThrough) error {
	g.mu.Lock()
	stands := slices.Contains(g.entries, entry)
	g.mu.Unlock()
	switch {
	case !stands:
		return errChanged
	case g.count(entry) >= entry.MaxDevices:
		return fmt.Errorf("%s: %w", entry.Name(), errFull)
	}
	return nil
}

// count is how many devices an entry has let in.
func (g *guests) count(entry *config.PassThrough) (n int) {
	for _, d := range g.b.all() {
		if gu := guestOf(d); gu != nil {
			if _, ok := entry.Who(gu.name); ok {
				n++
			}
		}
	}
	return n
}

// ask has the cloud judge a login.
func (g *guests) ask(ctx context.Context, gu *guest, l credentials.Login, clean bool) broker.Admission {
	d := g.b.find(gu.name)
	if d == nil {
		return broker.Admission{Code: refusedUnavailable, Reason: "the device has just been removed"}
	}
	online := d.worker.Established()
	t := gu.begin(l, online)
	if t == nil {
		return broker.Admission{Device: gu.name}
	}
	if !clean {
		d.down.Hold(true) // what the cloud has kept comes as soon as it has accepted the login
	}
	d.worker.Await(clean)
	v, proven := g.word(ctx, gu, t)
	if v.code == 0 || proven {
		if late, ok := gu.accept(t); !ok {
			v, proven = late, false
		}
	}
	switch {
	case proven:
		g.log.Info("a device is let in with a login that the cloud accepted before, while the cloud cannot be asked",
			zap.String("device", gu.name), zap.String("reason", v.reason))
		return broker.Admission{Device: gu.name}
	case v.code == 0:
		g.proofs.keep(gu.name, l)
		return broker.Admission{Device: gu.name}
	case !v.away:
		g.refused(gu.name, l, v, online)
		g.proofs.drop(context.Background(), gu.name, l)
	}
	if gu.reject(t) {
		d.worker.Forget()
		g.expel(gu, func(time.Time) bool { return gu.unused() })
	}
	return broker.Admission{Code: v.code, Reason: v.reason}
}

// proofAfter is how long a login that the cloud has accepted before waits for the cloud's word. It is shorter than what
// devices wait for CONNACK: a cloud may be away without saying so, behind a link that swallows what is sent.
const proofAfter = 2 * time.Second

// word returns the cloud's word, or, if that does not come soon, whether the login is one that it has accepted before.
// Should the cloud refuse it then, the device has to go.
func (g *guests) word(ctx context.Context, gu *guest, t *try) (v verdict, proven bool) {
	soon, cancel := context.WithTimeout(ctx, proofAfter)
	defer cancel()
	v, told := t.wait(soon)
	switch {
	case told && !v.away:
		return v, false
	case ctx.Err() == nil && g.proofs.match(ctx, gu.name, t.login):
		return v, ctx.Err() == nil
	case !told:
		v, _ = t.wait(ctx)
	}
	return v, false
}

// judged is what a guest's worker tells.
func (g *guests) judged(gu *guest, f *failure.Failure) {
	l, expired := gu.judge(f)
	if !expired {
		return
	}
	g.log.Warn("the cloud does not accept the login of a connected device any more: it has to come again",
		zap.String("device", gu.name), zap.String("reason", f.Error()))
	g.proofs.revoke(gu.name, l)
	g.b.broker.Disconnect(gu.name)
}

// refusal is a login that a cloud has refused lately.
type refusal struct {
	sum   [sha256.Size]byte
	v     verdict
	until time.Time
}

const (
	// refuseFor is how long the cloud is not asked again about a login that it has refused, and longer if asking ends a
	// session that was made with another login.
	refuseFor    = 30 * time.Second
	refuseLonger = 10 * time.Minute
	// maxRefusals bounds how many are remembered.
	maxRefusals = 1024
)

func (g *guests) refusedLately(device string, l credentials.Login) (verdict, bool) {
	sum := g.proofs.sum(l)
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.refusals[device]
	return r.v, ok && r.sum == sum && time.Now().Before(r.until)
}

func (g *guests) refused(device string, l credentials.Login, v verdict, online bool) {
	now := time.Now()
	r := refusal{sum: g.proofs.sum(l), v: v, until: now.Add(refuseFor)}
	if online {
		r.until = now.Add(refuseLonger)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.refusals) >= maxRefusals {
		maps.DeleteFunc(g.refusals, func(_ string, r refusal) bool { return now.After(r.until) })
	}
	if len(g.refusals) < maxRefusals {
		g.refusals[device] = r
	}
}

// guestIdle is how long a device that has left, and of which there is nothing to keep, is remembered.
const guestIdle = 10 * time.Minute

// tidy forgets devices of which there is nothing to know any more, and those whose login was accepted and that did not
// come after all. Devices that came just when their login was refused have to come again.
func (g *guests) tidy(now time.Time) {
	idle := func(d *device, now time.Time) bool {
		st := d.worker.Status()
		return st.State == upstream.Idle && now.Sub(st.Since) > guestIdle
	}
	for _, d := range g.b.all() {
		gu := guestOf(d)
		if gu == nil {
			continue
		}
		if d.worker.Awaits() && !gu.waits() && !gu.enters(now) {
			d.worker.Forget()
		}
		if st, _ := g.b.broker.DeviceStatus(gu.name); st.Connected && gu.blank() {
			g.b.broker.Disconnect(gu.name)
		}
		if idle(d, now) {
			g.expel(gu, func(now time.Time) bool { return idle(d, now) })
		}
	}
}

// expel removes a device, unless it is connected, about to be, or has something to be kept, if a condition holds while
// nothing changes.
func (g *guests) expel(gu *guest, cond func(now time.Time) bool) {
	if now := time.Now(); !cond(now) {
		return
	}
	err := g.b.removeIf(gu.name, func(d *device) bool {
		now := time.Now()
		st, _ := g.b.broker.DeviceStatus(gu.name)
		_, kept := g.b.spool.Notes()[sessionPrefix+gu.name]
		return guestOf(d) == gu && cond(now) && !gu.waits() && !gu.enters(now) && !st.Connected && !kept &&
			d.up.Empty() && d.down.Empty()
	})
	if err != nil && !errors.Is(err, ErrStopping) {
		g.log.Error("a device that has left cannot be removed", zap.String("device", gu.name), zap.NamedError("err", err))
	}
}

// next is what becomes of a guest's device in another configuration: nil if no entry of it is for the device. Another
// vendor calls devices otherwise.
func (g *guests) next(d *device, entries []*config.PassThrough) *config.Device {
	for _, e := range entries {
		if who, ok := e.Who(d.cfg.Name); ok && who == guestOf(d).who && e.Cloud().Vendor == d.cfg.Cloud.Vendor {
			return e.Device(who, d.cfg.Identity)
		}
	}
	return nil
}

// left are the devices of which an earlier process has left something.
func (g *guests) left(notes map[string][]byte) (devices []*config.Device) {
	names := make(map[string]bool)
	for name := range notes {
		if device, ok := strings.CutPrefix(name, sessionPrefix); ok {
			names[device] = true
		}
	}
	for _, s := range g.b.spool.Unclaimed() {
		if s.State.Queued > 0 {
			names[s.Key.Device] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, e := range g.entries {
			if who, ok := e.Who(name); ok {
				devices = append(devices, e.Device(who, &guest{name: name, who: who}))
				break
			}
		}
	}
	return devices
}

// use has these entries hold from now on.
func (g *guests) use(entries []*config.PassThrough) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.entries = entries
}

func newGuests(b *Bridge, notes map[string][]byte) *guests {
	current := func(device string) bool { return b.find(device) != nil }
	return &guests{
		b: b, log: b.log, proofs: newProofs(b.spool, notes, current, b.log), entries: b.cfg.PassThrough,
		strangers: make(chan struct{}, maxStrangers),
		refusals:  make(map[string]refusal),
	}
}

// guestOf returns the guest that a device is, nil if it is a configured one.
func guestOf(d *device) *guest {
	g, _ := d.cfg.Identity.(*guest)
	return g
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a.WithZone("")) })
}
