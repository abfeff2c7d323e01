package relay

import "time"

// Header holds the headers of a message: keys as they came, letter case kept
// (NATS ADR-4), several values a key in their order.
type Header map[string][]string

// Get returns the first value of the key in exactly this letter case, or "".
func (h Header) Get(key string) string {
	if v := h[key]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// Headers that the relay itself reads and writes.
const (
	// HeaderMsgID is the message's stable identity (NATS ADR-4, JetStream deduplication).
	HeaderMsgID = "Nats-Msg-Id"
	// HeaderVia lists the relays and routes that a message has passed, "INSTANCE/ROUTE" each, oldest first.
	HeaderVia = "Natsrelay-Via"
)

// A Message is what travels along a route. From the moment the source hands it over until
// it is settled it belongs to the route: sources must not touch it again, sinks only read it.
type Message struct {
	Subject string
	Header  Header // may be nil
	Data    []byte

	// ID is stable over retries and restarts: the message's own Nats-Msg-Id if it has one, else given on arrival.
	ID string
	// Time is when the message began to age: when its stream stored it, or else when the relay received it.
	Time time.Time
	// Stream and Sequence are its place in the JetStream stream that it comes from; "" and 0: from none.
	Stream   string
	Sequence uint64
	// Late: messages which have later places in the stream may have gone before it, because it was put back into its route, or its source got it out of order.
	Late bool
	// Receipt settles the message upstream. nil: upstream keeps nothing.
	Receipt Receipt
	// Respond answers the request that the message is. nil, as for nearly all: nobody is to be answered.
	// It is called at most once.
	Respond func(Answer) error

	arrived time.Time // when the relay got it, if Time is not that

	seq  uint64 // its place in the route's order, given by the buffer on arrival
	cost int64  // Size, once the buffer has it

	accepted bool     // it has passed the route's stage and loop guard
	verdict  *verdict // it is to become a dead letter; nil for all others
	attempts int      // failed ones since the relay runs, counted by its lane

	// Guarded by buffer.mu.
	queued  bool   // it is, or was, ready in memory
	settled bool   // it is done
	record  uint64 // its sequence number in the spool; 0: it is not on disk
	evicted bool   // the disk has given it up while it was being delivered: its last chance
}

// settle tells upstream what has become of the message, if it is to know, once.
func (m *Message) settle(f Fate) {
	if m.Receipt != nil {
		m.Receipt.Settle(f)
		m.Receipt = nil
	}
}

// messageOverhead is what one queued message costs besides its bytes: this struct, the
// client library's, slice headers and the allocator's rounding. Counted against buffer.memory,
// so that the bound holds for small messages too.
const messageOverhead = 384

// Size returns what the message costs in memory, in bytes.
func (m *Message) Size() int64 {
	n := messageOverhead + len(m.Subject) + len(m.Data) + len(m.ID) // Stream is shared by all
	if m.verdict != nil {
		n += len(m.verdict.reason) + len(m.verdict.err.Error())
	}
	for k, vs := range m.Header {
		n += 64 + len(k)
		for _, v := range vs {
			n += 16 + len(v)
		}
	}
	return int64(n)
}
