package sinks

import (
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Fast ingest (ADR-50, nats-server 2.14): a batch has an id, and the place of a message in it is in its reply subject,
//
//	INBOX.ID.FLOW.fail.PLACE.OPERATION.$FI
//
// where the inbox is the lane's. The stream stores a message only if it has the one before, whatever happens to its leader; it
// acknowledges every so many, and the last one. A batch goes on for as long as there is something to send, and ends then: none is
// ever idle for the 10 s after which the server forgets it.
//
// It is used only while it is known that no message of the batch was sent before. A message whose id is on its way through
// the replicas already is silently skipped, so an acknowledgement would be worth nothing if it never got there.
const (
	fastFlow   = 128 // acknowledgements are at most so many messages apart, up to the end
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

	awaited uint64 // so many stored are enough for now; 0: the end is
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

// complete reports whether the batch has ended, or has got as far as is waited for.
func (f *fastAnswers) complete() bool {
	return f.ended || f.awaited > 0 && (f.stored >= f.awaited || f.err != nil)
}
