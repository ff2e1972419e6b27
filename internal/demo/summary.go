package demo

import (
	"fmt"
	"time"

	"bridged/internal/lane"
)

// summarise prints what was counted, and whether it is as it should be.
func (s *stage) summarise() {
	s.checkLedgers()
	s.acct.text(fmt.Sprintf("\nAfter %s:\n\n", time.Since(s.start).Round(100*time.Millisecond)))
	repeated := s.table()
	s.totals()
	if s.faults > 0 {
		s.listFaults()
		return
	}
	s.acct.text(s.acct.paint(good, "Every message arrived, in order, and was acknowledged.") + "\n")
	if repeated > 0 {
		s.acct.text(fmt.Sprintf("Messages that came again since a connection was lost, as QoS 1 has it: %d.\n", repeated))
	}
}

// table prints a row for each direction of each device, and returns how many messages were repeated.
func (s *stage) table() (repeated int) {
	row := func(device, cloud, dir string, cells ...any) {
		s.acct.text(fmt.Sprintf("  %s  %s  %-4s", pad(device, s.acct.device), pad(cloud, s.acct.cloud), dir) +
			fmt.Sprintf("  %5v  %5v  %7v  %8v  %7v  %7v\n", cells...))
	}
	row("device", "cloud", "", "sent", "acked", "arrived", "repeated", "median", "longest")
	for _, d := range s.devices {
		t, median, longest := d.up.result()
		row(d.name, d.label, "up", t.sent, t.acked, t.arrived, t.repeated, took(median), took(longest))
		repeated += t.repeated
		t, median, longest = d.down.result()
		row("", "", "down", t.sent, t.acked, t.arrived, t.repeated, took(median), took(longest))
		repeated += t.repeated
	}
	return repeated
}

// totals prints what the clouds have counted.
func (s *stage) totals() {
	logins, refused, violations := 0, 0, 0
	for _, c := range s.clouds {
		t := c.Totals()
		logins += int(t.Connects)
		violations += int(t.Violations)
		for _, f := range c.LoginFailures() {
			if f.Code != 0 || f.Status != 0 {
				refused++
			}
		}
	}
	s.acct.text(fmt.Sprintf("\nThe clouds verified %s, refused %d, and saw %s of their rules.\n",
		count(logins, "login"), refused, count(violations, "violation")))
}

// listFaults prints what must not have happened.
func (s *stage) listFaults() {
	s.acct.text(s.acct.paint(bad, count(s.faults, "fault")+":") + "\n")
	for _, f := range s.first {
		s.acct.text("  " + f + "\n")
	}
	if more := s.faults - len(s.first); more > 0 {
		s.acct.text(fmt.Sprintf("  and %d more\n", more))
	}
}

// checkLedgers asks the bridge for its own ledgers, which know nothing of the books here.
func (s *stage) checkLedgers() {
	for _, d := range s.devices {
		st, _ := s.bridge.DeviceStatus(d.name)
		s.checkLedger(d, up, st.Up)
		s.checkLedger(d, down, st.Down)
	}
}

func (s *stage) checkLedger(d *device, dir mark, c lane.Counters) {
	if dropped := c.DroppedTotal(); c.Queued > 0 || dropped > 0 || c.Accepted != c.Delivered {
		s.fault(fmt.Sprintf("%s %s %s: the bridge's ledger: accepted %d, delivered %d, queued %d, dropped %d",
			d.name, dir, d.label, c.Accepted, c.Delivered, c.Queued, dropped))
	}
}

// count says how many there are of something.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
