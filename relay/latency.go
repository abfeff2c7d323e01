package relay

import "time"

// A Histogram counts durations by size. It is a snapshot.
type Histogram struct {
	Bounds []time.Duration // upper ones, inclusive, rising
	Counts []uint64        // of durations up to each bound and above the one before; one more than Bounds, for the rest
	Sum    time.Duration
}

// Count returns how many durations were counted.
func (h Histogram) Count() uint64 {
	var n uint64
	for _, c := range h.Counts {
		n += c
	}
	return n
}

const latencyBuckets = 16

// latency is a histogram that is being filled. It is a plain array under a lock that its owner holds for other reasons, a search that
// ends early for what is usual, and no clock of its own.
type latency struct {
	bounds [latencyBuckets]time.Duration
	counts [latencyBuckets + 1]uint64
	sum    time.Duration
}

func newLatency() latency {
	return latency{bounds: [latencyBuckets]time.Duration{
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
		100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
		10 * time.Second, time.Minute, 10 * time.Minute, time.Hour,
	}}
}

func (l *latency) observe(d time.Duration) {
	i := 0
	for i < latencyBuckets && d > l.bounds[i] {
		i++
	}
	l.counts[i]++
	l.sum += d
}

func (l *latency) snapshot() Histogram {
	bounds, counts := l.bounds, l.counts
	return Histogram{Bounds: bounds[:], Counts: counts[:], Sum: l.sum}
}

// received returns when the relay got the message. Of one that comes from a stream and has been on disk only the time is known
// when the stream stored it.
func (m *Message) received() time.Time {
	if !m.arrived.IsZero() {
		return m.arrived
	}
	return m.Time
}
