package main

import (
	"context"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/submap"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/rs/zerolog"
)

// A natsServer is what an end of a route is connected to while it is looked at.
type natsServer struct {
	conn        *natsconn.Conn
	nc          *nats.Conn
	permissions *natsconn.Permissions // nil: everything, or not known
	log         zerolog.Logger        // for what look has to say
}

// askPermissions asks the server what the user may do. Trying it out would not do: a message published to try would reach whoever has subscribed,
// and a subscription in a queue group would take messages from the others.
func (e *endCheck) askPermissions(ctx context.Context, s *natsServer) {
	ctx, cancel := context.WithTimeout(ctx, checkPatience/2)
	defer cancel()
	var err error
	if s.permissions, err = s.conn.Permissions(ctx, s.nc); err != nil {
		e.warn("permissions are not checked, for the server does not tell them: %v", err)
	}
}

// maySubscribe says which of the source's subscriptions would be denied.
func (e *endCheck) maySubscribe(s *natsServer, core *config.CoreSource) {
	for _, subject := range core.Subjects {
		denied := &natsconn.PermissionError{Subject: subject, Queue: core.Queue}
		switch s.permissions.MaySubscribe(subject, core.Queue) {
		case natsconn.GrantNone:
			e.fail("%v", denied)
		case natsconn.GrantPart:
			e.warn("a part of %q is denied: %q", subject, s.permissions.Subscribe.Deny)
		}
	}
	if core.Reply && !s.permissions.MayRespond() {
		e.fail("not permitted to answer requests: allow it responses, or to publish to where they come from, such as _INBOX.>")
	}
}

// mayPublish says which of the patterns the messages' subjects may not be published to. > is what a whole stream may have, and says little.
func (e *endCheck) mayPublish(s *natsServer, patterns []string) {
	for _, pattern := range patterns {
		switch grant := s.permissions.MayPublish(pattern); {
		case grant == natsconn.GrantNone:
			e.fail("%v", &natsconn.PermissionError{Publish: true, Subject: pattern})
		case grant == natsconn.GrantPart && pattern != ">":
			e.warn("permitted to publish to a part of %q only: allowed %q, denied %q; the route is blocked while it has another message", pattern, s.permissions.Publish.Allow, s.permissions.Publish.Deny)
		}
	}
}

// subjectsAfter returns what the messages' subjects match when they get to the sink.
func subjectsAfter(r *config.Route) []string {
	if r.Transform.Subject != "" {
		return []string{submap.Pattern(r.Transform.Subject)}
	}
	return r.Source.Patterns()
}
