package sources

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// An acker is the one goroutine that writes a source's acknowledgements, one after the other as they have come, and extends what is held.
type acker struct {
	ledger *ledger
	nc     atomic.Pointer[nats.Conn] // nil: never connected
	tick   atomic.Int64              // a sixth of ack_wait
	wake   chan struct{}
	quit   chan struct{}
	done   chan struct{}
	begin  func() // starts run, once
}

func newAcker(l *ledger, ackWait time.Duration) *acker {
	a := &acker{ledger: l, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	l.wake = func() { signal(a.wake) }
	a.begin = sync.OnceFunc(func() { go a.run() })
	a.adapt(ackWait)
	return a
}

// adapt sets how soon the consumer delivers again what is not acknowledged. What is held is extended after two to three sixths of that, which leaves
// half of it for a machine, or a network, that is slow.
func (a *acker) adapt(ackWait time.Duration) { a.tick.Store(int64(ackWait / 6)) }

// use makes it write to the connection from now on.
func (a *acker) use(nc *nats.Conn) {
	a.nc.Store(nc)
	signal(a.wake)
}

func (a *acker) run() {
	defer close(a.done)
	var spare []ack
	timer := time.NewTimer(time.Duration(a.tick.Load()))
	defer timer.Stop()
	for {
		select {
		case <-a.wake:
		case now := <-timer.C:
			timer.Reset(time.Duration(a.tick.Load()))
			a.write(a.ledger.extend(now)) // what cannot be written now is due again soon
		case <-a.quit:
			a.flush(spare)
			return
		}
		spare = a.flush(spare)
	}
}

// flush writes what the ledger has to say. What cannot be written stays there: an acknowledgement is good for the consumer's next connection, too.
func (a *acker) flush(spare []ack) []ack {
	acks := a.ledger.takeAcks(spare)
	if n := a.write(acks); n < len(acks) {
		a.ledger.putBackAcks(acks[n:])
	}
	clear(acks)
	return acks
}

// write returns how many it has handed to nats.go.
func (a *acker) write(acks []ack) int {
	nc := a.nc.Load()
	for i := range acks {
		if nc == nil || nc.Publish(acks[i].reply, acks[i].word) != nil {
			return i
		}
	}
	return len(acks)
}

// stop writes what there is, and ends the acker. It returns how many acknowledgements could not be written before ctx ended.
func (a *acker) stop(ctx context.Context) int {
	close(a.quit)
	a.begin()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
	return len(a.ledger.takeAcks(nil))
}
