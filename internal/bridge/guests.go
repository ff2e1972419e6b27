package bridge

import (
	"context"
	"crypto/sha256"
	"errors"
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

	mu       sync.Mutex // protects the following fields; no other lock is taken while it is held
	entries  []*config.PassThrough
	refusals map[string]refusal
}

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
	gu, no := g.guest(entry, name, who)
	if gu == nil {
		return no
	}
	return g.ask(ctx, gu, id, l.Clean)
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
	if g.count(entry) >= entry.MaxDevices {
		return nil, broker.Admission{Code: refusedNotAllowed, Reason: "there are as many devices of " + entry.Name() +
			" as max_devices allows"}
	}
	err := g.b.add(entry.Device(who, &guest{name: name, who: who}))
	if d := g.b.find(name); d != nil { // somebody else may have been faster
		return guestOf(d), broker.Admission{Code: refusedUnavailable, Reason: "a configured device has the name " + name}
	}
	no := broker.Admission{Code: refusedUnavailable, Reason: "the device has just been removed"}
	if err != nil {
		no.Reason = err.Error()
	}
	return nil, no
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
func (g *guests) ask(ctx context.Context, gu *guest, id credentials.PassThrough, clean bool) broker.Admission {
	d := g.b.find(gu.name)
	if d == nil {
		return broker.Admission{Code: refusedUnavailable, Reason: "the device has just been removed"}
	}
	online := d.worker.Established()
	t := gu.begin(id, online)
	if t == nil {
		return broker.Admission{Device: gu.name}
	}
	if !clean {
		d.down.Hold(true) // what the cloud has kept comes as soon as it has accepted the login
	}
	d.worker.Await(clean)
	v := t.wait(ctx)
	switch {
	case v.code == 0 && !v.away:
		gu.accept(t, id)
		g.proofs.keep(gu.name, id.Presented)
		return broker.Admission{Device: gu.name}
	case v.away && !errors.Is(ctx.Err(), context.Canceled) && g.proofs.match(ctx, gu.name, id.Presented):
		g.log.Info("a device is let in with a login that the cloud accepted before, while the cloud cannot be asked",
			zap.String("device", gu.name), zap.String("reason", v.reason))
		gu.accept(t, id)
		return broker.Admission{Device: gu.name}
	}
	if !v.away {
		g.refused(gu.name, id.Presented, v, online)
		g.proofs.drop(context.Background(), gu.name, id.Presented)
	}
	if gu.reject(t) {
		d.worker.Forget()
		g.expel(gu, true)
	}
	return broker.Admission{Code: v.code, Reason: v.reason}
}

// judged is what a guest's worker tells.
func (g *guests) judged(gu *guest, f *failure.Failure) {
	if !gu.judge(f) {
		return
	}
	g.log.Warn("the cloud does not accept the login of a connected device any more: it has to come again",
		zap.String("device", gu.name), zap.String("reason", f.Error()))
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

// tidy forgets devices of which there is nothing to know any more.
func (g *guests) tidy(now time.Time) {
	for _, d := range g.b.all() {
		gu := guestOf(d)
		if gu == nil {
			continue
		}
		if st := d.worker.Status(); st.State == upstream.Idle && now.Sub(st.Since) > guestIdle {
			g.expel(gu, false)
		}
	}
}

// expel removes a device, unless it is connected, waits, or has something to be kept. One of which no login has been
// accepted is all that goes if fresh is set.
func (g *guests) expel(gu *guest, fresh bool) {
	if fresh && !gu.unused() {
		return
	}
	err := g.b.removeIf(gu.name, func(d *device) bool {
		st, _ := g.b.broker.DeviceStatus(gu.name)
		_, kept := g.b.spool.Notes()[sessionPrefix+gu.name]
		return guestOf(d) == gu && !gu.waits() && !st.Connected && !kept && d.up.Empty() && d.down.Empty()
	})
	if err != nil && !errors.Is(err, ErrStopping) {
		g.log.Error("a device that has left cannot be removed", zap.String("device", gu.name), zap.NamedError("err", err))
	}
}

// next is what becomes of a guest's device in another configuration: nil if no entry of it is for the device.
func (g *guests) next(d *device, entries []*config.PassThrough) *config.Device {
	for _, e := range entries {
		if who, ok := e.Who(d.cfg.Name); ok && who == guestOf(d).who {
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
	return &guests{
		b: b, log: b.log, proofs: newProofs(b.spool, notes, b.log), entries: b.cfg.PassThrough,
		refusals: make(map[string]refusal),
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
