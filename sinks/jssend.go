package sinks

import (
	"context"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// An attempt is a batch on its way in one epoch.
type attempt struct {
	*relay.Batch
	ctx   context.Context
	epoch natsconn.Epoch

	failures uint64 // of the sink before it
	upTo     int    // messages from this place on are not yet to be published
	newest   origin // of those before, with exactly_once
}

// unsettled reports whether something is left to do.
func (a *attempt) unsettled() bool {
	return slices.ContainsFunc(a.Outcomes[:a.upTo], func(o relay.Outcome) bool { return o.Status == relay.Unconfirmed })
}

// unconfirmed returns the places of the first messages from a place on that are not settled, at most so many.
func (a *attempt) unconfirmed(places []int, from, most int) []int {
	places = places[:0]
	for i := from; i < a.upTo && len(places) < most; i++ {
		if a.Outcomes[i].Status == relay.Unconfirmed {
			places = append(places, i)
		}
	}
	return places
}

// send publishes the messages in these places of the batch, and adds the places of what it has published to l.sent. What the server would
// never take is refused. address is called before each, and sets its reply subject and what it expects of the stream. All goes out in the
// attempt's epoch, in order, or the last ones do not.
func (l *jsLane) send(a *attempt, places []int, address func()) (bytes int64, err error) {
	l.sink.sending.Lock()
	defer l.sink.sending.Unlock()
	release, ok := l.sink.conn.Hold(a.epoch)
	if !ok {
		return 0, errNATSCut
	}
	defer release()
	nc := a.epoch.Conn()
	maxPayload := nc.MaxPayload()
	for _, i := range places {
		m := a.Messages[i]
		if l.sink.midBatch != nil {
			l.sink.midBatch(i)
		}
		address()
		l.msg.added[addOrigin].value[0] = l.sink.provenance(m)
		size, err := l.msg.prepare(m, maxPayload)
		if err == nil {
			err = nc.PublishMsg(&l.msg.Msg)
		}
		switch {
		case err == nil:
			l.sent = append(l.sent, i)
			bytes += size
			l.sink.inFlight.Add(size)
		case isRefusal(err):
			a.Outcomes[i] = relay.Outcome{Status: relay.Refused, Err: err}
		default:
			return bytes, publishError(err)
		}
	}
	return bytes, nil
}

// An ackWindow takes the answers to publishes one by one. Their reply subjects end in a number.
type ackWindow struct {
	stream string
	first  uint64
	acks   []ack
	open   int // how many have no answer; those that may still be published included
}

func newAckWindow(stream string, first uint64, most int) *ackWindow {
	return &ackWindow{stream: stream, first: first, acks: make([]ack, most), open: most}
}

func (w *ackWindow) note(reply string, m *nats.Msg) {
	n, err := strconv.ParseUint(reply, 36, 64)
	if err != nil || n < w.first || n-w.first >= uint64(len(w.acks)) {
		return
	}
	if a := &w.acks[n-w.first]; a.kind == ackNone {
		*a = readAck(m, w.stream)
		w.open--
	}
}

func (w *ackWindow) complete() bool { return w.open == 0 }

// cut says that no more than n are published.
func (w *ackWindow) cut(n int) {
	w.open -= len(w.acks) - n
	w.acks = w.acks[:n]
}

// exchange publishes the messages in these places, each with a reply subject of its own, and returns the answers to
// l.sent. The error says why answers are missing, if they are. condition sets what is expected of the stream before the message.
func (l *jsLane) exchange(a *attempt, places []int, condition func()) ([]ack, error) {
	w := newAckWindow(l.sink.js.Stream, l.number, len(places))
	l.number += uint64(len(places))
	l.expect(w)
	l.sent = l.sent[:0]
	bytes, err := l.send(a, places, func() {
		l.reply = strconv.AppendUint(append(l.reply[:0], l.inbox...), w.first+uint64(len(l.sent)), 36)
		l.msg.Reply = string(l.reply)
		condition()
	})
	defer l.sink.inFlight.Add(-bytes)
	l.mu.Lock()
	w.cut(len(l.sent))
	l.mu.Unlock()
	if err == nil {
		err = l.await(a.ctx, a.epoch)
	}
	l.forget()
	return w.acks, err
}

// publishAll publishes the next messages in no particular order: what the stream does not take leaves the rest untouched.
func (l *jsLane) publishAll(a *attempt) error {
	l.places = a.unconfirmed(l.places, 0, jsExchange)
	acks, err := l.exchange(a, l.places, l.unconditional)
	for k, i := range l.sent {
		switch failed := l.settle(a, i, &acks[k]); {
		case failed == nil:
		case err == nil:
			err = failed
		}
	}
	return err
}
