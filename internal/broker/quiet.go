package broker

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	quietFor  = time.Minute
	quietKeys = 1024
)

// quiet decides which of many similar events are logged: the first for each key, then at most one per quietFor. The
// zero value is ready to use.
type quiet struct {
	mu   sync.Mutex // protects the following field
	keys map[string]*hush
}

type hush struct {
	logged time.Time
	missed int
}

// allow says whether to log an event, and how many of its key were not logged since the last.
func (q *quiet) allow(key string, now time.Time) (ok bool, missed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.keys[key]
	if h == nil {
		if len(q.keys) >= quietKeys {
			q.forgetLocked(now)
		}
		if len(q.keys) >= quietKeys {
			key = "" // somebody makes keys up: they share one
			h = q.keys[key]
		}
	}
	if h == nil {
		if q.keys == nil {
			q.keys = make(map[string]*hush)
		}
		q.keys[key] = &hush{logged: now}
		return true, 0
	}
	if now.Sub(h.logged) < quietFor {
		h.missed++
		return false, 0
	}
	missed = h.missed
	h.logged, h.missed = now, 0
	return true, missed
}

// unreported tells in a log line how many like it were left out.
func unreported(missed int) zap.Field {
	if missed == 0 {
		return zap.Skip()
	}
	return zap.Int("unreported", missed)
}

func (q *quiet) forgetLocked(now time.Time) {
	for key, h := range q.keys {
		if now.Sub(h.logged) >= quietFor {
			delete(q.keys, key)
		}
	}
}
