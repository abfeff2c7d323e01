package sources

import (
	"context"
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
	s.pin = pin
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

// pinRequest is the id of the requests of keepPin.
const pinRequest = "pin"

// keepPin keeps the active relay of a standby group active while it asks for nothing, because its sink is slow or away: a request that no message
// satisfies counts as a sign of life.
func (p *pull) keepPin() error {
	if p.pin == "" || time.Since(p.asked) < p.s.times.pinned/4 {
		return nil
	}
	return p.send(pinRequest, pullRequest{Batch: 1, MaxBytes: 1, NoWait: true})
}
