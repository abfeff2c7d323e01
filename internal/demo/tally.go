package demo

import (
	"encoding/json"
	"sync"
	"time"
)

// payload is what the publisher sends: a number that rises by one with each message, and when it was sent,
// in nanoseconds since the demo began.
type payload struct {
	Seq  int           `json:"seq"`
	Sent time.Duration `json:"sent"`
}

// A tally keeps account of what has arrived at one receiver. It is safe for concurrent use.
type tally struct {
	strict bool // order is promised for the whole route, not only for each subject
	began  time.Time

	mu   sync.Mutex
	seen []bool         // by number
	last map[string]int // highest number that has arrived, by subject ("" if strict)
	sums
}

// sums is the outcome of a tally.
type sums struct {
	distinct   int // messages that arrived, however often
	duplicates int // arrivals of messages that were there already
	disordered int // messages whose first arrival came after that of a later one
	foreign    int // what nobody has published
	longest    time.Duration
	recovery   recovery
}

// A recovery is what happens after the receiver has come back.
type recovery struct {
	began    time.Time
	last     int           // newest message published while the receiver was away
	backlog  int           // how many had been published and had not arrived
	missing  int           // how many of those still have not
	first    time.Duration // until the first message arrived
	caughtUp time.Duration // until all of the backlog had
}

func (r *recovery) arrived(seq int) {
	if r.began.IsZero() {
		return
	}
	took := time.Since(r.began)
	if r.first == 0 {
		r.first = took
	}
	if seq > r.last {
		return
	}
	if r.missing--; r.missing == 0 {
		r.caughtUp = took
	}
}

func newTally(strict bool, began time.Time) *tally {
	return &tally{strict: strict, began: began, last: map[string]int{}}
}

// add takes account of one arrival.
func (t *tally) add(subject string, data []byte) {
	var p payload
	err := json.Unmarshal(data, &p)
	if t.strict {
		subject = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || p.Seq < 1 {
		t.foreign++
		return
	}
	for len(t.seen) <= p.Seq {
		t.seen = append(t.seen, false)
	}
	if t.seen[p.Seq] {
		t.duplicates++
		return
	}
	t.seen[p.Seq] = true
	t.distinct++
	t.recovery.arrived(p.Seq)
	t.longest = max(t.longest, time.Since(t.began)-p.Sent)
	if p.Seq < t.last[subject] {
		t.disordered++
		return
	}
	t.last[subject] = p.Seq
}

// back says that the receiver is about to come back, with this many messages published so far.
func (t *tally) back(published int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	missing := published - t.distinct
	t.recovery = recovery{began: time.Now(), last: published, backlog: missing, missing: missing}
}

// sum returns the account so far.
func (t *tally) sum() sums {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sums
}
