package sources

import (
	"strconv"
	"strings"
)

// A place is where a message stands in its stream and consumer. The server tells it in the message's reply subject, which is where the message is
// acknowledged, in one of two forms (NATS ADR-15):
//
//	$JS.ACK.STREAM.CONSUMER.DELIVERIES.SEQUENCE.DELIVERY.TIME.PENDING
//	$JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.DELIVERIES.SEQUENCE.DELIVERY.TIME.PENDING[.…]
type place struct {
	domain   string // "": not told, or none
	sequence uint64 // in the stream
	delivery uint64 // number of this delivery, counted by the consumer
	time     int64  // when the stream stored it, in ns since 1970
	pending  uint64 // messages of the consumer behind it
}

const ackPrefix = "$JS.ACK."

// parsePlace reads a reply subject; false: it is none of a consumer's.
func parsePlace(reply string) (place, bool) {
	rest, ok := strings.CutPrefix(reply, ackPrefix)
	if !ok {
		return place{}, false
	}
	var tokens [10]string
	n := 0
	for more := true; more && n < len(tokens); n++ {
		tokens[n], rest, more = strings.Cut(rest, ".")
	}
	var p place
	fields := tokens[:n]
	switch {
	case n == 7:
		fields = fields[3:]
	case n >= 9:
		if fields[0] != "_" {
			p.domain = fields[0]
		}
		fields = fields[5:]
	default:
		return place{}, false
	}
	var stored uint64
	for i, to := range []*uint64{&p.sequence, &p.delivery, &stored, &p.pending} {
		v, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return place{}, false
		}
		*to = v
	}
	p.time = int64(stored)
	return p, true
}
