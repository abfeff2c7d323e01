package sinks

import (
	"slices"

	"github.com/natsrelay/natsrelay/relay"
)

// Order without fast ingest.
//
// Of a batch that is simply published, a stream may store message n+1 and not n: it is full and a consumer makes room in between, it
// drops what comes too fast, its leader steps down and loses what it had not replicated. Sent again, n then comes behind
// n+1. (Measured on three replicas, over a slow line: each of 5 step-downs in the middle of a batch left the stream out of order.)
// There are two ways to keep that from happening; they take the place of fast ingest where it is not offered.
//
// A chain, on a stream of one replica: every message but the first names the one that it has to come right behind, by its id. The
// stream itself refuses it if that one is not the last. It is refused too if somebody else has written in between, and is sent again
// at once; the more often that happens, the fewer are sent at a time. Duplicates are recognised before the condition is looked
// at, so that after a cut the whole batch can be sent again. It costs a header, which the stream stores. The first message needs no
// condition: those before it on its lane are acknowledged, and other lanes have sent theirs wholly before or behind.
//
// Spacing, on a stream of several replicas, or without ids: no message is sent before the one before it, on its subject, is
// acknowledged. It costs a round trip for each message of a subject. The chain does not work there: a message that fails its
// condition leaves its id behind in the leader's memory, and is refused as on its way for the whole duplicate_window.
// Nor does a chain of Nats-Expected-Last-Sequence, on any stream: a message of somebody else's takes the place of one of ours
// that is missing, and the next but one is stored.
const headerExpectedLastID = "Nats-Expected-Last-Msg-Id"

// publishChained publishes the next messages of the batch in order, each on the condition that the one before is the stream's last.
func (l *jsLane) publishChained(a *attempt) error {
	window := l.sink.chained.Load() // shared by the lanes: a change that another one makes meanwhile may be lost, and made again
	l.places = a.unconfirmed(l.places, 0, int(window))
	acks, missing := l.exchange(a, l.places, func() {
		expected := ""
		if n := len(l.sent); n > 0 {
			expected = messageID(a.Messages[l.sent[n-1]])
		}
		l.msg.added[addExpected].value[0] = expected
	})
	for k, i := range l.sent {
		if acks[k].kind == ackNone {
			return missing
		}
		err := l.settle(a, i, &acks[k])
		if err != nil && k > 0 && judge(acks[k].err) == verdictAgain {
			l.sink.chained.Store(max(1, window/2))
			return nil
		}
		if err != nil {
			return err
		}
	}
	l.sink.chained.Store(min(2*window, jsExchange))
	return missing
}

// unconditional lets the next message be stored whatever was stored before.
func (l *jsLane) unconditional() { l.msg.added[addExpected].value[0] = "" }

// messageID returns what a stream knows a message by.
func messageID(m *relay.Message) string {
	if own := m.Header.Get(relay.HeaderMsgID); own != "" {
		return own
	}
	return m.ID
}

// publishSpaced publishes the next messages of the batch, those that have no predecessor there on their subject, or, if order is
// strict, no predecessor at all.
func (l *jsLane) publishSpaced(a *attempt) error {
	if l.sink.opts.Ordering == relay.OrderStrict {
		l.places = a.unconfirmed(l.places, 0, 1)
	} else {
		l.places = a.firsts(l.places)
	}
	acks, err := l.exchange(a, l.places, l.unconditional)
	for k, i := range l.sent {
		if failed := l.settle(a, i, &acks[k]); failed != nil && err == nil {
			err = failed
		}
	}
	return err
}

// firsts returns the place of the first message on each subject that is not settled.
func (a *attempt) firsts(places []int) []int {
	places = a.unconfirmed(places, 0, jsExchange)
	seen := make(map[string]bool)
	return slices.DeleteFunc(places, func(i int) bool {
		subject := a.Messages[i].Subject
		later := seen[subject]
		seen[subject] = true
		return later
	})
}
