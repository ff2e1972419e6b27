package lane

import "bridged/internal/mqtt"

// Refuse counts a message as accepted and dropped that its source knows cannot be delivered. From, which may be nil,
// learns of it like of any other.
func (l *Lane) Refuse(reason Reason, from Source, t mqtt.Token) {
	l.mu.Lock()
	l.count.Accepted++
	l.refuseLocked(reason, from, t)
	l.unlockAndCall()
}
