package netconn

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bridged/internal/pulse"
)

// Times are counted from start: they do not change when the clock is set.
var start = time.Now()

const never = time.Duration(math.MaxInt64)

// interest is what sockets are registered for, once and for all. The loop is told of changes only (EPOLLET).
const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// batch is how many events are taken at once.
const batch = 128

// eventLoop serves some of the Conns. A Conn's lock may be held when its lock is taken, but not the other way round.
type eventLoop struct {
	pulse pulse.Pulse

	mu      sync.Mutex // protects the following fields
	epoll   int        // file descriptors, opened for the first Conn and kept
	wakeup  int
	opened  bool
	running bool         // the goroutine runs
	conns   atomic.Int32 // that have not ended; written under mu
	slots   []slot
	free    []int32       // slots without a Conn
	posted  []*Conn       // whose kick is to be called
	timers  timers        // tick is to be called
	asleep  time.Duration // until when the loop sleeps, 0 while it does not

	// Opened with the first Conn, too: the epoll instance as the runtime's poller sees it.
	file *os.File
	raw  syscall.RawConn

	// Used by the goroutine only.
	armed time.Duration // the deadline of file
	round round
}

// slot is where an event finds its Conn. Events may be stale: the generation changes with each Conn.
type slot struct {
	conn       *Conn
	generation int32
}

// wakeSlot is that of the file descriptor which wakes the loop.
const wakeSlot = -1

// round is what the loop has to do before it looks for more.
type round struct {
	events [batch]unix.EpollEvent
	conns  [batch]*Conn // of the events
	kicked []*Conn
	due    []*Conn
}

// maxLoops is how many processors may be at work for connections at the same time.
const maxLoops = 4

var loops = makeLoops(min(runtime.GOMAXPROCS(0), maxLoops))

func makeLoops(n int) []*eventLoop {
	all := make([]*eventLoop, n)
	for i := range all {
		all[i] = &eventLoop{pulse: pulse.Pulse{Name: fmt.Sprintf("event loop %d of the connections", i+1)}}
	}
	return all
}

// idlest is the loop with the fewest Conns.
func idlest() *eventLoop {
	return slices.MinFunc(loops, func(a, b *eventLoop) int { return cmp.Compare(a.conns.Load(), b.conns.Load()) })
}

// Pulses are those of the event loops.
func Pulses() []*pulse.Pulse {
	all := make([]*pulse.Pulse, len(loops))
	for i, l := range loops {
		all[i] = &l.pulse
	}
	return all
}

// add has the loop serve a Conn.
func (l *eventLoop) add(c *Conn) error {
	s, err := l.enter(c)
	if err != nil {
		return err
	}
	e := unix.EpollEvent{Events: interest, Fd: c.slot, Pad: s.generation}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &e); err != nil {
		l.remove(c)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// enter gives a Conn its slot.
func (l *eventLoop) enter(c *Conn) (slot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return slot{}, err
	}
	if len(l.free) == 0 {
		l.free = append(l.free, int32(len(l.slots)))
		l.slots = append(l.slots, slot{})
	}
	last := len(l.free) - 1
	c.slot = l.free[last]
	l.free = l.free[:last]
	s := &l.slots[c.slot]
	s.conn = c
	l.conns.Add(1)
	l.runLocked()
	return *s, nil
}

// remove ends add's effect. What is posted is still called.
func (l *eventLoop) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.slots[c.slot]
	s.conn = nil
	s.generation++
	l.free = append(l.free, c.slot)
	l.timers.remove(c)
	if l.conns.Add(-1) == 0 {
		l.wakeLocked() // to end
	}
}

// post has the loop call kick soon.
func (l *eventLoop) post(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, c)
	l.runLocked()
	l.wakeLocked()
}

// wakeAt has the loop call tick at some time, and not at another one that was asked for before.
func (l *eventLoop) wakeAt(c *Conn, at time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timers.set(c, at)
	if at < l.asleep {
		l.wakeLocked()
	}
}

// openLocked opens the file descriptors.
func (l *eventLoop) openLocked() error {
	if l.opened {
		return nil
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // or the runtime does not poll it
		_ = unix.Close(epoll) // it is of no use
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(epoll), "epoll")
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetReadDeadline(time.Time{}) // the same
	}
	if err != nil {
		_ = file.Close() // as above
		return fmt.Errorf("epoll within the runtime's poller: %w", err)
	}
	wakeup, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = file.Close() // as above
		return os.NewSyscallError("eventfd", err)
	}
	// Nobody reads it: each write is an event.
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: wakeSlot}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wakeup, &e); err != nil {
		_, _ = unix.Close(wakeup), file.Close() // as above
		return os.NewSyscallError("epoll_ctl", err)
	}
	l.epoll, l.file, l.raw, l.wakeup, l.opened = epoll, file, raw, wakeup, true
	return nil
}

// runLocked starts the goroutine if it does not run. It ends by itself.
func (l *eventLoop) runLocked() {
	if !l.running {
		l.running = true
		go l.run()
	}
}

// one is what an eventfd counts.
var one = binary.NativeEndian.AppendUint64(nil, 1)

// wakeLocked ends the loop's sleep.
func (l *eventLoop) wakeLocked() {
	if l.asleep == 0 {
		return
	}
	l.asleep = 0
	if _, err := unix.Write(l.wakeup, one); err != nil {
		panic(fmt.Sprintf("netconn: eventfd: %v", err)) // there is no reason for it to fail
	}
}

// run is the loop. It waits in the runtime's poller, for its own epoll instance. A thread that waited in the kernel by
// itself would keep a processor until the scheduler takes it away, which costs as much as the waiting saves.
func (l *eventLoop) run() {
	for more := true; more; {
		l.armed = never
		_ = l.file.SetReadDeadline(time.Time{}) // fails only if it is closed
		// Within one Read no change is missed: one that comes while work is at it has the next wait return at once. Read
		// fails only when its deadline has passed.
		_ = l.raw.Read(func(uintptr) bool {
			more = l.work()
			return !more
		})
	}
}

// work does what there is to do until there is nothing left, or returns false if the loop has to end. What came of
// itself and what was posted take turns, so that neither starves the other.
func (l *eventLoop) work() (more bool) {
	for {
		l.pulse.Beat()
		n := l.take()
		l.serve(n)
		if n == batch {
			continue
		}
		rest, ok := l.rest()
		if rest || !ok {
			return ok
		}
	}
}

// take takes the events that there are.
func (l *eventLoop) take() int {
	for {
		// It does not wait, so the scheduler need not know.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll),
			uintptr(unsafe.Pointer(&l.round.events[0])), batch, 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			panic(fmt.Sprintf("netconn: epoll_pwait: %v", errno)) // there is no reason for it to fail
		}
	}
}

// rest says whether the loop may rest, or that it has to end. It is woken in time for what is due next.
func (l *eventLoop) rest() (rest, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.posted) > 0 {
		return false, true
	}
	if l.conns.Load() == 0 {
		l.running = false
		l.pulse.End()
		return false, false
	}
	now := time.Since(start)
	at := min(l.timers.first(), now+pulse.Every)
	if at <= now {
		return false, true
	}
	if at < l.armed || l.armed <= now {
		l.armed = at
		_ = l.file.SetReadDeadline(start.Add(at)) // as above
	}
	l.asleep = l.armed
	return true, true
}

// serve does what there is to do: n events, and what is due or posted.
func (l *eventLoop) serve(n int) {
	r := &l.round
	now := time.Since(start)
	l.collect(n, now)
	for i, c := range r.due {
		r.due[i] = nil
		c.tick(now)
	}
	for i, c := range r.kicked {
		r.kicked[i] = nil
		c.kick()
	}
	for i, c := range r.conns[:n] {
		if c != nil {
			r.conns[i] = nil
			c.happened(r.events[i].Events)
		}
	}
}

func (l *eventLoop) collect(n int, now time.Duration) {
	r := &l.round
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = 0
	for i, e := range r.events[:n] {
		if e.Fd != wakeSlot && l.slots[e.Fd].generation == e.Pad {
			r.conns[i] = l.slots[e.Fd].conn
		}
	}
	r.kicked, l.posted = l.posted, r.kicked[:0]
	r.due = r.due[:0]
	for l.timers.first() <= now {
		r.due = append(r.due, l.timers.pop())
	}
}
