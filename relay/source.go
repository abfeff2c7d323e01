package relay

import (
	"context"
	"errors"
)

// A Source brings messages into a route.
//
// The route calls Run once, from one goroutine. Run subscribes, calls accept for each
// message in the order of arrival, and returns nil when ctx has ended and everything that
// the source had already taken from the far side has been passed to accept. It returns
// an error only when it can never work as configured; a broken connection is not an error,
// the source waits for it to come back.
//
// accept may be called from several goroutines. It takes ownership of the message. It
// blocks while the buffer is full and its policy is to block: that is the back-pressure.
// It returns ErrStopped once the route takes no more; the message is then still the source's. A message with a Receipt that upstream keeps is
// held back, too, while the sink fails, and not taken any more once the route has begun to stop.
//
// Close is called once, after Run has returned and the last Receipt is settled: the source sees to it that what was settled is known upstream,
// and gives back what it took and the route did not, which is later in order than all that the route has Returned.
type Source interface {
	Run(ctx context.Context, accept func(*Message) error) error
	Close(ctx context.Context) error
}

// An Upstream is a Source that can tell how it stands. Its methods may be called at any time, from any goroutine, and never
// wait for the network.
type Upstream interface {
	// Trouble says why nothing can arrive at present; nil while the source is connected, subscribed and permitted. A *Fault
	// that is Blocked says that somebody has to mend it. It wraps ErrStarting until the source has come up for the first time, or
	// knows a reason why it has not.
	Trouble() error
	// Pending returns how many messages wait upstream that the relay has not taken, and false if that cannot be known.
	Pending() (uint64, bool)
	// Lost returns what the source itself had to give up since the start, by reason.
	Lost() map[string]uint64
}

// ErrStarting is the trouble of a source that has only just begun.
var ErrStarting = errors.New("has not come up yet")
