package natsconn

import (
	"strings"
	"time"
)

// repeatEvery is how often a repeating event gets a line of its own. In a long outage every attempt
// fails the same way; a line each fills the disk (vector #4724).
const repeatEvery = 30 * time.Second

// maxKeys bounds what a throttle remembers. Causes are few, but some of their text is the far side's.
const maxKeys = 64

// throttle lets an event through at once, and its repeats once per repeatEvery with the number
// of those held back. The zero value is ready. Not safe for concurrent use.
type throttle struct {
	seen map[string]*repeats
}

type repeats struct {
	last time.Time
	held int
}

// allow says whether to log, and how many alike were held back since the last line.
func (t *throttle) allow(key string, now time.Time) (held int, ok bool) {
	r := t.seen[key]
	if r == nil {
		t.makeRoom()
		if t.seen == nil {
			t.seen = make(map[string]*repeats)
		}
		t.seen[key] = &repeats{last: now}
		return 0, true
	}
	if now.Sub(r.last) < repeatEvery {
		r.held++
		return 0, false
	}
	held, r.held, r.last = r.held, 0, now
	return held, true
}

// makeRoom forgets the key that has been quiet for longest when there are too many.
func (t *throttle) makeRoom() {
	if len(t.seen) < maxKeys {
		return
	}
	oldest := ""
	for key, r := range t.seen {
		if oldest == "" || r.last.Before(t.seen[oldest].last) {
			oldest = key
		}
	}
	delete(t.seen, oldest)
}

// reset forgets the keys that begin so: their next event is a change of state again. It returns how many were held back.
func (t *throttle) reset(prefix string) (held int) {
	for key, r := range t.seen {
		if strings.HasPrefix(key, prefix) {
			held += r.held
			delete(t.seen, key)
		}
	}
	return held
}
