package admin

import (
	"net/http"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"bridged/internal/bridge"
	"bridged/internal/clock"
	"bridged/internal/failure"
	"bridged/internal/lane"
)

// scrapesAtOnce bounds how many scrapes are answered at the same time.
const scrapesAtOnce = 4

func (a *Admin) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{admin: a},
	)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesAtOnce, ErrorLog: zap.NewStdLog(a.opts.Log),
	})
}

// collector makes metrics of snapshots when they are asked for.
type collector struct{ admin *Admin }

// descs are all metrics, in the order of their declaration.
var descs []*prometheus.Desc

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("bridged_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// The metrics. Every label but device, which has its cap, comes from the configuration or from a fixed list.
var (
	buildInfo = desc("build_info", "What was built; always 1.", "version", "revision", "goversion")
	ready     = desc("ready", "Whether devices may connect and messages can be stored.")

	devices   = desc("devices", "Devices by cloud and state.", "cloud", "state")
	connected = desc("devices_connected", "Devices that are connected on the LAN.", "cloud")
	failing   = desc("devices_failing", "Devices without a session because of a failure.", "cloud", "class", "kind")

	connects = desc("cloud_connects_total", "Sessions that were established.", "cloud")
	failures = desc("cloud_failures_total", "Attempts that failed and sessions that ended with a failure.",
		"cloud", "class", "kind")
	lowered  = desc("cloud_messages_lowered_total", "Messages sent at a lower QoS, which the cloud takes.", "cloud")
	stripped = desc("cloud_messages_stripped_total", "Messages sent without the retain flag, for a cloud without.",
		"cloud")
	refusals = desc("cloud_subscriptions_refused_late_total",
		"Subscriptions that a device believes to be granted, and its cloud refused.", "cloud")
	cloudExpiry = desc("cloud_certificate_expiry_timestamp_seconds",
		"When the certificate that the cloud has shown last expires.", "cloud")
	clientExpiry = desc("client_certificate_expiry_timestamp_seconds", "When a client certificate expires.", "file")

	accepted  = desc("messages_accepted_total", "Messages taken from devices (up) or clouds (down).", "cloud", "direction")
	delivered = desc("messages_delivered_total", "Messages that the far side has acknowledged, QoS 0: sent.",
		"cloud", "direction")
	dropped = desc("messages_dropped_total", "Messages dropped by a rule.", "cloud", "direction", "reason")

	queued    = desc("queue_messages", "Messages that wait or are in flight.", "cloud", "direction")
	queuedIn  = desc("queue_bytes", "Size of the messages that wait or are in flight.", "cloud", "direction")
	inFlight  = desc("queue_in_flight_messages", "Messages sent and not acknowledged.", "cloud", "direction")
	stored    = desc("queue_stored_messages", "Messages in the queues that are on disk.", "cloud", "direction")
	storedIn  = desc("queue_stored_bytes", "Size of the messages in the queues that are on disk.", "cloud", "direction")
	oldest    = desc("queue_oldest_age_seconds", "Age of the oldest message that waits.", "cloud", "direction")
	memory    = desc("queue_memory_bytes", "Memory that all queues take.")
	memoryMax = desc("queue_memory_limit_bytes", "Memory that all queues may take.")

	spoolBytes    = desc("spool_bytes", "Size of the messages on disk.")
	spoolMax      = desc("spool_limit_bytes", "Size that the messages on disk may have.")
	spoolCommits  = desc("spool_commits_total", "Commits to disk.")
	spoolMessages = desc("spool_messages_total", "Messages stored on disk.")
	spoolFault    = desc("spool_fault", "Whether messages cannot be stored on disk.")
	leftovers     = desc("leftover_messages", "Messages kept for devices that are not configured.", "direction")

	connections    = desc("connections", "Connections on the LAN, logged in or not.")
	connectionsMax = desc("connections_limit", "Connections that there may be on the LAN.")
	turnedAway     = desc("connections_turned_away_total", "Connections closed because there were too many.")
	loginsRefused  = desc("logins_refused_total", "Logins of devices that were refused.")

	dialsWaiting = desc("dials_waiting", "Connects to clouds that wait for their turn.")
	dialsOpen    = desc("dials_open", "Connects to clouds that are under way.")

	clockState  = desc("clock_state", "How the clock is: 1 for the state that it is in.", "state")
	clockOffset = desc("clock_offset_seconds", "What is added to the system's clock, or what a source says it is off by.")
	clockSets   = desc("clock_sets_total", "How often the system's clock was set.")

	deviceState    = desc("device_state", "The state that a device is in; always 1.", "device", "cloud", "state")
	deviceAccepted = desc("device_messages_accepted_total", "Messages taken, from the device (up) or its cloud (down).",
		"device", "direction")
	deviceDelivered = desc("device_messages_delivered_total", "Messages that the far side has acknowledged, QoS 0: sent.",
		"device", "direction")
	deviceDropped = desc("device_messages_dropped_total", "Messages dropped by a rule.", "device", "direction")
	deviceQueued  = desc("device_queue_messages", "Messages that wait or are in flight.", "device", "direction")
	deviceOldest  = desc("device_queue_oldest_age_seconds", "Age of the oldest message that waits.", "device", "direction")
	deviceOmitted = desc("device_metrics_omitted", "Devices without metrics of their own, beyond admin.device_metrics.")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// out sends metrics.
type out chan<- prometheus.Metric

func (o out) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o out) counter(d *prometheus.Desc, v uint64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	a, o := c.admin, out(ch)
	all, _ := a.sampler.look()
	ov := a.opts.Source.Overview()
	o.gauge(buildInfo, 1, a.opts.Version, a.opts.Revision, runtime.Version())
	o.gauge(ready, truth(len(notReady(&ov)) == 0))
	o.process(&ov)
	o.fleet(&ov, all)
	for cloud, t := range a.sampler.sums() {
		o.sums(cloud, &t)
	}
	if n := a.opts.DeviceMetrics; n > 0 {
		o.devices(all[:min(n, len(all))])
		o.gauge(deviceOmitted, float64(max(0, len(all)-n)))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// process tells of what all devices share.
func (o out) process(ov *bridge.Overview) {
	o.gauge(memory, float64(ov.MemoryUsed))
	o.gauge(memoryMax, float64(ov.MemoryLimit))
	o.gauge(spoolBytes, float64(ov.Spool.Bytes))
	o.gauge(spoolMax, float64(ov.Spool.Limit))
	o.counter(spoolCommits, ov.Spool.Commits)
	o.counter(spoolMessages, ov.Spool.Messages)
	o.gauge(spoolFault, truth(ov.Spool.Fault != nil))
	var left [2]int
	for _, l := range ov.Unclaimed {
		left[lane.Up] += l.Up
		left[lane.Down] += l.Down
	}
	for dir, n := range left {
		o.gauge(leftovers, float64(n), lane.Direction(dir).String())
	}
	o.gauge(connections, float64(ov.Connections.Connections))
	o.gauge(connectionsMax, float64(ov.MaxConnections))
	o.counter(turnedAway, ov.Connections.TurnedAway)
	o.counter(loginsRefused, ov.Connections.Refused)
	o.gauge(dialsWaiting, float64(ov.Dials.Waiting))
	o.gauge(dialsOpen, float64(ov.Dials.Open))
	for _, k := range []clock.Kind{clock.Fine, clock.Unset, clock.Corrected, clock.Wrong} {
		o.gauge(clockState, truth(ov.Clock.Kind == k), string(k))
	}
	o.gauge(clockOffset, ov.Clock.Offset.Seconds())
	o.counter(clockSets, ov.Clock.Sets)
	for _, p := range ov.ClientCertificates {
		if !p.Expires.IsZero() {
			o.gauge(clientExpiry, float64(p.Expires.Unix()), p.File)
		}
	}
	for _, f := range ov.Failures {
		o.counter(failures, f.Count, f.Cloud, string(f.Kind.Info().Class), string(f.Kind))
	}
}

// census counts the devices of a cloud.
type census struct {
	states    map[string]int
	connected int
	failing   map[failure.Kind]int
	queues    [2]lane.Counters
}

// fleet tells of the devices as they are now.
func (o out) fleet(ov *bridge.Overview, all []bridge.DeviceSummary) {
	clouds := make(map[string]*census)
	of := func(cloud string) *census {
		if clouds[cloud] == nil {
			clouds[cloud] = &census{states: make(map[string]int), failing: make(map[failure.Kind]int)}
		}
		return clouds[cloud]
	}
	for _, c := range ov.Clouds {
		of(c.Name) // also those without devices
		if !c.Certificate.IsZero() {
			o.gauge(cloudExpiry, float64(c.Certificate.Unix()), c.Name)
		}
	}
	for i := range all {
		of(all[i].Cloud).add(&all[i])
	}
	for cloud, c := range clouds {
		for _, s := range States {
			o.gauge(devices, float64(c.states[string(s)]), cloud, string(s))
		}
		o.gauge(connected, float64(c.connected), cloud)
		for kind, n := range c.failing {
			o.gauge(failing, float64(n), cloud, string(kind.Info().Class), string(kind))
		}
		for dir := range c.queues {
			q, name := &c.queues[dir], lane.Direction(dir).String()
			o.gauge(queued, float64(q.Queued), cloud, name)
			o.gauge(queuedIn, float64(q.Bytes), cloud, name)
			o.gauge(inFlight, float64(q.InFlight), cloud, name)
			o.gauge(stored, float64(q.Stored), cloud, name)
			o.gauge(storedIn, float64(q.StoredBytes), cloud, name)
			o.gauge(oldest, q.Oldest.Seconds(), cloud, name)
		}
	}
}

func (c *census) add(d *bridge.DeviceSummary) {
	c.states[string(d.Session.State)]++
	if d.Local.Connected {
		c.connected++
	}
	if f := d.Session.Failing(); f != nil {
		c.failing[f.Kind]++
	}
	for dir, q := range [2]*lane.Counters{&d.Up, &d.Down} {
		sum := &c.queues[dir]
		sum.Queued += q.Queued
		sum.Bytes += q.Bytes
		sum.InFlight += q.InFlight
		sum.Stored += q.Stored
		sum.StoredBytes += q.StoredBytes
		sum.Oldest = max(sum.Oldest, q.Oldest)
	}
}

// sums tells what the devices of a cloud have done since the start.
func (o out) sums(cloud string, t *totals) {
	o.counter(connects, t.session.connects, cloud)
	o.counter(lowered, t.session.lowered, cloud)
	o.counter(stripped, t.session.stripped, cloud)
	o.counter(refusals, t.session.refusals, cloud)
	for dir := range t.flows {
		c, name := &t.flows[dir], lane.Direction(dir).String()
		o.counter(accepted, c.Accepted, cloud, name)
		o.counter(delivered, c.Delivered, cloud, name)
		for _, r := range lane.Reasons() {
			o.counter(dropped, c.Dropped[r], cloud, name, r.String())
		}
	}
}

// devices tells of each device.
func (o out) devices(all []bridge.DeviceSummary) {
	for i := range all {
		d := &all[i]
		device := strings.ToValidUTF8(d.Name, "?") // those that sign themselves bring their names
		o.gauge(deviceState, 1, device, d.Cloud, string(d.Session.State))
		for dir, c := range [2]*lane.Counters{&d.Up, &d.Down} {
			name := lane.Direction(dir).String()
			o.counter(deviceAccepted, c.Accepted, device, name)
			o.counter(deviceDelivered, c.Delivered, device, name)
			o.counter(deviceDropped, c.DroppedTotal(), device, name)
			o.gauge(deviceQueued, float64(c.Queued), device, name)
			o.gauge(deviceOldest, c.Oldest.Seconds(), device, name)
		}
	}
}
