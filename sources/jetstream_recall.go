package sources

import (
	"context"
	"fmt"
	"time"
)

// mostRecalled is how long a piece of a stream may be for recall to ask for its messages one by one; each costs a message of 60 bytes.
const mostRecalled = 128 << 10

// recall asks the consumer for what it has handed out, and nobody has any more: to a relay that was killed, or into a connection that was cut. By itself it
// would deliver newer messages first, and those only after ack_wait.
//
// It reports whether this relay is the only one that pulls. With others, some of the messages are theirs, nothing is recalled, and order cannot be kept.
func (s *JetStream) recall(ctx context.Context, b *binding) (alone bool, err error) {
	if s.stillActive(b); s.passive() { // another one is active, or it will be found out
		s.ledger.giveBackWaiting()
		return false, nil
	}
	if alone, err = s.alone(ctx, b); err != nil {
		return alone, err
	}
	if !alone {
		s.ledger.await(awaited{})
		return false, nil
	}
	return true, s.recallAll(ctx, b)
}

// recallAll recalls what this relay does not hold.
//
// The server does not tell which messages are pending. But it takes a NAK for any sequence, and heeds it only for those that are; so each that this
// relay does not hold gets one. It delivers those before all others, though in no order that could be relied on: so the ledger keeps what comes behind
// one that is missing. What is settled here and pending there, because its acknowledgement was lost, is acknowledged again.
func (s *JetStream) recallAll(ctx context.Context, b *binding) error {
	from, to := b.pending()
	var missing []uint64
	switch {
	case b.info.NumAckPending == 0:
	case to >= from+mostRecalled:
		if err := s.outwait(ctx, b); err != nil {
			return err
		}
	default:
		missing = s.ledger.missing(from, to)
		s.log.Debug().Int("pending", b.info.NumAckPending).Uint64("from", from).Uint64("to", to).Int("asked_for", len(missing)).Msg("asking the consumer for what nobody holds")
		if err := s.askAgain(ctx, b, missing); err != nil {
			return err
		}
	}
	if s.ordered || s.cfg.AckPolicy == "all" { // whoever acknowledges a message that came first acknowledges all that are still to come
		s.await(b, s.ledger.toCome(b, missing))
	}
	return nil
}

// pending returns the first and the last of the stream's messages that may be pending.
func (b *binding) pending() (from, to uint64) {
	return b.info.AckFloor.Stream + 1, b.info.Delivered.Stream
}

// askAgain acknowledges again what is settled, asks for what is missing, and looks at what is pending then.
func (s *JetStream) askAgain(ctx context.Context, b *binding, missing []uint64) error {
	from, to := b.pending()
	subject := func(n uint64) string {
		// Of these numbers the server looks at the sequence, and makes sure that the delivery is one that it has made.
		return fmt.Sprintf("%s%s.%s.1.%d.%d.0.0", ackPrefix, s.cfg.Stream, s.cfg.Durable, n, b.info.Delivered.Consumer)
	}
	if err := s.acknowledgeAgain(b, from, to, subject); err != nil || len(missing) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	if err := s.giveBack(ctx, b, missing, subject); err != nil {
		return fmt.Errorf("ask consumer %s for what nobody holds: %w", s.cfg.Durable, err)
	}
	info, err := s.look(ctx, b) // some of the acknowledgements may have been news to it
	if err != nil {
		return apiError("look up consumer "+s.cfg.Durable, err)
	}
	b.info = info
	return nil
}

// toCome returns what of the consumer's messages is still to come before what the ledger has: as many of the missing ones as are pending; nil: it is not
// known which are missing. They may be too many, if what is held was settled since the look; then the pull's first heartbeat has it looked at again.
func (l *ledger) toCome(b *binding, missing []uint64) awaited {
	from, to := b.pending()
	a := awaited{left: max(0, b.info.NumAckPending-l.heldIn(from, to)), again: missing, last: to}
	if missing != nil {
		a.left = min(a.left, len(missing))
	}
	if b.info.NumPending > 0 {
		a.until, _ = l.seen()
	}
	return a
}

// await has the ledger wait for what is to come. It waits over any number of rounds, but not for what the server itself, although it may, has not delivered
// for longer than its ack_wait: somebody else must hold that. Where nobody else may, it goes on waiting.
func (s *JetStream) await(b *binding, a awaited) {
	switch limit := b.ackWait() + s.times.late; {
	case a.left == 0 || b.info.Paused:
		s.waiting = time.Time{}
	case s.waiting.IsZero():
		s.waiting = time.Now()
	case time.Since(s.waiting) <= limit:
	case s.cfg.AckPolicy == "all":
		s.waiting = time.Now()
		s.log.Error().Int("messages", a.left).Dur("waited", limit).
			Msg("the consumer does not deliver again what this relay does not hold: does somebody else pull, which ack_policy = \"all\" does not allow? Going on waiting, for an acknowledgement of what is behind it would acknowledge it, too")
	default:
		s.log.Warn().Int("messages", a.left).Dur("waited", limit).Msg("the consumer does not deliver again what this relay does not hold: somebody else must hold it. Going on without it")
		s.waiting = time.Time{}
		s.share()
		a = awaited{}
	}
	s.ledger.await(a)
}

// giveBack sends NAKs, and returns when the consumer has seen them.
func (s *JetStream) giveBack(ctx context.Context, b *binding, sequences []uint64, subject func(uint64) string) error {
	last := len(sequences) - 1
	for _, n := range sequences[:last] {
		if err := b.nc.Publish(subject(n), ackReturned); err != nil {
			return err
		}
	}
	_, err := b.nc.RequestWithContext(ctx, subject(sequences[last]), ackReturned)
	return err
}

// acknowledgeAgain repeats the acknowledgements of what is pending in a range.
func (s *JetStream) acknowledgeAgain(b *binding, from, to uint64, subject func(uint64) string) error {
	if s.cfg.AckPolicy == "all" {
		// One is enough. It must be the very one of its delivery: the server takes the numbers for how far all of it is.
		if reply := s.ledger.lastRunAck(); reply != "" {
			return b.nc.Publish(reply, ackDone)
		}
		return nil
	}
	for _, n := range s.ledger.settledIn(from, to) {
		if err := b.nc.Publish(subject(n), ackDone); err != nil {
			return err
		}
	}
	return nil
}

// outwait waits until the server delivers by itself what is pending, before anything newer. What this relay holds is extended meanwhile.
func (s *JetStream) outwait(ctx context.Context, b *binding) error {
	if s.ordered {
		wait := b.ackWait() + time.Second
		s.log.Info().Dur("wait", wait).Int("pending", b.info.NumAckPending).
			Msg("the consumer has handed out messages that nobody holds: waiting for their ack_wait, so that they come in order")
		sleep(ctx, wait)
	}
	return ctx.Err()
}

// lastRunAck returns where the last run of messages was acknowledged.
func (l *ledger) lastRunAck() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.runAck
}

// missing returns the sequences in a range that are neither held nor settled; not nil.
func (l *ledger) missing(from, to uint64) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []uint64{}
	i, _ := l.find(from)
	for n := from; n <= to; n++ {
		for i < len(l.entries) && l.entries[i].sequence < n {
			i++
		}
		held := i < len(l.entries) && l.entries[i].sequence == n && l.entries[i].state != stateReturned
		if !held && !l.settled.has(n) {
			all = append(all, n)
		}
	}
	return all
}

// heldIn returns how many of the sequences in a range are held, or wait to be acknowledged with others.
func (l *ledger) heldIn(from, to uint64) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.entries {
		pending := h.state == stateOpen || h.state == stateDone && l.ackAll
		if pending && h.sequence >= from && h.sequence <= to {
			n++
		}
	}
	return n
}

// settledIn returns the sequences in a range that are settled.
func (l *ledger) settledIn(from, to uint64) (all []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := from; n <= to; n++ {
		if l.settled.has(n) {
			all = append(all, n)
		}
	}
	for _, h := range l.entries {
		if h.state == stateDone && h.sequence >= from && h.sequence <= to {
			all = append(all, h.sequence)
		}
	}
	return all
}
