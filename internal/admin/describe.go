package admin

import (
	"cmp"
	"slices"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/failure"
	"bridged/internal/lane"
	"bridged/internal/upstream"
)

// States are all that a device can be in, in the order in which a session goes through them.
var States = []upstream.State{
	upstream.Idle, upstream.Waiting, upstream.Signing, upstream.Dialing, upstream.Connecting, upstream.Subscribing,
	upstream.Online, upstream.Draining,
}

func summary(d *bridge.DeviceSummary, r rates) DeviceSummary {
	s := DeviceSummary{
		Name: d.Name, Cloud: d.Cloud, Guest: d.Guest, State: string(d.Session.State), Since: d.Session.Since,
		Reason: d.Session.Reason, Connected: d.Local.Connected, NextAttemptAt: stamp(d.Session.Retry),
		OfflineSince: stamp(d.Session.Offline),
		Up:           flow(&d.Up, r[lane.Up]), Down: flow(&d.Down, r[lane.Down]),
	}
	if f := d.Session.Failing(); f != nil {
		info := f.Info()
		s.Failure = &FailureSummary{
			Kind: string(f.Kind), Class: string(info.Class), Alarm: info.Alarm, Reason: f.Reason(), Remedy: info.Remedy,
		}
	}
	return s
}

func flow(c *lane.Counters, r rate) Flow {
	return Flow{
		AcceptedMessages: c.Accepted, DeliveredMessages: c.Delivered, DroppedMessages: c.DroppedTotal(),
		QueuedMessages: c.Queued, QueuedBytes: c.Bytes, StoredMessages: c.Stored, OldestAgeSeconds: seconds(c.Oldest),
		AcceptedMessagesPerSecond: r.accepted, DeliveredMessagesPerSecond: r.delivered,
	}
}

func (f *Flow) add(o *Flow) {
	f.AcceptedMessages += o.AcceptedMessages
	f.DeliveredMessages += o.DeliveredMessages
	f.DroppedMessages += o.DroppedMessages
	f.QueuedMessages += o.QueuedMessages
	f.QueuedBytes += o.QueuedBytes
	f.StoredMessages += o.StoredMessages
	f.OldestAgeSeconds = max(f.OldestAgeSeconds, o.OldestAgeSeconds)
	f.AcceptedMessagesPerSecond += o.AcceptedMessagesPerSecond
	f.DeliveredMessagesPerSecond += o.DeliveredMessagesPerSecond
}

// maxSubscriptions bounds how many subscriptions of a device are listed.
const maxSubscriptions = 1000

func device(d *bridge.DeviceStatus, r rates, now time.Time) *Device {
	brief := bridge.DeviceSummary{
		Name: d.Name, Cloud: d.Cloud, Guest: d.Guest, Session: d.Session.Summary, Local: d.Local, Up: d.Up, Down: d.Down,
	}
	st := &d.Session
	full := &Device{
		DeviceSummary: summary(&brief, r), At: now, Failures: st.Failures, Connects: st.Connects,
		LastFailure: explain(st.Latest, st.LatestAt), Timeline: timeline(st.Timeline, now),
		UpLedger: ledger(&d.Up), DownLedger: ledger(&d.Down),
		Queue: Queue{
			LimitMessages: d.Queue.MaxMessages, LimitBytes: d.Queue.MaxBytes, LimitAgeSeconds: seconds(d.Queue.MaxAge),
			OnFull: string(d.Queue.OnFull),
		},
		Subscriptions: []Subscription{}, SubscriptionsTotal: len(st.Subscriptions), LateRefusals: st.LateRefusals,
		Lowered: st.Lowered, Stripped: st.Stripped, PropertiesStripped: d.Local.Stripped,
		Local: Local{
			Connected: d.Local.Connected, Since: stamp(d.Local.Since), RemoteAddress: d.Local.Remote,
			Protocol: d.Local.Protocol,
		},
		Certificates: Certificates{CloudExpiresAt: stamp(d.CloudCertificate), ClientExpiresAt: stamp(d.ClientCertificate)},
	}
	for _, s := range st.Subscriptions[:min(len(st.Subscriptions), maxSubscriptions)] {
		full.Subscriptions = append(full.Subscriptions, subscription(s))
	}
	return full
}

func explain(f *failure.Failure, at time.Time) *Failure {
	if f == nil {
		return nil
	}
	info := f.Info()
	return &Failure{
		At: at, Kind: string(f.Kind), Class: string(info.Class), Stage: string(f.Stage), Alarm: info.Alarm,
		Reason: f.Reason(), Error: f.Error(), Causes: info.Causes, Remedy: info.Remedy,
	}
}

func timeline(line []upstream.Change, now time.Time) []Change {
	all := make([]Change, len(line))
	for i, c := range line {
		until := now
		if i+1 < len(line) {
			until = line[i+1].At
		}
		all[i] = Change{
			At: c.At, State: string(c.State), Reason: c.Reason, Times: c.Times, Seconds: seconds(max(0, until.Sub(c.At))),
		}
	}
	return all
}

func ledger(c *lane.Counters) Ledger {
	l := Ledger{
		AcceptedMessages: c.Accepted, DeliveredMessages: c.Delivered, DroppedMessages: c.DroppedTotal(),
		DroppedByReason: make(map[string]uint64), QueuedMessages: c.Queued, QueuedBytes: c.Bytes,
		InFlightMessages: c.InFlight, StoredMessages: c.Stored, StoredBytes: c.StoredBytes,
		OldestAgeSeconds: seconds(c.Oldest),
	}
	for _, r := range lane.Reasons() {
		if n := c.Dropped[r]; n > 0 {
			l.DroppedByReason[r.String()] = n
		}
	}
	if c.LastDropped != 0 {
		l.LastDroppedReason = c.LastDropped.String()
	}
	return l
}

func subscription(s upstream.Subscription) Subscription {
	out := Subscription{
		Filter: s.Filter, DeviceFilters: append([]string{}, s.Locals...), Configured: s.Configured, QoS: int(s.QoS),
		Verdict: string(s.Verdict),
	}
	if s.Verdict == upstream.VerdictGranted {
		granted := int(s.Granted)
		out.GrantedQoS = &granted
	}
	return out
}

// counts gathers DeviceCounts.
func newCounts() DeviceCounts {
	c := DeviceCounts{ByState: make(map[string]int, len(States))}
	for _, s := range States {
		c.ByState[string(s)] = 0
	}
	return c
}

func (c *DeviceCounts) add(d *DeviceSummary) {
	c.Total++
	c.ByState[d.State]++
	if d.Connected {
		c.Connected++
	}
	if d.Failure != nil {
		c.Failing++
		if d.Failure.Alarm {
			c.Alarm++
		}
	}
}

// problems gathers what keeps devices offline, by cloud and kind.
func problems(devices []DeviceSummary) []Problem {
	type key struct{ cloud, kind string }
	found := make(map[key]*Problem)
	var order []*Problem
	for i := range devices {
		d := &devices[i]
		if d.Failure == nil {
			continue
		}
		k := key{d.Cloud, d.Failure.Kind}
		p := found[k]
		if p == nil {
			info := failure.Kind(d.Failure.Kind).Info()
			p = &Problem{
				Cloud: d.Cloud, Kind: d.Failure.Kind, Class: string(info.Class), Alarm: info.Alarm, Says: info.Says,
				Causes: info.Causes, Remedy: info.Remedy, Device: d.Name,
			}
			found[k], order = p, append(order, p)
		}
		p.Devices++
	}
	slices.SortStableFunc(order, func(x, y *Problem) int {
		if x.Alarm != y.Alarm {
			if x.Alarm {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(y.Devices, x.Devices), cmp.Compare(x.Cloud, y.Cloud), cmp.Compare(x.Kind, y.Kind))
	})
	all := make([]Problem, len(order))
	for i, p := range order {
		all[i] = *p
	}
	return all
}

// stamp is nil for no time.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// seconds is a duration in seconds, to the millisecond.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
