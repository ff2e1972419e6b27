package governor

import (
	"container/list"
	"slices"
	"strings"
	"time"

	"bridged/internal/credentials"
)

// Used is what an identity has used up of its connect limit.
type Used struct {
	Identity string        `json:"identity"`
	Sent     []time.Time   `json:"sent"` // CONNECTs, oldest first
	For      time.Duration `json:"for"`  // how long each counts
}

// identity is what is known of an identity with a connect limit, as long as it matters.
type identity struct {
	key    string
	sent   []time.Time   // CONNECTs that still may count, oldest first
	span   time.Duration // how long one counts, as of the limit that was given last
	queue  list.List     // of *waiter; only the first is on its way
	busy   bool          // an attempt is under way
	expiry entry
}

// span is how long a CONNECT counts: a twentieth longer than the cloud says, since what is apart here may arrive closer
// together.
func span(r credentials.Rate) time.Duration { return r.Per + r.Per/20 }

// identityLocked returns what is known of an identity, and begins to know it. It returns nil if there is no limit.
func (g *Governor) identityLocked(key string, limit credentials.Rate, now time.Time) *identity {
	if limit.Unlimited() || key == "" {
		return nil
	}
	id := g.identities[key]
	if id == nil {
		id = g.newIdentity(key)
		id.sent = g.earlierLocked(limit, now)
	}
	g.agenda.drop(&id.expiry)
	id.span = span(limit)
	return id
}

func (g *Governor) newIdentity(key string) *identity {
	id := &identity{key: key}
	id.expiry.due = func(time.Time) { delete(g.identities, key) }
	g.identities[key] = id
	return id
}

// earlierLocked is what an unknown process before this one may have sent at most.
func (g *Governor) earlierLocked(limit credentials.Rate, now time.Time) []time.Time {
	every := span(limit)
	if g.cfg.Earlier.IsZero() || now.Sub(g.cfg.Earlier) >= every {
		return nil
	}
	sent := make([]time.Time, limit.Count)
	for i := range sent {
		sent[i] = g.cfg.Earlier.Add(-every * time.Duration(limit.Count-1-i) / time.Duration(limit.Count))
	}
	return sent
}

// allowed is when the next CONNECT may be sent.
func (id *identity) allowed(limit credentials.Rate) time.Time {
	if len(id.sent) < limit.Count {
		return time.Time{}
	}
	return id.sent[len(id.sent)-limit.Count].Add(span(limit))
}

func (id *identity) record(now time.Time) {
	old := 0
	for old < len(id.sent) && now.Sub(id.sent[old]) >= id.span {
		old++
	}
	id.sent = append(slices.Delete(id.sent, 0, old), now)
}

// restLocked has an identity that nobody waits for forgotten once it says nothing any more.
func (g *Governor) restLocked(id *identity, now time.Time) {
	if id.busy || id.queue.Len() > 0 {
		return
	}
	if len(id.sent) == 0 {
		delete(g.identities, id.key)
		return
	}
	g.agenda.set(&id.expiry, later(now, id.sent[len(id.sent)-1].Add(id.span)))
}

// Used returns what identities have used up of their limits and what still counts, for the next process.
func (g *Governor) Used() []Used {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	var all []Used
	for _, id := range g.identities {
		u := Used{Identity: id.key, For: id.span}
		for _, at := range id.sent {
			if now.Sub(at) < id.span {
				u.Sent = append(u.Sent, at.Round(0)) // another process has another monotonic clock
			}
		}
		if len(u.Sent) > 0 {
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b Used) int { return strings.Compare(a.Identity, b.Identity) })
	return all
}

// restoreLocked takes what an earlier process has left. Where its clock was ahead of this one's, it was just now.
func (g *Governor) restoreLocked(used []Used, now time.Time) {
	for _, u := range used {
		if u.Identity == "" || len(u.Sent) == 0 || now.Sub(u.Sent[len(u.Sent)-1]) >= u.For {
			continue
		}
		id := g.newIdentity(u.Identity)
		id.span = u.For
		for _, at := range u.Sent {
			id.sent = append(id.sent, now.Add(-max(0, now.Sub(at))))
		}
		g.restLocked(id, now)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
