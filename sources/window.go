package sources

import "time"

// A window is how many messages a source holds at a time: as many as are settled within a third of the consumer's ack_wait. A larger one would
// have to be extended all the time (risingwave #25681), and would be delivered again if this relay died.
//
// It doubles while a whole window is settled twice as fast as it must be, so that it is wide open after milliseconds where the sink is fast.
type window struct {
	limit     int
	most      int
	third     time.Duration
	settled   int // since then
	since     time.Time
	narrowest int
}

const (
	firstWindow  = 1024
	narrowWindow = 16
)

func newWindow(most int, ackWait time.Duration, now time.Time) window {
	return window{limit: min(firstWindow, most), most: most, narrowest: min(narrowWindow, most), third: ackWait / 3, since: now}
}

// adapt takes a new ack_wait and upper limit.
func (w *window) adapt(most int, ackWait time.Duration) {
	w.most, w.narrowest, w.third = most, min(narrowWindow, most), ackWait/3
	w.limit = max(min(w.limit, most), w.narrowest)
}

// settle counts a message that has been settled.
func (w *window) settle() {
	if w.settled++; w.settled >= w.limit {
		now := time.Now()
		if now.Sub(w.since) < w.third/2 {
			w.limit = min(2*w.limit, w.most)
		}
		w.restart(now)
	}
}

// tick narrows the window, of which so many messages are held, if they are not settled in time.
func (w *window) tick(now time.Time, held int) {
	if now.Sub(w.since) < w.third {
		return
	}
	if held > w.limit/2 {
		w.limit = max(min(w.limit, w.settled), w.narrowest)
	}
	w.restart(now)
}

func (w *window) restart(now time.Time) { w.settled, w.since = 0, now }
