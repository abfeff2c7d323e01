package relay

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DeadLetters is where a route puts the messages that it gives up delivering.
//
// Store is called from several lanes at once, each with letters of its own. It returns nil once every one of them is stored
// for good, and only then are they settled in the route. An error, which may be a *Fault, says that the store as a
// whole failed: the messages stay in the route, and Store is called with all of them again when the store's gate lets it. So
// a letter may be stored twice; its message's id tells. displaced is how many older letters had to give way to the new ones.
//
// Close is called once, after the last Store has returned.
//
// A store that also has a method Stored() int says with it how many letters it holds now, without waiting for anything.
type DeadLetters interface {
	Store(ctx context.Context, letters []*DeadLetter) (displaced int, err error)
	Close(ctx context.Context) error
}

// Reasons for a dead letter; the label of natsrelay_dead_letters_total.
const (
	DeadRefused     = DropRefused // the far side will never take it
	DeadMaxAttempts = "max_attempts"
	DeadMaxAge      = DropMaxAge
	DeadFilter      = "filter" // the filter or the transformation could not be computed
)

// DeadReasons returns every reason for a dead letter.
func DeadReasons() []string { return []string{DeadRefused, DeadMaxAttempts, DeadMaxAge, DeadFilter} }

// A DeadLetter is a message that its route gives up, and why.
type DeadLetter struct {
	Message  *Message // as it came, only to be read
	Reason   string
	Err      error  // the last thing that was said about it, or nil
	Code     int    // the status that the far side gave; 0 = none
	Attempts int    // how often it was offered to the sink
	Route    string // the name of the route
	Time     time.Time
}

// Headers that a dead letter has besides its message's own. Where the message has a header of that name already, because it was a dead
// letter before, the newer value stands first.
const (
	HeaderDeadReason   = "Natsrelay-Reason"
	HeaderDeadStatus   = "Natsrelay-Status" // 0 = the far side gave none
	HeaderDeadAttempts = "Natsrelay-Attempts"
	HeaderDeadRoute    = "Natsrelay-Route"
	HeaderDeadTime     = "Natsrelay-Time"  // when it was given up
	HeaderDeadError    = "Natsrelay-Error" // one line, shortened
)

// deadHeaders are the keys of all of them.
func deadHeaders() []string {
	return []string{HeaderDeadReason, HeaderDeadStatus, HeaderDeadAttempts, HeaderDeadRoute, HeaderDeadTime, HeaderDeadError}
}

// Header returns the headers of the letter: its message's own, and why it is dead.
func (d *DeadLetter) Header() Header {
	h := make(Header, len(d.Message.Header)+len(deadHeaders()))
	for k, v := range d.Message.Header {
		h[k] = v
	}
	said := ""
	if d.Err != nil {
		said = oneLine(d.Err.Error())
	}
	for k, v := range map[string]string{
		HeaderDeadReason:   d.Reason,
		HeaderDeadStatus:   strconv.Itoa(d.Code),
		HeaderDeadAttempts: strconv.Itoa(d.Attempts),
		HeaderDeadRoute:    d.Route,
		HeaderDeadTime:     d.Time.UTC().Format(time.RFC3339Nano),
		HeaderDeadError:    said,
	} {
		h[k] = slices.Concat([]string{v}, h[k])
	}
	return h
}

// Stored returns the letter as a message with its headers, to be written to disk.
func (d *DeadLetter) Stored() *Stored {
	m := d.Message
	return &Stored{Message: Message{Subject: m.Subject, Header: d.Header(), Data: m.Data, ID: m.ID, Time: m.Time, Stream: m.Stream, Sequence: m.Sequence}}
}

// Revive turns a stored dead letter back into the message that it was.
func (s *Stored) Revive() {
	for _, k := range deadHeaders() {
		if v := s.Header[k]; len(v) > 1 {
			s.Header[k] = v[1:]
		} else {
			delete(s.Header, k)
		}
	}
}

// oneLine makes a text fit for a header.
func oneLine(s string) string {
	const most = 500
	s = strings.Join(strings.Fields(strings.Map(blankControl, strings.ToValidUTF8(s, "?"))), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func blankControl(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}
