package sources

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// stillActive finds out whether this relay has lost its place in the standby group while it was not connected.
func (s *JetStream) stillActive(b *binding) {
	for _, group := range b.info.PriorityGroups {
		if group.Group == s.cfg.Standby && s.pin != "" && group.PinnedClientID != s.pin {
			s.setPin("")
		}
	}
}

// passive reports whether another relay of the standby group is the active one, or none is yet.
func (s *JetStream) passive() bool { return s.cfg.Standby != "" && s.pin == "" }

// unpin has the server choose anew who is active. Requests of this relay that are still under way have the old pin, and get nothing more.
func (s *JetStream) unpin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	if err := s.bound.stream.UnpinConsumer(ctx, s.cfg.Durable, s.cfg.Standby); err != nil {
		s.log.Warn().Err(err).Str("group", s.cfg.Standby).Msg("messages go to a connection of this relay that is gone, and the server cannot be asked to choose anew who is active: trying again")
		return
	}
	s.log.Info().Str("group", s.cfg.Standby).Msg("messages went to a connection of this relay that is gone: asked the server to choose anew who is active")
	s.pin = ""
}

// setPin makes this relay the active one of its group, or not any more.
func (s *JetStream) setPin(pin string) {
	s.pin, s.pinSince = pin, time.Now()
	if pin != "" {
		s.log.Info().Str("group", s.cfg.Standby).Msg("this relay is the active one of its standby group now")
	} else {
		s.log.Warn().Str("group", s.cfg.Standby).Msg("another relay of the standby group is the active one now")
	}
}

// headerPin is how the server tells the active one of a standby group that it is.
const headerPin = "Nats-Pin-Id"

// takePin takes out of the headers what the server has added to them: the last value. Any before it was published with the message.
func takePin(h nats.Header) string {
	values := h[headerPin]
	switch n := len(values); n {
	case 0:
		return ""
	case 1:
		delete(h, headerPin)
		return values[0]
	default:
		h[headerPin] = values[:n-1]
		return values[n-1]
	}
}

// A pinError says that this relay has become the active one of its group, with this id, or has ceased to be it.
type pinError struct{ pin string }

func (e *pinError) Error() string {
	if e.pin == "" {
		return "another relay of the standby group is the active one"
	}
	return "this relay is the active one of its standby group"
}

// A lease is the time for which a relay may take itself to be the only active one. The server keeps its word until it ends; and when it begins, whoever was active
// before has found out that he is not: it asks every quarter of the time for which the server gives its word.
type lease struct {
	pin          string
	begins, ends time.Time
}

// Pin returns what this relay is the active one of its standby group by, another value each time that it becomes it; "": it is not, or cannot be sure of
// it. For as long as the value is the same, no other has been active. It may be called at any time.
func (s *JetStream) Pin() string {
	now := time.Now()
	if l := s.lease.Load(); l != nil && now.After(l.begins) && now.Before(l.ends) {
		return l.pin
	}
	return ""
}

// pinRequest is what the ids of keepPin's requests begin with.
const pinRequest = "pin"

// keepPin keeps the active relay of a standby group active while it asks for nothing, because its sink is slow or away: a request that no message
// satisfies counts as a sign of life. By the answer the relay knows that it has still been the active one when it sent that.
func (p *pull) keepPin() error {
	if p.pin == "" || time.Since(p.pinAsked) < p.pinLasts()/4 {
		return nil
	}
	l := p.s.ledger
	l.mu.Lock()
	p.pinAsked = time.Now()
	p.pinRequests++
	id := p.lastPinRequest()
	l.mu.Unlock()
	return p.send(id, pullRequest{Batch: 1, MaxBytes: 1, NoWait: true})
}

// pinLasts returns how long the server waits for a sign of the active relay.
func (p *pull) pinLasts() time.Duration {
	if limit := p.b.info.Config.PinnedTTL; limit > 0 {
		return min(limit, p.s.times.pinned)
	}
	return p.s.times.pinned
}

// lastPinRequest returns the id of the last request of keepPin.
func (p *pull) lastPinRequest() string { return pinRequest + strconv.Itoa(p.pinRequests) }

// holdPin notes that the server has answered a request of keepPin. The lock is held.
func (p *pull) holdPin(id string) {
	if id == p.lastPinRequest() { // of an older one the time is not known any more
		p.s.lease.Store(&lease{pin: p.pin, begins: p.pinSince.Add(p.pinLasts() / 2), ends: p.pinAsked.Add(p.pinLasts())})
	}
}
