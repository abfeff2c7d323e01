package sinks

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/natsconn"
)

// errNoAck: the server is there, the stream does not answer. A stream of several replicas that has lost its quorum is silent.
var errNoAck = errors.New("no acknowledgement in time: the stream has no leader, or no quorum")

// A jsLane is what one Deliver needs while it publishes: an inbox of its own, where the answers to its publishes come in. Publishing with
// one's own inbox costs 6 allocations and 1.2 CPU s per million, nats.go's PublishMsgAsync 23 and 6.
type jsLane struct {
	sink   *JetStream
	msg    natsMessage
	reply  []byte   // scratch for reply subjects
	places []int    // scratch: of the messages that are to be published
	sent   []int    // scratch: of the messages that were published, their places in the batch
	ids    batchIDs // of fast ingest
	number uint64   // of publishes outside of it, ever: the last token of their reply subjects
	ignore func()   // ends the watch on denied publishes

	nc    *nats.Conn // that the inbox is on
	sub   *nats.Subscription
	inbox string // with the dot behind it

	news chan struct{} // holds one token when something has come in

	mu      sync.Mutex
	answers answers // nil between attempts: what is late is ignored
	heard   uint64  // answers that have come in, ever
	denied  error   // a publish that the server does not permit; such a one is never answered
}

// answers take note of what comes in.
type answers interface {
	// note reads the answer to a publish with this reply subject, of which the inbox is cut off. The lane is locked.
	note(reply string, m *nats.Msg)
	// complete reports whether no more needs to come. The lane is locked.
	complete() bool
}

func newJSLane(s *JetStream) *jsLane {
	l := &jsLane{sink: s, msg: newNATSMessage(s.dedupe), news: make(chan struct{}, 1), ids: newBatchIDs()}
	l.ignore = s.conn.OnError(l.noteError)
	return l
}

// attach makes sure that the inbox is on the epoch's handle. The subscription outlives cuts.
func (l *jsLane) attach(epoch natsconn.Epoch) error {
	nc := epoch.Conn()
	if l.nc == nc {
		return nil
	}
	inbox := nc.NewInbox() + "."
	sub, err := nc.Subscribe(inbox+">", l.receive)
	if err != nil {
		return fmt.Errorf("subscribe to the inbox of acknowledgements: %w", err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // bounded by what is in flight
		return fmt.Errorf("subscribe to the inbox of acknowledgements: %w", err)
	}
	l.detach()
	l.nc, l.sub, l.inbox = nc, sub, inbox
	return nil
}

func (l *jsLane) detach() {
	if l.sub != nil {
		_ = l.sub.Unsubscribe() // an error means that its connection is gone for good
	}
}

func (l *jsLane) close() {
	l.ignore()
	l.detach()
}

// receive is called by nats.go, for one message at a time.
func (l *jsLane) receive(m *nats.Msg) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reply, ok := strings.CutPrefix(m.Subject, l.inbox)
	if !ok || l.answers == nil {
		return
	}
	l.answers.note(reply, m)
	l.heard++
	if l.answers.complete() {
		l.wake()
	}
}

// noteError is called with every error of the connection.
func (l *jsLane) noteError(err error) {
	denied, ok := errors.AsType[*natsconn.PermissionError](err)
	if !ok || !denied.Publish {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answers != nil {
		l.denied = denied
		l.wake()
	}
}

func (l *jsLane) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// expect lets a take note of answers until forget.
func (l *jsLane) expect(a answers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.news:
	default:
	}
	l.answers, l.denied = a, nil
}

// forget ends expect. The answers do not change any more.
func (l *jsLane) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = nil
}

// state returns how many answers have come in, whether that is all, and what was denied.
func (l *jsLane) state() (heard uint64, complete bool, denied error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard, l.answers.complete(), l.denied
}

// deniedGrace is how long the other answers of an attempt are waited for once a publish has been denied.
const deniedGrace = 100 * time.Millisecond

// await waits for the answers to what was published in the epoch. It gives up when none has come for a while, when the connection is
// cut, when a publish was denied, or when ctx ends; what has come until then counts.
func (l *jsLane) await(ctx context.Context, epoch natsconn.Epoch) error {
	patience := l.sink.patience()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var last uint64
	for {
		heard, complete, denied := l.state()
		if complete {
			return nil
		}
		if denied != nil {
			timer.Reset(deniedGrace)
		}
		select {
		case <-l.news:
			continue
		case <-epoch.Done():
			return errNATSCut // the cut itself is in natsconn's log, with its cause
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if denied != nil {
			return denied
		}
		if heard == last {
			return l.sink.silence(ctx, epoch)
		}
		last = heard
		timer.Reset(patience)
	}
}

// batchIDs gives ids that no other batch of fast ingest has, on any stream: the random part is the lane's.
type batchIDs struct {
	random string
	n      uint64
}

func newBatchIDs() batchIDs { return batchIDs{random: rand.Text()[:12]} }

func (b *batchIDs) next() string {
	b.n++
	return b.random + strconv.FormatUint(b.n, 36)
}
