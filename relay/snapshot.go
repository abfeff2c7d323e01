package relay

import (
	"errors"
	"maps"
	"time"
)

// RouteStats is a snapshot of a route. Counters start at zero with the process.
type RouteStats struct {
	State   State
	Paused  bool
	Stalled string // why it makes no progress though nothing keeps it from it; "" if it does, or something does

	SourceTrouble error // why nothing can arrive; nil if it can, or if the source cannot tell
	SinkTrouble   error // why the sink fails, or the store of the dead letters; nil if neither does
	DiskTrouble   error // why nothing can be written to disk though it should be, so that only memory holds it; nil if it can, or need not

	Received       uint64
	Delivered      uint64
	DeliveredBytes uint64 // payload
	AttemptsOK     uint64 // Deliver calls that settled their whole batch
	AttemptsFailed uint64
	Spilled        uint64            // messages written to disk
	Corrupt        uint64            // records lost to damage on disk
	Dropped        map[string]uint64 // by reason: every one of DropReasons, and those of the source
	DeadLetters    map[string]uint64 // stored as such, by reason: every one of DeadReasons
	Latency        Histogram         // of what was delivered, from the relay's receiving it to the far side's confirming it

	DeadLettersStored int // on this host's disk now

	MemoryMessages int
	MemoryBytes    int64
	DiskMessages   int
	DiskBytes      int64
	OldestAge      time.Duration // of all that waits to be delivered; 0 = nothing does

	Pending      uint64 // messages that wait upstream
	PendingKnown bool
}

// DroppedTotal sums the messages lost for any reason, without those that were left out as it is wanted.
func (s RouteStats) DroppedTotal() uint64 { return total(s.Dropped) - s.LeftOut() }

// DeadLettersTotal sums the messages that became dead letters for any reason.
func (s RouteStats) DeadLettersTotal() uint64 { return total(s.DeadLetters) }

// noStats is the snapshot of a route that is not open yet.
func noStats() RouteStats {
	l := newLatency()
	return RouteStats{
		State: StateStarting, Dropped: withZeros(nil, DropReasons()), DeadLetters: withZeros(nil, DeadReasons()), Latency: l.snapshot(),
	}
}

// Stats returns a snapshot of the route. It is safe for concurrent use, and never waits for a disk or for the network.
func (r *Route) Stats() RouteStats {
	d := r.buffer.depth()
	s := RouteStats{
		State:          r.State(),
		Paused:         r.Paused(),
		SinkTrouble:    errors.Join(r.gate.trouble(), r.dead.gate.trouble(), r.direct.trouble()),
		Received:       r.count.received.Load(),
		Delivered:      r.count.delivered.Load(),
		DeliveredBytes: r.count.deliveredBytes.Load(),
		AttemptsOK:     r.count.attemptsOK.Load(),
		AttemptsFailed: r.count.attemptsFailed.Load(),
		Spilled:        r.count.spilled.Load(),
		Corrupt:        r.count.corrupt.Load(),
		Dropped:        r.dropped(),
		DeadLetters:    withZeros(r.dead.count.snapshot(), DeadReasons()),
		Latency:        d.latency,
		DiskTrouble:    d.diskTrouble,
		MemoryMessages: d.memory, MemoryBytes: d.memoryBytes,
		DiskMessages: d.disk, DiskBytes: d.diskBytes,
	}
	s.Stalled, _ = r.Stalled()
	if !d.oldest.IsZero() {
		s.OldestAge = max(0, time.Since(d.oldest))
	}
	s.SourceTrouble = r.sourceTrouble()
	s.DeadLettersStored = r.dead.stored()
	if r.upstream != nil {
		s.Pending, s.PendingKnown = r.upstream.Pending()
	}
	return s
}

// dropped returns what was lost or left out, by reason, wherever it happened.
func (r *Route) dropped() map[string]uint64 {
	dropped := withZeros(r.drops.snapshot(), DropReasons())
	dropped[DropFiltered] = r.count.filtered.Load()
	dropped[DropSample] = r.count.sampled.Load()
	if r.upstream != nil {
		for reason, n := range r.upstream.Lost() {
			dropped[reason] += n
		}
	}
	return dropped
}

// withZeros adds the keys that are missing.
func withZeros(counts map[string]uint64, keys []string) map[string]uint64 {
	all := make(map[string]uint64, len(keys))
	for _, k := range keys {
		all[k] = 0
	}
	maps.Copy(all, counts)
	return all
}
