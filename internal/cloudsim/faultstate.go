package cloudsim

import "time"

// fault is what is wrong for one device, or for all.
type fault struct {
	refuse         byte // CONNACK code, 0 none
	filters        map[string]struct{}
	delay          time.Duration
	connack, reads bool // stalled
	acks, subacks  bool // withheld
	lose           countdown
	drop           countdown
	dropHow        Cut
}

// countdown does something after so many packets, a number of times for each device. Its serial number tells devices
// whether they have met it, and which of two is the newer one, which counts.
type countdown struct {
	serial  uint64 // 0: not set
	packets int
	times   int // below 0: no end
}

// faults are all that is wrong. Cloud.mu guards it.
type faults struct {
	by            map[string]*fault // by device, or All
	upgradeStatus int
	upgradeTimes  int // below 0: no end
	stallTLS      bool
	stallUpgrade  bool
	serial        uint64
	changed       chan struct{} // closed at the next change, nil while nobody waits
}

// of returns the fault of a device merged with that of All.
func (f *faults) of(device string) fault {
	if len(f.by) == 0 {
		return fault{}
	}
	var m fault
	for _, p := range []*fault{f.by[device], f.by[All]} {
		if p == nil {
			continue
		}
		if m.refuse == 0 {
			m.refuse = p.refuse
		}
		if p.lose.serial > m.lose.serial {
			m.lose = p.lose
		}
		if p.drop.serial > m.drop.serial {
			m.drop, m.dropHow = p.drop, p.dropHow
		}
		m.delay = max(m.delay, p.delay)
		m.connack, m.reads = m.connack || p.connack, m.reads || p.reads
		m.acks, m.subacks = m.acks || p.acks, m.subacks || p.subacks
	}
	return m
}

// refuses says whether a filter of a device is refused.
func (f *faults) refuses(device, filter string) bool {
	for _, d := range []string{device, All} {
		if p := f.by[d]; p != nil {
			if _, ok := p.filters[filter]; ok {
				return true
			}
		}
	}
	return false
}

// set changes the fault of a device, or the faults of all when one is ended for All. The caller holds Cloud.mu.
func (f *faults) set(device string, end bool, change func(*fault)) {
	if f.by == nil {
		f.by = make(map[string]*fault)
	}
	if end && device == All {
		for _, p := range f.by {
			change(p)
		}
	} else {
		if f.by[device] == nil {
			f.by[device] = &fault{}
		}
		change(f.by[device])
	}
	f.wake()
}

func (f *faults) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func (f *faults) nextUpgradeLocked() int {
	if f.upgradeTimes == 0 {
		return 0
	}
	if f.upgradeTimes > 0 {
		f.upgradeTimes--
	}
	return f.upgradeStatus
}

// holdWhile waits as long as stalled, called with c.mu held, says so. It reports false when done or the cloud closed
// first.
func (c *Cloud) holdWhile(done <-chan struct{}, stalled func() bool) bool {
	for {
		c.mu.Lock()
		if !stalled() {
			c.mu.Unlock()
			return true
		}
		if c.faults.changed == nil {
			c.faults.changed = make(chan struct{})
		}
		changed := c.faults.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-done:
			return false
		case <-c.done:
			return false
		}
	}
}
