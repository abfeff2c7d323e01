package sinks

import (
	"fmt"
	"strconv"

	"github.com/natsrelay/natsrelay/relay"
)

// ingest publishes the messages by fast ingest, in order, and what becomes ready meanwhile behind them. It settles what the stream has taken: one
// message at least, or it fails.
func (l *jsLane) ingest(a *attempt) error {
	f := &fastAnswers{stream: l.sink.js.Stream, prefix: l.ids.next() + "."}
	l.expect(f)
	l.sent = l.sent[:0]
	run := &fastRun{fastAnswers: f, reply: l.inbox + f.prefix + strconv.Itoa(fastFlow) + ".fail."}
	defer func() { l.sink.inFlight.Add(-run.counted) }()
	err := l.stream(a, run)
	l.forget()
	return l.settleFast(a, run, err)
}

// A fastRun is a batch of fast ingest as its sender sees it.
type fastRun struct {
	*fastAnswers
	reply   string // what reply subjects begin with
	subject string // of the last message
	settled int    // of l.sent: so many are
	newest  origin // of those
	bytes   int64  // sent
	counted int64  // of them, in the sink's inFlight
}

// stream sends the batch and what becomes ready meanwhile, until nothing is, and waits for the end.
func (l *jsLane) stream(a *attempt, r *fastRun) error {
	for from := 0; ; {
		l.places = a.unconfirmed(l.places, from, len(a.Messages))
		from = a.upTo
		if err := l.sendFast(a, r); err != nil {
			return err
		}
		for !l.more(a) {
			progress, over := l.settleStored(a, r)
			switch {
			case progress && !over:
				continue // there is room for more
			case over, len(l.sent)-r.settled < fastFlow:
				return l.end(a, r) // before that, no other answer may come
			}
			if err := l.await(a.ctx, a.epoch); err != nil {
				return err
			}
		}
	}
}

// more lets messages be published that have become ready, and reports whether there are any.
func (l *jsLane) more(a *attempt) bool {
	if a.upTo < len(a.Messages) || !a.More() {
		return false
	}
	from := a.upTo
	l.sink.admit(a)
	return a.upTo > from && l.sink.mayPublish(a) == nil // else the run ends, and then the attempt
}

// sendFast publishes the messages in l.places.
func (l *jsLane) sendFast(a *attempt, r *fastRun) error {
	bytes, err := l.send(a, l.places, func() {
		l.unconditional()
		operation := fastAppend
		if len(l.sent) == 0 {
			operation = fastStart
		}
		l.msg.Reply = l.fastReply(r, operation)
	})
	r.bytes += bytes
	r.counted += bytes
	if n := len(l.sent); n > r.settled {
		r.subject = a.Messages[l.sent[n-1]].Subject
	}
	return err
}

func (l *jsLane) fastReply(r *fastRun, operation string) string {
	l.reply = strconv.AppendInt(append(l.reply[:0], r.reply...), int64(len(l.sent))+1, 10)
	l.reply = append(append(append(l.reply, '.'), operation...), fastSuffix...)
	return string(l.reply)
}

// end tells the stream that the batch ends, and waits until it has.
func (l *jsLane) end(a *attempt, r *fastRun) error {
	if len(l.sent) == 0 {
		return nil
	}
	l.mu.Lock()
	r.awaited = 0
	l.mu.Unlock()
	if err := a.epoch.Conn().PublishRequest(r.subject, l.fastReply(r, fastEnd), nil); err != nil {
		return publishError(err)
	}
	return l.await(a.ctx, a.epoch)
}

// settleStored settles what the stream has stored of l.sent, and has the next answer awaited. It reports whether that was anything, and whether the batch is
// over for the stream.
func (l *jsLane) settleStored(a *attempt, r *fastRun) (progress, over bool) {
	l.mu.Lock()
	stored := min(int(r.stored), len(l.sent))
	r.awaited = uint64(stored) + 1
	over = r.ended || r.err != nil
	l.mu.Unlock()
	if stored == r.settled {
		return false, over
	}
	for _, i := range l.sent[r.settled:stored] {
		a.Outcomes[i].Status = relay.Delivered
		if l.sink.resume == nil {
			continue
		}
		if o := l.sink.origin(a.Messages[i]); o.stream != "" {
			r.newest = o.behind(r.newest)
		}
	}
	r.settled = stored
	left := r.bytes * int64(len(l.sent)-stored) / int64(len(l.sent)) // an estimate: they differ in size
	l.sink.inFlight.Add(left - r.counted)
	r.counted = left
	a.Settle()
	return true, over
}

// settleFast settles what the stream has stored in the end, and what it has refused.
func (l *jsLane) settleFast(a *attempt, r *fastRun, err error) error {
	l.settleStored(a, r)
	if s := l.sink.resume; s != nil && r.ended && r.settled > 0 {
		s.noteStored(r.newest, r.last)
	}
	switch {
	case r.settled == len(l.sent):
		return err
	case r.err != nil && judge(r.err) == verdictNoBatch:
		return fmt.Errorf("%w: %w", errFastNotOn, r.err)
	case r.err != nil && r.place == uint64(r.settled)+1:
		return l.settle(a, l.sent[r.settled], &ack{kind: ackError, err: r.err})
	case err != nil:
		return err
	}
	return errFastLost
}
