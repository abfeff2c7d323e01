package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// A streamSink confirms a few messages of a batch at a time, in order, settles those, and asks for more.
type streamSink struct {
	scriptSink
	lump   int                    // confirmed at a time, at most
	fail   func() bool            // asked before each lump
	then   func(m *Message)       // told of each message that is confirmed
	poison func(data string) bool // messages that are refused; nil: none

	streams, open int   // calls of Stream; the most messages that were unsettled in one
	bytes         int64 // of those, the most
}

func (s *streamSink) Stream(ctx context.Context, b *Batch) error {
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	for done := 0; ; {
		if err := elapse(ctx, s.latency); err != nil {
			return err
		}
		s.mu.Lock()
		s.note(b.Messages[done:])
		if s.fail != nil && s.fail() {
			s.mu.Unlock()
			return errDown
		}
		for range 1 + rand.IntN(s.lump) {
			if done < len(b.Messages) {
				s.confirm(b, done)
				done++
			}
		}
		s.mu.Unlock()
		b.Settle()
		if more := b.More(); !more && done == len(b.Messages) {
			return nil
		}
	}
}

func (s *streamSink) note(unsettled []*Message) {
	bytes := int64(0)
	for _, m := range unsettled {
		bytes += m.Size()
	}
	s.open, s.bytes = max(s.open, len(unsettled)), max(s.bytes, bytes)
}

func (s *streamSink) confirm(b *Batch, i int) {
	m := b.Messages[i]
	if s.poison != nil && s.poison(string(m.Data)) {
		b.Outcomes[i] = Outcome{Status: Refused, Err: errors.New("poison")}
		return
	}
	b.Outcomes[i].Status = Delivered
	s.arrived = append(s.arrived, m.Subject+" "+string(m.Data))
	if s.then != nil {
		s.then(m)
	}
}

func newStreamSink(limits Limits) *streamSink {
	s := &streamSink{lump: 7}
	s.limits, s.latency = limits, time.Millisecond
	return s
}

// A batch that grows while it is delivered keeps order over failures in its midst, loses nothing, sends nothing twice, and never has more
// unsettled than the sink's limit.
func TestStreamOrder(t *testing.T) {
	const n, subjects = 5000, 20
	for name, ordering := range map[string]Ordering{"strict": OrderStrict, "subject": OrderSubject, "none": OrderNone} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Delivery.Ordering = ordering
				sink := newStreamSink(Limits{Messages: 20, Bytes: 1 << 20, Lanes: 4})
				sink.fail = func() bool { return rand.IntN(50) == 0 }
				_, accept, stop := start(t, o, sink)
				publish(t, accept, n, subjects)
				time.Sleep(time.Hour)
				stop()
				checkArrivals(t, sink.arrived, n, ordering)
				if sink.open > 20 || sink.streams > n/20 {
					t.Errorf("up to %d messages were unsettled, in %d streams; want 20 at most, and longer streams than batches", sink.open, sink.streams)
				}
			})
		})
	}
}

// The sink's limit of bytes is for all that is unsettled, however often the batch has grown.
func TestStreamBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		sink := newStreamSink(Limits{Messages: 1000, Bytes: 10_000, Lanes: 1})
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 1000, 1)
		time.Sleep(time.Hour)
		stop()
		checkArrivals(t, sink.arrived, 1000, OrderStrict)
		if sink.bytes > 10_000 || sink.bytes < 5_000 {
			t.Errorf("up to %d bytes were unsettled, want nearly 10,000", sink.bytes)
		}
	})
}

// What a stream has confirmed is settled upstream while it goes on, once.
func TestStreamSettlesUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		up := newLedger()
		sink := newStreamSink(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1})
		sink.latency = time.Second
		_, accept, stop := start(t, o, sink)
		<-up.offer(accept, 0, 100)
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		sink.mu.Lock()
		if done := up.count(t, FateDone); sink.streams != 1 || done != len(sink.arrived) || done == 0 || done == 100 {
			t.Errorf("in the midst of stream %d, %d of %d confirmed messages are settled", sink.streams, done, len(sink.arrived))
		}
		sink.mu.Unlock()
		time.Sleep(time.Hour)
		stop()
		if done := up.count(t, FateDone); done != 100 {
			t.Errorf("%d of 100 messages are settled", done)
		}
	})
}

// A stream gets no more while the route is paused, and ends.
func TestStreamPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		sink := newStreamSink(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1})
		sink.latency = time.Second
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 1000, 1)
		time.Sleep(5500 * time.Millisecond)
		before := sink.count()
		route.Pause()
		time.Sleep(time.Minute)
		if after := sink.count(); before == 0 || after > before+10 {
			t.Errorf("%d messages arrived before the pause and %d after it, want at most the 10 that were under way", before, after-before)
		}
		route.Resume()
		time.Sleep(time.Hour)
		stop()
		checkArrivals(t, sink.arrived, 1000, OrderStrict)
	})
}

// Messages that are not to be offered to the sink are not offered to one that streams either, and those that it refuses become dead letters.
func TestStreamDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &deadBox{}
		o := deadOptions(t, box)
		o.Delivery.Ordering = OrderStrict
		sink := newStreamSink(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1})
		sink.poison = func(data string) bool { return data == "000033" }
		sink.then = func(m *Message) {
			if m.verdict != nil {
				t.Errorf("message %s was offered", m.ID)
			}
		}
		_, accept, stop := start(t, o, sink)
		for i := range 100 {
			if i%10 == 5 {
				bad := &Message{Subject: "s", ID: "bad", Data: []byte("bad"), Time: time.Now()}
				bad.condemn(DeadFilter, errors.New("no such field"))
				if err := accept(bad); err != nil {
					t.Fatal(err)
				}
			}
			if err := accept(&Message{Subject: "s", ID: "x", Data: []byte{'0', '0', '0', '0', byte('0' + i/10), byte('0' + i%10)}, Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		stop()
		checkArrivals(t, sink.arrived, 99, OrderStrict)
		if len(box.letters) != 11 {
			t.Errorf("dead letters %q, want ten that came with a verdict, and the refused one", box.dead())
		}
	})
}

// With a rate limit, each batch is counted before it is offered: there is no stream.
func TestNoStreamWithARateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.RateLimit = 10
		sink := newStreamSink(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 1})
		sink.answer = deliverAll
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 100, 1)
		time.Sleep(time.Hour)
		stop()
		if sink.streams != 0 || len(sink.arrived) != 100 {
			t.Errorf("%d streams, %d of 100 messages arrived", sink.streams, len(sink.arrived))
		}
	})
}
