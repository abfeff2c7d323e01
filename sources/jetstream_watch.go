package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/relay"
)

// A watch is what one pull has seen of its consumer from outside.
type watch struct {
	silent    int    // heartbeats that were due and did not come
	delivered uint64 // by the consumer, at the last look
	count     uint64 // of messages received, at the last look
	stuck     int    // looks in a row that have shown messages to deliver, and none delivered
	failed    int    // looks in a row without an answer
	others    bool   // somebody else has received messages; guarded by ledger.mu
}

const (
	mostSilent = 2 // heartbeats
	mostStuck  = 3 // looks
)

// listen is called whenever a heartbeat is due. A consumer that has vanished while the connection was down tells nobody: its requests are just
// not answered. So silence is a reason to look.
func (p *pull) listen() error {
	l := p.s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := p.wanted > 0 && time.Since(p.asked) > p.heartbeat()
	switch {
	case p.heard:
		p.watch.silent, p.s.doubtful = 0, false
	case waiting:
		p.watch.silent++
	}
	if p.wanted > 0 && time.Since(p.asked) > p.expires()+2*p.heartbeat() {
		p.wanted, p.bytes = 0, 0 // whatever was asked for has expired
	}
	p.heard = false
	if p.watch.silent >= mostSilent {
		return &relay.Fault{Err: fmt.Errorf("no heartbeat of the consumer for %v", time.Duration(mostSilent)*p.heartbeat())}
	}
	return nil
}

// A sight is what a look at the consumer has brought.
type sight struct {
	info *jetstream.ConsumerInfo
	err  error
}

func (p *pull) lookAt(ctx context.Context) sight {
	info, err := p.s.lookSoon(ctx, p.b)
	return sight{info, err}
}

// heed draws conclusions from a look at the consumer. An error ends the pull.
func (p *pull) heed(v sight) error {
	switch {
	case errors.Is(v.err, jetstream.ErrConsumerNotFound):
		return errors.New("the consumer is gone")
	case v.err != nil:
		if p.watch.failed++; p.watch.failed == mostStuck {
			p.s.trouble.set(apiError("look up consumer "+p.s.cfg.Durable, v.err))
		}
		return nil
	case !v.info.Created.Equal(p.b.info.Created):
		return errors.New("the consumer was deleted and created anew")
	}
	p.watch.failed = 0
	p.s.note(v.info)
	p.s.mark.save()
	return p.judge(v.info)
}

// judge says how the pull stands: the route's trouble is that of the consumer now.
func (p *pull) judge(info *jetstream.ConsumerInfo) error {
	l := p.s.ledger
	l.mu.Lock()
	count, wanted, held := p.count, p.wanted, len(l.entries)
	others := p.watch.others
	p.watch.others = false
	l.mu.Unlock()
	if others {
		p.s.share()
	}
	moved := count != p.watch.count || info.Delivered.Consumer != p.watch.delivered
	p.watch.count, p.watch.delivered = count, info.Delivered.Consumer

	limit := info.Config.MaxAckPending
	switch {
	case info.Paused:
		p.watch.stuck = 0
		p.s.trouble.set(fmt.Errorf("the consumer is paused for another %v", info.PauseRemaining.Round(time.Second)))
	case moved || p.s.passive() || info.NumPending == 0 || wanted == 0:
		p.watch.stuck = 0
		p.s.trouble.set(nil)
	case limit > 0 && info.NumAckPending >= limit:
		p.watch.stuck = 0
		if held < info.NumAckPending {
			p.s.trouble.set(fmt.Errorf("the consumer waits for %d acknowledgements, which is its max_ack_pending, and this relay holds %d of those messages", info.NumAckPending, held))
		}
	default:
		p.watch.stuck++
	}
	if p.watch.stuck >= mostStuck {
		p.s.log.Error().Interface("consumer", info).Int("asked_for", wanted).Msg("the consumer has messages and delivers none: pulling anew")
		return fmt.Errorf("the consumer has %d messages and delivers none", info.NumPending)
	}
	return nil
}
