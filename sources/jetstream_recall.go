package sources

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// mostRecalled is how long a piece of a stream may be for recall to ask for its messages one by one; each costs a message of 60 bytes.
const mostRecalled = 128 << 10

// recall asks the consumer for what it has handed out, and nobody has any more: to a relay that was killed, or into a connection that was cut. By itself it
// would deliver newer messages first, and those only after ack_wait.
//
// The server does not tell which messages are pending. But it takes a NAK for any sequence, and heeds it only for those that are; so each that this
// relay does not hold gets one. It delivers those before all others, though not always in the order of the NAKs: so the ledger waits until it has them all, and
// passes them on in the order of the stream. What is settled here and pending there, because its acknowledgement was lost, is acknowledged again.
//
// It reports whether this relay is the only one that pulls. With others, some of the messages are theirs, nothing is recalled, and order cannot be kept.
func (s *JetStream) recall(ctx context.Context, b *binding) (alone bool, err error) {
	s.ledger.await(0, 0)
	if s.stillActive(b); s.cfg.Standby != "" && s.pin == "" {
		return false, nil // another one is active, or it will be found out
	}
	if alone, err = s.alone(ctx, b); err != nil || !alone || b.info.NumAckPending == 0 {
		return alone, err
	}
	from, to := b.info.AckFloor.Stream+1, b.info.Delivered.Stream
	if to >= from+mostRecalled {
		return true, s.outwait(ctx, b)
	}
	missing := s.ledger.missing(from, to)
	s.log.Debug().Int("pending", b.info.NumAckPending).Uint64("from", from).Uint64("to", to).Int("asked_for", len(missing)).Msg("asking the consumer for what nobody holds")
	subject := func(n uint64) string {
		// Of these numbers the server looks at the sequence, and makes sure that the delivery is one that it has made.
		return fmt.Sprintf("%s%s.%s.1.%d.%d.0.0", ackPrefix, s.cfg.Stream, s.cfg.Durable, n, b.info.Delivered.Consumer)
	}
	if err := s.acknowledgeAgain(b, from, to, subject); err != nil {
		return true, err
	}
	if len(missing) == 0 {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	if err := s.giveBack(ctx, b, missing, subject); err != nil {
		return true, fmt.Errorf("ask consumer %s for what nobody holds: %w", s.cfg.Durable, err)
	}
	if b.info, err = s.look(ctx, b); err != nil { // some of the acknowledgements may have been news to it
		return true, apiError("look up consumer "+s.cfg.Durable, err)
	}
	// Too many, if what is held here was settled since the look; then the pull's first heartbeat ends the wait.
	s.ledger.await(min(len(missing), max(0, b.info.NumAckPending-s.ledger.heldIn(from, to))), to)
	return true, nil
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

// stillActive finds out whether this relay has lost its place in the standby group while it was not connected.
func (s *JetStream) stillActive(b *binding) {
	for _, group := range b.info.PriorityGroups {
		if group.Group == s.cfg.Standby && s.pin != "" && group.PinnedClientID != s.pin {
			s.setPin("")
		}
	}
}

// setPin makes this relay the active one of its group, or not any more.
func (s *JetStream) setPin(pin string) {
	s.pin = pin
	if pin != "" {
		s.log.Info().Str("group", s.cfg.Standby).Msg("this relay is the active one of its standby group now")
	} else {
		s.log.Warn().Str("group", s.cfg.Standby).Msg("another relay of the standby group is the active one now")
	}
}

// alone reports whether nobody else pulls from the consumer. Requests of an earlier round may linger for a moment.
func (s *JetStream) alone(ctx context.Context, b *binding) (alone bool, err error) {
	if s.cfg.Standby != "" {
		return true, nil
	}
	for try := 0; b.info.NumWaiting > 0 && try < 5; try++ {
		sleep(ctx, 100*time.Millisecond)
		info, err := s.lookSoon(ctx, b)
		if err != nil {
			return false, apiError("look up consumer "+s.cfg.Durable, err)
		}
		b.info = info
	}
	switch {
	case b.info.NumWaiting > 0:
		s.share()
		return s.cfg.AckPolicy == "all", nil
	case s.cfg.AckPolicy == "all" || b.info.NumAckPending == 0:
		return true, nil
	case time.Since(s.mark.now.Shared) <= s.times.shared:
		if s.ordered { // what nobody holds any more comes first when its ack_wait is over
			_, err = s.lookForOthers(ctx, b, b.ackWait()+time.Second)
		}
		return false, err
	case b.joined:
		seen, err := s.lookForOthers(ctx, b, s.times.joining)
		return !seen, err
	}
	return true, nil
}

// lookForOthers waits until there is a sign of somebody else who works with the consumer. One who waits for his sink asks for nothing, but holds messages.
func (s *JetStream) lookForOthers(ctx context.Context, b *binding, most time.Duration) (seen bool, err error) {
	s.log.Info().Dur("most", most).Int("pending", b.info.NumAckPending).Msg("somebody else may hold messages of the consumer: waiting for a sign of it")
	before := b.info
	for end := time.Now().Add(most); time.Now().Before(end) && b.info.NumAckPending > 0; {
		sleep(ctx, 100*time.Millisecond)
		if b.info, err = s.lookSoon(ctx, b); err != nil {
			return false, apiError("look up consumer "+s.cfg.Durable, err)
		}
		acknowledged := b.joined && b.info.NumAckPending < before.NumAckPending // who has just come holds nothing of it
		if b.info.NumWaiting > 0 || b.info.Delivered.Consumer != before.Delivered.Consumer || acknowledged {
			s.share()
			return true, nil
		}
	}
	return false, ctx.Err()
}

// share notes that somebody else pulls from the consumer.
func (s *JetStream) share() {
	if time.Since(s.mark.now.Shared) > s.times.shared {
		s.log.Info().Msg("somebody else pulls from the consumer, too: its messages are shared, and order is not kept between the two")
	}
	s.mark.now.Shared = now()
}

// now is the time as a position has it.
func now() time.Time { return time.Now().UTC().Round(0) }

func (s *JetStream) lookSoon(ctx context.Context, b *binding) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	return s.look(ctx, b)
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

// missing returns the sequences in a range that are neither held nor settled.
func (l *ledger) missing(from, to uint64) (all []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
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

// heldIn returns how many of the sequences in a range are held.
func (l *ledger) heldIn(from, to uint64) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.entries {
		if h.state == stateOpen && h.sequence >= from && h.sequence <= to {
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
