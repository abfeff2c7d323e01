package relay

import "time"

// What others may ask of a buffer.

// depth is how much a buffer holds. What is in memory and on disk is counted in both.
type depth struct {
	memory, disk           int // messages
	memoryBytes, diskBytes int64
	oldest                 time.Time // when the oldest of them began to age; zero if there is none
	latency                Histogram
	diskTrouble            error // why the disk takes nothing though it should; nil if it does, or need not
}

func (b *buffer) depth() depth {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := depth{memory: b.messages, memoryBytes: b.held, oldest: b.oldest(), latency: b.latency.snapshot(), diskTrouble: b.diskDown}
	if b.disk != nil {
		s := b.disk.Stats()
		d.disk, d.diskBytes = s.Records, s.FileBytes
	}
	return d
}

// condition reports whether the buffer is giving messages up or holding its source back, and whether the disk has joined in.
func (b *buffer) condition() (full, spilling bool) {
	const shown = 5 * time.Second // a state that lasts for one message only could not be seen
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting > 0 || b.losing || time.Since(b.fullAt) < shown, b.spilling
}

// oldest returns when the oldest message began to age. The order of the buffer makes it one of the first of each part.
func (b *buffer) oldest() time.Time {
	var oldest time.Time
	older := func(t time.Time) {
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	for _, l := range b.lanes {
		if len(l.batch) > 0 {
			older(l.batch[0].Time)
		}
	}
	for _, q := range b.queues {
		if q.len() > 0 {
			older(q.at(0).Time)
		}
	}
	if oldest.IsZero() && b.gap {
		older(b.disk.Stats().Oldest)
	}
	if oldest.IsZero() && len(b.tail) > 0 {
		older(b.tail[0].Time)
	}
	return oldest
}

// hasWork reports whether something could be delivered, or brought to where it can be.
func (b *buffer) hasWork() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.lanes {
		if len(l.batch) > 0 || l.queue.len() > 0 {
			return true
		}
	}
	return b.gap && !b.readRest
}

// observe notes how long a message took that did not go through the buffer.
func (b *buffer) observe(m *Message) {
	took := time.Since(m.received())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latency.observe(took)
}
