package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"bridged/internal/admin"
	"bridged/internal/demo"
)

// statusPrinter prints answers of the API for a person.
type statusPrinter struct {
	w     io.Writer
	style demo.Style
	now   time.Time
}

func newStatusPrinter(w io.Writer, env LookupEnv, now time.Time) *statusPrinter {
	as := w
	if c, ok := w.(colourOf); ok {
		as = c.as
	}
	return &statusPrinter{w: w, style: styleOf(as, env), now: now}
}

// The colours.
const (
	red    = "1;31"
	yellow = "33"
	green  = "32"
	bold   = "1"
	dim    = "2"
)

func (p *statusPrinter) tint(colour, text string) string {
	if !p.style.Colour || colour == "" || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (p *statusPrinter) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// row prints a name and what belongs to it.
func (p *statusPrinter) row(name, format string, args ...any) {
	p.printf("%s %s\n", p.tint(dim, fmt.Sprintf("%-14s", name)), fmt.Sprintf(format, args...))
}

// fleet prints the fleet at a glance.
func (p *statusPrinter) fleet(s *admin.Status) {
	state := p.tint(green, "ready")
	if !s.Ready {
		state = p.tint(red, "not ready: "+strings.Join(s.NotReady, "; "))
	}
	p.printf("%s, running for %s, %s\n", p.tint(bold, "bridged "+s.Version), span(s.UptimeSeconds), state)
	p.row("devices", "%s", p.counts(&s.Devices))
	if len(s.Clouds) > 1 {
		for _, c := range s.Clouds {
			p.row("  "+c.Name, "%s", p.counts(&c.Devices))
		}
	}
	p.row("listening", "%s; %d of %d connections", strings.Join(s.Listen, ", "), s.Local.Open, s.Local.Limit)
	p.row("up", "%s", p.flow(&s.Up))
	p.row("down", "%s", p.flow(&s.Down))
	p.row("memory", "%s of %s", sizeOf(s.Memory.UsedBytes), sizeOf(s.Memory.LimitBytes))
	disk := fmt.Sprintf("%s of %s", sizeOf(s.Spool.Bytes), sizeOf(s.Spool.LimitBytes))
	if f := s.Spool.Fault; f != nil {
		disk += ", " + p.tint(red, "messages cannot be stored: "+f.Error) + "; " + f.Remedy
	}
	p.row("disk", "%s", disk)
	if s.Clock.State != "fine" {
		p.row("clock", "%s", p.tint(yellow, s.Clock.Reason))
	}
	for _, l := range s.Leftovers {
		p.row("left over", "%s is not configured: %d up, %d down are kept", printable(l.Device), l.UpMessages, l.DownMessages)
	}
	for _, pr := range s.Problems {
		colour := yellow
		if pr.Alarm {
			colour = red
		}
		p.printf("\n%s\n", p.tint(colour, fmt.Sprintf("%s: %s (%s): %s", pr.Cloud, count(pr.Devices, "device"),
			examples(printable(pr.Device), pr.Devices), pr.Says)))
		p.printf("  %s\n", pr.Remedy)
	}
}

func examples(name string, of int) string {
	if of == 1 {
		return name
	}
	return "as " + name
}

// counts says how many devices are in which state.
func (p *statusPrinter) counts(c *admin.DeviceCounts) string {
	parts := []string{fmt.Sprintf("%d", c.Total)}
	var states []string
	for _, s := range admin.States {
		if n := c.ByState[string(s)]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(states) > 0 {
		parts[0] += ": " + strings.Join(states, ", ")
	}
	parts = append(parts, fmt.Sprintf("%d connected on the LAN", c.Connected))
	if c.Failing > 0 {
		parts = append(parts, p.tint(yellow, fmt.Sprintf("%d offline because of a failure", c.Failing)))
	}
	if c.Alarm > 0 {
		parts = append(parts, p.tint(red, fmt.Sprintf("%d of them for a person to mend", c.Alarm)))
	}
	return strings.Join(parts, "; ")
}

func (p *statusPrinter) flow(f *admin.Flow) string {
	text := fmt.Sprintf("%s a second, %d queued", perSecond(f.AcceptedMessagesPerSecond), f.QueuedMessages)
	if f.QueuedMessages > 0 {
		text += fmt.Sprintf(" (%s, %d on disk), the oldest for %s", sizeOf(f.QueuedBytes), f.StoredMessages,
			span(f.OldestAgeSeconds))
	}
	if f.DroppedMessages > 0 {
		text += ", " + p.tint(yellow, fmt.Sprintf("%d dropped", f.DroppedMessages))
	}
	return text
}

// table prints the devices.
func (p *statusPrinter) table(devices []admin.DeviceSummary) {
	if len(devices) == 0 {
		p.printf("\nno devices\n")
		return
	}
	rows := [][]string{{"DEVICE", "CLOUD", "STATE", "FOR", "LAN", "UP/s", "DOWN/s", "QUEUED", "OLDEST", "DROPPED", "WHY"}}
	for i := range devices {
		rows = append(rows, p.line(&devices[i]))
	}
	widths := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	p.printf("\n")
	for i, r := range rows {
		var line strings.Builder
		for j, cell := range r {
			if j == len(r)-1 {
				line.WriteString(cell)
				continue
			}
			line.WriteString(cell + strings.Repeat(" ", widths[j]-utf8.RuneCountInString(cell)+2))
		}
		colour := bold
		if i > 0 {
			colour = colourFor(&devices[i-1])
		}
		p.printf("%s\n", p.tint(colour, strings.TrimRight(line.String(), " ")))
	}
}

func (p *statusPrinter) line(d *admin.DeviceSummary) []string {
	lan, oldest, why := "no", "", d.Reason
	if d.Connected {
		lan = "yes"
	}
	if age := max(d.Up.OldestAgeSeconds, d.Down.OldestAgeSeconds); d.Up.QueuedMessages+d.Down.QueuedMessages > 0 {
		oldest = span(age)
	}
	since := d.Since
	if d.Failure != nil {
		why = d.Failure.Reason
		if d.OfflineSince != nil {
			since = *d.OfflineSince
		}
	}
	return []string{
		printable(d.Name), d.Cloud, d.State, p.ago(since), lan, perSecond(d.Up.AcceptedMessagesPerSecond),
		perSecond(d.Down.AcceptedMessagesPerSecond), strconv.Itoa(d.Up.QueuedMessages + d.Down.QueuedMessages), oldest,
		strconv.FormatUint(d.Up.DroppedMessages+d.Down.DroppedMessages, 10), why,
	}
}

func colourFor(d *admin.DeviceSummary) string {
	switch {
	case d.Failure != nil && d.Failure.Alarm:
		return red
	case d.Failure != nil:
		return yellow
	case d.State == "online":
		return green
	}
	return ""
}

// device prints all that there is to say about a device.
func (p *statusPrinter) device(d *admin.Device) {
	p.printf("%s (%s): %s\n", p.tint(bold, printable(d.Name)), d.Cloud, p.tint(colourFor(&d.DeviceSummary), p.headline(d)))
	if f := d.LastFailure; f != nil && d.Failure != nil {
		p.row("remedy", "%s", f.Remedy)
		p.row("usual causes", "%s", strings.Join(f.Causes, "; "))
		next := ""
		if d.NextAttemptAt != nil {
			next = ", the next attempt in " + span(max(0, d.NextAttemptAt.Sub(p.now).Seconds()))
		}
		p.row("attempts", "%d in a row have failed%s", d.Failures, next)
	} else if f != nil {
		p.row("last failure", "%s ago: %s", p.ago(f.At), f.Error)
		p.row("", "%s", f.Remedy)
	}
	p.local(d)
	for _, c := range []struct {
		what string
		at   *time.Time
	}{{"cloud's", d.Certificates.CloudExpiresAt}, {"client", d.Certificates.ClientExpiresAt}} {
		if c.at != nil {
			p.row("certificate", "the %s one expires on %s", c.what, c.at.Format(time.DateOnly))
		}
	}
	p.ledgers(d)
	p.subscriptions(d)
	p.timeline(d)
}

func (p *statusPrinter) headline(d *admin.Device) string {
	if d.Failure == nil {
		return fmt.Sprintf("%s for %s", d.State, p.ago(d.Since)) + because(d.Reason)
	}
	since := d.Since
	if d.OfflineSince != nil {
		since = *d.OfflineSince
	}
	return fmt.Sprintf("offline for %s: %s", p.ago(since), d.LastFailure.Error)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func (p *statusPrinter) local(d *admin.Device) {
	switch l := &d.Local; {
	case l.Connected && l.Since != nil:
		p.row("LAN", "connected for %s from %s, MQTT %s", p.ago(*l.Since), l.RemoteAddress, l.Protocol)
	case l.Since != nil:
		p.row("LAN", "%s", p.tint(yellow, "the device left "+p.ago(*l.Since)+" ago"))
	default:
		p.row("LAN", "%s", p.tint(yellow, "the device has not connected since bridged started"))
	}
}

func (p *statusPrinter) ledgers(d *admin.Device) {
	for _, dir := range []struct {
		name string
		flow *admin.Flow
		l    *admin.Ledger
	}{{"up", &d.Up, &d.UpLedger}, {"down", &d.Down, &d.DownLedger}} {
		l := dir.l
		p.row(dir.name, "%d accepted = %d delivered + %d queued + %d dropped; %s a second", l.AcceptedMessages,
			l.DeliveredMessages, l.QueuedMessages, l.DroppedMessages, perSecond(dir.flow.AcceptedMessagesPerSecond))
		if l.QueuedMessages > 0 {
			p.row("", "queued: %s of %s, %d on disk, %d in flight, the oldest for %s", sizeOf(l.QueuedBytes),
				sizeOf(d.Queue.LimitBytes), l.StoredMessages, l.InFlightMessages, span(l.OldestAgeSeconds))
		}
		for _, reason := range slices.Sorted(maps.Keys(l.DroppedByReason)) {
			p.row("", "%s", p.tint(yellow, fmt.Sprintf("dropped: %d %s", l.DroppedByReason[reason], reason)))
		}
	}
}

func (p *statusPrinter) subscriptions(d *admin.Device) {
	for i, s := range d.Subscriptions {
		name := ""
		if i == 0 {
			name = "subscriptions"
		}
		verdict := s.Verdict
		switch {
		case s.GrantedQoS != nil:
			verdict = fmt.Sprintf("granted, QoS %d", *s.GrantedQoS)
		case s.Verdict == "refused":
			verdict = p.tint(red, "refused by the cloud")
		}
		p.row(name, "%s: %s", printable(s.Filter), verdict)
	}
	if more := d.SubscriptionsTotal - len(d.Subscriptions); more > 0 {
		p.row("", "and %d more", more)
	}
}

func (p *statusPrinter) timeline(d *admin.Device) {
	p.printf("\n")
	for _, c := range d.Timeline {
		text := fmt.Sprintf("%s  %-11s  %6s", c.At.Local().Format(time.DateTime), c.State, span(c.Seconds))
		if c.Reason != "" {
			text += "  " + c.Reason
		}
		if c.Times > 1 {
			text += fmt.Sprintf(" (%d times)", c.Times)
		}
		p.printf("%s\n", text)
	}
}

// printable is what a device has named, without what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// ago is for how long something has been so.
func (p *statusPrinter) ago(t time.Time) string { return span(max(0, p.now.Sub(t).Seconds())) }

// span is a duration for a person, in two units at most.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	const day = 24 * time.Hour
	two := func(n time.Duration, unit string, rest time.Duration, small string) string {
		if rest == 0 {
			return fmt.Sprintf("%d%s", n, unit)
		}
		return fmt.Sprintf("%d%s%d%s", n, unit, rest, small)
	}
	switch {
	case d >= day:
		return two(d/day, "d", d%day/time.Hour, "h")
	case d >= time.Hour:
		return two(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	case d >= 10*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d >= time.Minute:
		return two(d/time.Minute, "m", d%time.Minute/time.Second, "s")
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// sizeOf is a size for a person.
func sizeOf(n int64) string {
	const unit = 1024
	size, names := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for size >= unit && len(names) > 1 {
		size, names = size/unit, names[1:]
	}
	return strconv.FormatFloat(size, 'f', cmp.Compare(size, float64(int64(size))), 64) + " " + names[0]
}

// perSecond is a rate for a person.
func perSecond(n float64) string {
	if n >= 10 {
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}
