package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/relay"
)

// A pull is one round's way to the messages: a subscription of its own, and requests that ask for messages to be sent there.
//
// Several requests may be under way, and a message does not say which of them it answers, so the accounts are of all together.
type pull struct {
	s       *JetStream
	b       *binding
	sub     *nats.Subscription
	inbox   string // what the subjects of requests' answers begin with
	api     string // subject of requests
	pin     string // id of this relay as the active one of its group
	alone   bool   // nobody else pulls from the consumer
	watch   watch
	ended   chan error
	wake    chan struct{}
	request uint64 // number of the last
	asked   time.Time

	// Guarded by ledger.mu.
	over     bool   // what arrives now is for the next round to ask for again
	wanted   int    // messages that requests may still bring
	bytes    int    // the same in bytes, as the server counts
	large    bool   // the next message is larger than what the last request had left
	expected uint64 // number of the next delivery; 0: unknown
	count    uint64 // of messages
	heard    bool   // something has come since the last heartbeat was due

	pinSince    time.Time // when this relay became the active one
	pinAsked    time.Time // when keepPin last sent a request
	pinRequests int       // of keepPin
}

// newPull subscribes.
func newPull(s *JetStream, b *binding, alone bool) (*pull, error) {
	p := &pull{
		s: s, b: b, alone: alone, inbox: b.nc.NewInbox() + ".", ended: make(chan error, 1), wake: make(chan struct{}, 1),
		api: s.conn.APISubject("CONSUMER.MSG.NEXT." + s.cfg.Stream + "." + s.cfg.Durable), pin: s.pin, pinSince: s.pinSince,
	}
	if p.pin != "" || alone && s.cfg.AckPolicy == "all" { // so that one is missed that is lost before the first that arrives
		p.expected = b.info.Delivered.Consumer + 1
	}
	sub, err := b.nc.Subscribe(p.inbox+"*", p.receive)
	if err != nil {
		return nil, err
	}
	// What may wait there is bounded by what is asked for.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	p.sub = sub
	s.ledger.mu.Lock()
	s.ledger.room = func() {
		if p.roomy() {
			signal(p.wake)
		}
	}
	s.ledger.mu.Unlock()
	return p, nil
}

// close ends the subscription. What nats.go still has of it, and what the server has sent meanwhile, is asked for again in the next round.
func (p *pull) close() {
	l := p.s.ledger
	l.mu.Lock()
	p.over = true
	l.room = func() {}
	l.mu.Unlock()
	_ = p.sub.Unsubscribe() // an error means that the connection is closed
}

func (p *pull) received() bool {
	p.s.ledger.mu.Lock()
	defer p.s.ledger.mu.Unlock()
	return p.count > 0
}

// run asks for messages as there is room for them, and watches over it all, until something ends the pull.
func (p *pull) run(ctx context.Context, cut <-chan struct{}) error {
	if !p.s.doubtful {
		if err := p.judge(p.b.info); err != nil {
			return err
		}
	}
	beat := time.NewTicker(p.heartbeat())
	defer beat.Stop()
	looks := time.NewTicker(p.s.times.look)
	defer looks.Stop()
	pins := time.NewTicker(p.pinLasts() / 4)
	defer pins.Stop()
	seen := make(chan sight, 1)
	looking := false
	for {
		if err := errors.Join(p.keepPin(), p.ask()); err != nil {
			return errCut
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return errCut
		case err := <-p.ended:
			return err
		case <-p.wake:
		case <-pins.C:
		case <-beat.C:
			if err := p.listen(); err != nil {
				return err
			}
		case <-looks.C:
			if !looking {
				looking = true
				go func() { seen <- p.lookAt(ctx) }()
			}
		case sight := <-seen:
			looking = false
			if err := p.heed(sight); err != nil {
				return err
			}
		}
	}
}

// receive is nats.go's callback. It must not wait.
func (p *pull) receive(m *nats.Msg) {
	if m.Reply == "" && strings.HasPrefix(m.Subject, p.inbox) {
		p.status(m)
		return
	}
	at, ok := parsePlace(m.Reply)
	if !ok {
		if p.s.strange.Add(1) == 1 {
			p.s.log.Error().Str("subject", m.Subject).Str("reply", m.Reply).
				Msg("a message came without the reply subject of a consumer, and is left out: is $JS.ACK mapped to something else between the accounts?")
		}
		return
	}
	pin := ""
	if p.s.cfg.Standby != "" {
		pin = takePin(m.Header)
	}
	size := m.Size()
	msg := p.s.message(m, at)
	l := p.s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.over || !p.inTurn(at, pin) {
		return
	}
	if l.isAnother(msg) {
		p.s.log.Error().Uint64("sequence", msg.Sequence).Uint64("last", l.last).Time("stored", msg.Time).
			Msg("the stream has lost its end, and has other messages there: its server has crashed, or was restored from a copy. Going on with those; what was under way is delivered again")
		p.s.reuse()
		l.newStream(msg.Sequence)
		msg.ID = p.s.id(msg, at.domain)
	}
	p.count++
	p.heard = true
	p.large = false
	p.wanted--
	p.bytes -= size
	l.take(msg, size, m.Reply)
	if p.roomy() {
		signal(p.wake)
	}
}

// inTurn reports whether the message is the one that must come now, and else ends the pull: the next round asks for what is missing. The lock is held.
func (p *pull) inTurn(at place, pin string) bool {
	expected := p.expected
	p.expected = at.delivery + 1
	switch {
	case pin != "" && pin != p.pin:
		// The consumer may have handed out older messages to the one that was active before: they are asked for first.
		p.finish(&pinError{pin})
		return false
	case expected == 0 || at.delivery == expected:
		return true
	case p.s.cfg.AckPolicy == "all":
		// Whatever came of the one between, it must not be acknowledged with this one.
		p.finish(fmt.Errorf("delivery %d of the consumer came instead of %d: a message was lost on its way, or somebody else pulls, which ack_policy = \"all\" does not allow", at.delivery, expected))
		return false
	case p.pin != "": // nobody but the active one gets any
		p.finish(errGhost)
		return false
	}
	p.watch.others = true // as a rule, it is somebody else's
	return true
}

// finish ends the pull. The lock is held.
func (p *pull) finish(why error) {
	p.over = true
	select {
	case p.ended <- why:
	default:
	}
}

// status is the server's word on a request.
func (p *pull) status(m *nats.Msg) {
	l := p.s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.over {
		return
	}
	p.heard = true
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	if id := strings.TrimPrefix(m.Subject, p.inbox); strings.HasPrefix(id, pinRequest) && code != "423" {
		if code == "404" || code == "408" || code == "409" && m.Header.Get("Nats-Pending-Messages") != "" { // the consumer has looked at it
			p.holdPin(id)
		}
		return
	}
	switch {
	case code == "100":
		if p.awaits() {
			p.finish(errLookAgain) // the consumer has nothing more to deliver: fewer were missing than it seemed, or it is held back
		}
	case code == "404", code == "408", code == "409" && m.Header.Get("Nats-Pending-Messages") != "":
		p.wanted -= number(m.Header.Get("Nats-Pending-Messages"))
		p.bytes -= number(m.Header.Get("Nats-Pending-Bytes"))
		p.large = p.large || strings.HasPrefix(text, "Message Size Exceeds")
		signal(p.wake)
	case code == "423":
		p.finish(&pinError{""})
	case code == "503":
		p.finish(&relay.Fault{Err: errors.New("nobody answers pull requests: the consumer, its stream or JetStream is not there")})
	case code == "409":
		p.finish(fmt.Errorf("the server ended the pull: %s", text))
	default:
		p.finish(blocked("the server refuses the pull: %s %s", code, text))
	}
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // 0 if there is none
	return n
}

// room returns how many messages, and bytes, may be asked for besides what is under way or held. The lock is held.
func (p *pull) room() (messages, bytes int) {
	l := p.s.ledger
	messages, bytes = l.window.limit-l.open, p.budget()-l.queueBytes
	if p.wanted > 0 { // else nothing is under way, whatever bytes there were left to ask for
		messages, bytes = messages-p.wanted, bytes-max(p.bytes, 0)
	}
	return messages, bytes
}

// awaits reports whether all that is asked for is what is to come before what the queue has. The lock is held.
func (p *pull) awaits() bool { return p.alone && !p.s.ledger.awaited.none() }

// roomy reports whether there is room worth a request: a quarter of all there is, so that the server gets few of them. The lock is held.
func (p *pull) roomy() bool {
	if l := p.s.ledger; p.awaits() {
		return (p.wanted <= 0 || p.bytes <= 0) && (l.queueBytes < p.budget() || l.blocked())
	}
	messages, bytes := p.room()
	return messages >= max(1, p.s.ledger.window.limit/4) && bytes >= p.budget()/4
}

func (p *pull) budget() int { return int(p.s.cfg.PullBytes) }

// awaitHeartbeat is the heartbeat of requests for what is recalled: it ends the wait for what does not come.
const awaitHeartbeat = 500 * time.Millisecond

// heartbeat returns how often the server is to say that it is there; not more often than it allows for a request's life.
func (p *pull) heartbeat() time.Duration { return min(p.s.times.heartbeat, p.expires()/2) }

func (p *pull) expires() time.Duration {
	if limit := p.b.info.Config.MaxRequestExpires; limit > 0 {
		return min(limit, p.s.times.expires)
	}
	return p.s.times.expires
}

// A pullRequest is what CONSUMER.MSG.NEXT takes.
type pullRequest struct {
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
	Expires   time.Duration `json:"expires,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
	Group     string        `json:"group,omitempty"`
	Pin       string        `json:"id,omitempty"`
}

// ask sends a request for as many messages as there is room for, unless that is not worth one yet.
func (p *pull) ask() error {
	r, ok := p.next()
	if !ok {
		return nil
	}
	p.asked = time.Now()
	p.request++
	return p.send(strconv.FormatUint(p.request, 10), r)
}

func (p *pull) send(id string, r pullRequest) error {
	r.Group, r.Pin = p.s.cfg.Standby, p.pin
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return p.b.nc.PublishRequest(p.api, p.inbox+id, data)
}

// next makes the accounts of the next request.
func (p *pull) next() (pullRequest, bool) {
	l := p.s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.wanted <= 0 || p.bytes <= 0 {
		p.wanted, p.bytes = 0, 0 // a request that has run out of either is over
	}
	if !p.roomy() {
		return pullRequest{}, false
	}
	if p.awaits() {
		return p.nextAwaited(), true
	}
	room, bytes := p.allowed(p.room())
	if p.s.passive() {
		if p.wanted > 0 {
			return pullRequest{}, false
		}
		room = 1 // it is there to be chosen: what it brings is asked for again
	}
	r := pullRequest{Batch: room, MaxBytes: bytes, Expires: p.expires(), Heartbeat: p.heartbeat()}
	if p.large {
		// Not until all that was asked for has come and is passed on. Then that one message alone, whatever its size.
		if p.wanted > 0 || l.queueBytes > 0 {
			return pullRequest{}, false
		}
		r.Batch, r.MaxBytes = 1, 0
		bytes = p.budget()
	}
	p.wanted += r.Batch
	p.bytes += bytes
	return r, true
}

// allowed bounds a request by what the consumer allows.
func (p *pull) allowed(messages, bytes int) (int, int) {
	if limit := p.b.info.Config.MaxRequestBatch; limit > 0 {
		messages = min(messages, limit)
	}
	if limit := p.b.info.Config.MaxRequestMaxBytes; limit > 0 {
		bytes = min(bytes, limit)
	}
	return messages, bytes
}

// nextAwaited makes the accounts of a request for what is awaited, one such request at a time. If that takes more room than there is, it must
// come all the same, one by one, since nothing else could make room. So the memory that the queue takes is bounded by pull_bytes, or else by what was pending.
func (p *pull) nextAwaited() pullRequest {
	l := p.s.ledger
	r := pullRequest{Batch: max(1, l.window.most-l.open), Expires: p.expires(), Heartbeat: p.heartbeat()}
	if l.awaited.left > 0 {
		r.Batch = l.awaited.left
		if !p.b.info.Paused {
			r.Heartbeat = min(r.Heartbeat, awaitHeartbeat)
		}
	}
	room := p.budget() - l.queueBytes
	r.Batch, r.MaxBytes = p.allowed(r.Batch, room)
	p.bytes = r.MaxBytes
	if p.large || room < p.budget()/4 {
		r.Batch, r.MaxBytes, p.bytes = 1, 0, p.budget()
	}
	p.wanted = r.Batch
	return r
}
