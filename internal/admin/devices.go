package admin

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/upstream"
)

func (a *Admin) status(w http.ResponseWriter, r *http.Request) {
	answer(w, r, a.overview(a.summaries()))
}

func (a *Admin) summaries() []DeviceSummary {
	all, current := a.sampler.look()
	devices := make([]DeviceSummary, len(all))
	for i := range all {
		devices[i] = summary(&all[i], current[all[i].Name])
	}
	return devices
}

// overview makes the status of the fleet from all devices.
func (a *Admin) overview(devices []DeviceSummary) *Status {
	o := a.opts.Source.Overview()
	now := time.Now()
	s := &Status{
		At: now, Version: a.opts.Version, Revision: a.opts.Revision, StartedAt: a.started,
		UptimeSeconds: seconds(now.Sub(a.started)), NotReady: notReady(&o), Listen: []string{}, Devices: newCounts(),
		Clouds: []CloudStatus{}, Problems: problems(devices), Spool: spool(&o),
		Memory: Memory{UsedBytes: o.MemoryUsed, LimitBytes: o.MemoryLimit},
		Local: Connections{
			Open: o.Connections.Connections, Limit: o.MaxConnections, RefusedLogins: o.Connections.Refused,
			TurnedAway: o.Connections.TurnedAway,
		},
		Dials: Dials{Waiting: o.Dials.Waiting, Open: o.Dials.Open}, Leftovers: []Leftover{},
		Clock: Clock{
			State: string(o.Clock.Kind), SystemTime: o.Clock.System, UsedTime: o.Clock.Now,
			OffsetSeconds: seconds(o.Clock.Offset), Source: o.Clock.Source, Reason: o.Clock.Reason, Remedy: o.Clock.Remedy,
			Sets: o.Clock.Sets,
		},
		RateWindowSeconds: rateWindow.Seconds(),
	}
	s.Ready = len(s.NotReady) == 0
	for _, addr := range o.Listen {
		s.Listen = append(s.Listen, addr.String())
	}
	for _, l := range o.Unclaimed {
		s.Leftovers = append(s.Leftovers, Leftover{Device: l.Device, UpMessages: l.Up, DownMessages: l.Down})
	}
	place := make(map[string]int)
	for i, c := range o.Clouds {
		place[c.Name] = i
		s.Clouds = append(s.Clouds, CloudStatus{
			Name: c.Name, Provider: c.Provider, Endpoint: c.Endpoint, Devices: newCounts(),
			CertificateExpiresAt: stamp(c.Certificate),
		})
	}
	for i := range devices {
		d := &devices[i]
		s.Devices.add(d)
		s.Up.add(&d.Up)
		s.Down.add(&d.Down)
		if at, ok := place[d.Cloud]; ok { // it may have been removed meanwhile
			s.Clouds[at].Devices.add(d)
		}
	}
	return s
}

func spool(o *bridge.Overview) Spool {
	s := Spool{
		Bytes: o.Spool.Bytes, LimitBytes: o.Spool.Limit, Commits: o.Spool.Commits, Messages: o.Spool.Messages,
	}
	if f := o.Spool.Fault; f != nil {
		s.Fault = &SpoolFault{Since: f.Since, Error: f.Err.Error(), Remedy: bridge.SpoolRemedy(f.Err)}
	}
	return s
}

func (a *Admin) device(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	st, ok := a.opts.Source.DeviceStatus(name)
	if !ok {
		refuse(w, r, Fault{
			Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no device %q", name),
			Remedy: "GET /api/v1/devices lists them",
		})
		return
	}
	answer(w, r, device(&st, a.sampler.latest(name), time.Now()))
}

func (a *Admin) devices(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		refuse(w, r, Fault{
			Status: http.StatusBadRequest, Detail: err.Error(), Remedy: "GET /api/v1/openapi.yaml describes the parameters",
		})
		return
	}
	all := a.summaries()
	found := q.filter(all)
	q.order(found)
	list := DeviceList{
		At: time.Now(), Total: len(all), Matching: len(found), Limit: q.limit, Offset: q.offset, Devices: []DeviceSummary{},
	}
	if q.offset < len(found) {
		list.Devices = append(list.Devices, found[q.offset:min(len(found), q.offset+q.limit)]...)
	}
	answer(w, r, list)
}

// query is which devices are asked for.
type query struct {
	clouds, states []string // any of them, all if there are none
	text           string   // in lower case
	failing        bool
	sort           string
	down           bool // sorted downwards
	limit, offset  int
}

const (
	defaultLimit = 100
	maxLimit     = 10000
)

func parseQuery(v url.Values) (q query, err error) {
	q = query{
		clouds: words(v["cloud"]), states: words(v["state"]), text: strings.ToLower(v.Get("q")), limit: defaultLimit,
	}
	for name := range v {
		switch name {
		case "cloud", "state", "q", "failing", "sort", "limit", "offset", "token":
		default:
			return q, fmt.Errorf("there is no parameter %q", name)
		}
	}
	for _, s := range q.states {
		if !slices.ContainsFunc(States, func(known upstream.State) bool { return string(known) == s }) {
			return q, fmt.Errorf("there is no state %q", s)
		}
	}
	q.sort, q.down = strings.CutPrefix(v.Get("sort"), "-")
	if _, ok := orders[q.sort]; !ok && q.sort != "" {
		return q, fmt.Errorf("devices cannot be sorted by %q", q.sort)
	}
	if s := v.Get("failing"); s != "" {
		if q.failing, err = strconv.ParseBool(s); err != nil {
			return q, fmt.Errorf("failing is %q, neither true nor false", s)
		}
	}
	if err := parseNumber(v, "limit", &q.limit, maxLimit); err != nil {
		return q, err
	}
	return q, parseNumber(v, "offset", &q.offset, 1<<31-1)
}

func parseNumber(v url.Values, name string, to *int, most int) error {
	s := v.Get(name)
	if s == "" {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return fmt.Errorf("%s is %q, not a number from 0 to %d", name, s, most)
	}
	*to = n
	return nil
}

// words are what parameters list, each or with commas.
func words(values []string) (all []string) {
	for _, v := range values {
		for w := range strings.SplitSeq(v, ",") {
			if w != "" {
				all = append(all, w)
			}
		}
	}
	return all
}

func (q *query) filter(all []DeviceSummary) (found []DeviceSummary) {
	for i := range all {
		d := &all[i]
		if len(q.clouds) > 0 && !slices.Contains(q.clouds, d.Cloud) ||
			len(q.states) > 0 && !slices.Contains(q.states, d.State) ||
			q.failing && d.Failure == nil || !q.matches(d) {
			continue
		}
		found = append(found, *d)
	}
	return found
}

// matches says whether a device's name, cloud, reason or kind of failure holds the text.
func (q *query) matches(d *DeviceSummary) bool {
	if q.text == "" {
		return true
	}
	in := []string{d.Name, d.Cloud, d.Reason}
	if d.Failure != nil {
		in = append(in, d.Failure.Kind, d.Failure.Reason)
	}
	return slices.ContainsFunc(in, func(s string) bool { return strings.Contains(strings.ToLower(s), q.text) })
}

// orders are what devices can be sorted by.
var orders = map[string]func(x, y *DeviceSummary) int{
	"name":  func(x, y *DeviceSummary) int { return cmp.Compare(x.Name, y.Name) },
	"cloud": func(x, y *DeviceSummary) int { return cmp.Compare(x.Cloud, y.Cloud) },
	"state": func(x, y *DeviceSummary) int { return cmp.Compare(rank(x), rank(y)) },
	"since": func(x, y *DeviceSummary) int { return x.Since.Compare(y.Since) },
	"queued": func(x, y *DeviceSummary) int {
		return cmp.Compare(x.Up.QueuedMessages+x.Down.QueuedMessages, y.Up.QueuedMessages+y.Down.QueuedMessages)
	},
	"oldest": func(x, y *DeviceSummary) int {
		return cmp.Compare(max(x.Up.OldestAgeSeconds, x.Down.OldestAgeSeconds),
			max(y.Up.OldestAgeSeconds, y.Down.OldestAgeSeconds))
	},
	"dropped": func(x, y *DeviceSummary) int {
		return cmp.Compare(x.Up.DroppedMessages+x.Down.DroppedMessages, y.Up.DroppedMessages+y.Down.DroppedMessages)
	},
	"rate": func(x, y *DeviceSummary) int { return cmp.Compare(throughput(x), throughput(y)) },
}

// Orders are what devices can be sorted by; with "-" before it, downwards.
func Orders() []string { return slices.Sorted(maps.Keys(orders)) }

// rank has devices that fail and need a person first, then those that fail, then by state.
func rank(d *DeviceSummary) int {
	for i, s := range States {
		if string(s) != d.State {
			continue
		}
		switch {
		case d.Failure == nil:
			return 2*len(States) + i
		case !d.Failure.Alarm:
			return len(States) + i
		}
		return i
	}
	return 0
}

func throughput(d *DeviceSummary) float64 {
	return d.Up.AcceptedMessagesPerSecond + d.Down.AcceptedMessagesPerSecond
}

// order sorts devices; those that are equal, and all of them without a wish, stay in the order of the configuration.
func (q *query) order(devices []DeviceSummary) {
	compare := orders[q.sort]
	if compare == nil {
		return
	}
	slices.SortStableFunc(devices, func(x, y DeviceSummary) int {
		if q.down {
			return compare(&y, &x)
		}
		return compare(&x, &y)
	})
}
