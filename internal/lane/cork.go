package lane

// Cork has the lane gather: until Uncork, Offer does not pump, and Done and Drop neither pump nor call sources. It is
// for a goroutine that has several messages or acknowledgements at hand, so that what comes of them goes in one piece.
// The caller must not wait for anything before Uncork, and calls that soon.
//
// Several goroutines may cork a lane at the same time. Calls of others, a Pump for instance, have their effect at once.
// A lane that is full is pumped all the same: no message is refused or dropped because of Cork.
func (l *Lane) Cork() {
	l.mu.Lock()
	l.corks++
	l.mu.Unlock()
}

// Uncork ends what Cork began, and does what is due by now, even if another goroutine has the lane still corked. The
// caller must not hold a lock that the consumer's or a source's methods take.
func (l *Lane) Uncork() {
	l.mu.Lock()
	l.corks--
	l.catchUp()
}

// catchUp does what was put off while the lane was corked. The caller holds mu, which it unlocks.
func (l *Lane) catchUp() {
	var r *Reader
	if l.due {
		l.due = false
		r = l.reader
	}
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}

// unlockAndPump unlocks the lane, makes the calls that are due and pumps r, which may be nil. While the lane is corked
// that is put off.
func (l *Lane) unlockAndPump(r *Reader) {
	if l.corks > 0 {
		l.due = l.due || r != nil
		l.mu.Unlock()
		return
	}
	l.unlockAndCall()
	if r != nil {
		r.Pump()
	}
}

// Cork is Lane.Cork for the reader's lane.
func (r *Reader) Cork() { r.l.Cork() }

// Uncork is Lane.Uncork for the reader's lane.
func (r *Reader) Uncork() { r.l.Uncork() }
