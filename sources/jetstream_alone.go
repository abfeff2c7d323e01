package sources

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// alone reports whether nobody else pulls from the consumer.
func (s *JetStream) alone(ctx context.Context, b *binding) (alone bool, err error) {
	if s.cfg.Standby != "" {
		return true, nil
	}
	if err := s.outliveRequests(ctx, b); err != nil {
		return false, err
	}
	switch {
	case b.info.NumWaiting > 0:
		s.share()
		return s.cfg.AckPolicy == "all", nil
	case s.cfg.AckPolicy == "all" || b.info.NumAckPending == 0:
		return true, nil
	case s.sharedLately():
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

// outliveRequests waits until nobody asks the consumer for messages. This relay's own requests of an earlier round linger for a moment; but where a connection has
// ended without the server's knowing, as it does when a NAT forgets it, they live until they expire, and the server delivers into the void until then.
func (s *JetStream) outliveRequests(ctx context.Context, b *binding) (err error) {
	end := time.Now().Add(500 * time.Millisecond)
	if own := s.asked.Add(s.times.expires); own.After(end) && s.ordered && !b.joined && !s.sharedLately() && b.info.NumWaiting > 0 {
		s.log.Info().Dur("most", time.Until(own)).Int("requests", b.info.NumWaiting).
			Msg("the consumer has requests: of this relay, if the server does not know yet that a connection is gone, or of somebody else. Waiting for what they are")
		end = own.Add(time.Second)
	}
	for b.info.NumWaiting > 0 && time.Now().Before(end) && ctx.Err() == nil {
		sleep(ctx, 100*time.Millisecond)
		if b.info, err = s.lookSoon(ctx, b); err != nil {
			return apiError("look up consumer "+s.cfg.Durable, err)
		}
	}
	return ctx.Err()
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
	if !s.sharedLately() {
		s.log.Info().Msg("somebody else pulls from the consumer, too: its messages are shared, and order is not kept between the two")
	}
	upTo := s.bound.info.Delivered.Stream
	s.mark.now.Shared, s.mark.now.SharedTo = now(), max(s.mark.now.SharedTo, upTo)
	s.ledger.doubt(upTo)
	s.mark.save()
}

func (s *JetStream) sharedLately() bool { return time.Since(s.mark.now.Shared) <= s.times.shared }

// now is the time as a position has it.
func now() time.Time { return time.Now().UTC().Round(0) }

// noteShared remembers up to where messages may be out of order, and forgets it when they are all acknowledged.
func (s *JetStream) noteShared(info *jetstream.ConsumerInfo) {
	switch at := &s.mark.now; {
	case at.Shared.IsZero():
	case s.sharedLately():
		at.SharedTo = max(at.SharedTo, info.Delivered.Stream)
	case info.AckFloor.Stream >= at.SharedTo:
		at.Shared, at.SharedTo = time.Time{}, 0
	}
}
