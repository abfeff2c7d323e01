package sinks

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/relay"
)

// Fast ingest (ADR-50, nats-server 2.14): a batch has an id, and the place of a message in it is in its reply subject,
//
//	INBOX.ID.FLOW.fail.PLACE.OPERATION.$FI
//
// where the inbox is the lane's. The stream stores a message only if it has the one before, whatever happens to its leader; it
// acknowledges every so many, and the last one. Each Deliver is a batch, so that none is ever idle for the 10 s after which the server forgets it.
//
// It is used only while it is known that no message of the batch was sent before. A message whose id is on its way through
// the replicas already is silently skipped, so an acknowledgement would be worth nothing if it never got there.
const (
	fastFlow   = 500 // acknowledgements are at most so many messages apart; the server's own limit
	fastStart  = "0"
	fastAppend = "1"
	fastEnd    = "3" // is no message
	fastSuffix = ".$FI"
)

var (
	errFastLost  = errors.New("a message of the batch was lost on its way to the stream's leader")
	errFastNotOn = errors.New("the stream takes no fast ingest")
)

// fastAnswers takes the answers to one batch.
type fastAnswers struct {
	stream string
	prefix string    // the batch's id, and a dot
	stored uint64    // so many, from the first on
	ended  bool      // nothing more is stored
	last   uint64    // sequence in the stream of the last one that was stored, once the batch has ended
	err    *apiError // why it ended before its end
	place  uint64    // of the message that err is about; 0: none in particular
}

func (f *fastAnswers) note(reply string, m *nats.Msg) {
	rest, ok := strings.CutPrefix(reply, f.prefix)
	if !ok || f.ended {
		return
	}
	switch a := readAck(m, f.stream); a.kind {
	case ackFlow:
		f.stored = max(f.stored, a.seq)
	case ackStored:
		f.stored, f.last, f.ended = max(f.stored, a.count), a.seq, true
	case ackError:
		f.noteError(rest, a)
	}
}

// noteError notes why a message is not stored. The batch is acknowledged up to there when the server sees the next message, or the end;
// unless it has not begun, or is forgotten.
func (f *fastAnswers) noteError(reply string, a ack) {
	place := a.seq
	if place == 0 {
		place = placeIn(reply)
	}
	f.ended = place <= 1 || judge(a.err) == verdictAgain
	if f.err == nil {
		f.err, f.place = a.err, place
	}
}

// placeIn returns the PLACE of FLOW.fail.PLACE.OPERATION.$FI, 0 if there is none.
func placeIn(reply string) uint64 {
	tokens := strings.Split(reply, ".")
	if len(tokens) != 5 {
		return 0
	}
	place, err := strconv.ParseUint(tokens[2], 10, 64)
	if err != nil {
		return 0
	}
	return place
}

func (f *fastAnswers) complete() bool { return f.ended }

// ingest publishes the batch by fast ingest, in order, and settles what the stream has taken. It settles one message at least, or fails.
func (l *jsLane) ingest(a *attempt) error {
	f := &fastAnswers{stream: l.sink.js.Stream, prefix: l.ids.next() + "."}
	prefix := l.inbox + f.prefix + strconv.Itoa(fastFlow) + ".fail."
	reply := func(operation string) string {
		l.reply = strconv.AppendInt(append(l.reply[:0], prefix...), int64(len(l.sent))+1, 10)
		l.reply = append(append(append(l.reply, '.'), operation...), fastSuffix...)
		return string(l.reply)
	}
	l.expect(f)
	l.places = a.open(l.places, len(a.batch))
	bytes, err := l.send(a, l.places, func() {
		l.unconditional()
		operation := fastAppend
		if len(l.sent) == 0 {
			operation = fastStart
		}
		l.msg.Reply = reply(operation)
	})
	defer l.sink.inFlight.Add(-bytes)
	if n := len(l.sent); n > 0 && err == nil {
		if err = a.epoch.Conn().PublishRequest(a.batch[l.sent[n-1]].Subject, reply(fastEnd), nil); err != nil {
			err = publishError(err)
		}
	}
	if len(l.sent) > 0 && err == nil {
		err = l.await(a.ctx, a.epoch)
	}
	l.forget()
	return l.settleFast(a, f, err)
}

// settleFast settles what the stream has stored of l.sent, and what it has refused.
func (l *jsLane) settleFast(a *attempt, f *fastAnswers, err error) error {
	stored := min(int(f.stored), len(l.sent))
	for _, i := range l.sent[:stored] {
		a.out[i].Status = relay.Delivered
	}
	if r := l.sink.resume; r != nil && f.ended && stored > 0 {
		r.noteStored(l.sink.origin(a.batch[l.sent[stored-1]]), f.last)
	}
	switch {
	case stored == len(l.sent):
		return err
	case f.err != nil && judge(f.err) == verdictNoBatch:
		return fmt.Errorf("%w: %w", errFastNotOn, f.err)
	case f.err != nil && f.place == uint64(stored)+1:
		return l.settle(a, l.sent[stored], &ack{kind: ackError, err: f.err})
	case err != nil:
		return err
	}
	return errFastLost
}
