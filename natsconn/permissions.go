package natsconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/subject"
)

// userInfo is where a server tells the user of a connection about itself. No other request, and no publish, is needed to know what is permitted.
const userInfo = "$SYS.REQ.USER.INFO"

// Permissions are what the user of a connection may do, as its server says. nil: everything.
type Permissions struct {
	Publish   Permitted       `json:"publish"`
	Subscribe Permitted       `json:"subscribe"`
	Responses json.RawMessage `json:"responses"` // not empty: it may answer requests, whatever else it may publish
}

// Permitted are patterns of subjects. What is denied is so even if it is allowed, too. Those of subscriptions may have a queue group behind the subject.
type Permitted struct {
	Allow patterns `json:"allow"` // none: everything
	Deny  patterns `json:"deny"`
}

type patterns []string

// A Grant says how much of what a pattern matches is permitted.
type Grant int

// From nothing to everything.
const (
	GrantNone Grant = iota
	GrantPart
	GrantAll
)

// Permissions asks the server what it permits the user of nc, which is this connection's. It fails where the user may not even ask that, or the
// server is an old one (before 2.10), or one without a system account.
func (c *Conn) Permissions(ctx context.Context, nc *nats.Conn) (*Permissions, error) {
	ctx, stop := c.UntilDenied(ctx, "") // its inbox may be denied, too
	defer stop()
	m, err := nc.RequestWithContext(ctx, userInfo, nil)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", userInfo, BecauseDenied(ctx, err))
	}
	var answer struct {
		Data *struct {
			Permissions *Permissions `json:"permissions"`
		} `json:"data"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Data == nil {
		return nil, fmt.Errorf("%s: the answer cannot be read: %.200q", userInfo, m.Data)
	}
	return answer.Data.Permissions, nil
}

// MayPublish says how much of what the pattern matches may be published to.
func (p *Permissions) MayPublish(pattern string) Grant {
	if p == nil {
		return GrantAll
	}
	allow, deny := p.Publish.Allow, p.Publish.Deny
	if len(allow) == 0 && len(p.Responses) == 0 {
		allow = []string{">"} // with permission to respond, only what is listed is allowed
	}
	covers := func(permitted string) bool { return subject.Covers(permitted, pattern) }
	overlaps := func(permitted string) bool { return subject.Overlap(permitted, pattern) }
	switch {
	case !slices.ContainsFunc(allow, overlaps), slices.ContainsFunc(deny, covers):
		return GrantNone
	case !slices.ContainsFunc(allow, covers), slices.ContainsFunc(deny, overlaps):
		return GrantPart
	}
	return GrantAll
}

// Denied returns a *PermissionError for each of the patterns of which nothing may be published to, joined; nil if there is none.
func (p *Permissions) Denied(patterns ...string) error {
	var errs []error
	for _, pattern := range patterns {
		if p.MayPublish(pattern) == GrantNone {
			errs = append(errs, &PermissionError{Publish: true, Subject: pattern})
		}
	}
	return errors.Join(errs...)
}

// MayRespond says whether requests may be answered that come from where nats.go's come from, unless it is told otherwise.
func (p *Permissions) MayRespond() bool {
	return p == nil || len(p.Responses) > 0 || p.MayPublish(nats.InboxPrefix+">") != GrantNone
}

// MaySubscribe says whether a subscription is permitted, in a queue group unless that is "", and whether all that it matches comes then.
// nats-server (2.15) lets a.> pass where a.* is allowed; here it is denied, for whoever wrote that cannot have meant it.
func (p *Permissions) MaySubscribe(pattern, queue string) Grant {
	if p == nil {
		return GrantAll
	}
	covers := func(permitted string) bool { return subject.Covers(permitted, pattern) }
	overlaps := func(permitted string) bool { return subject.Overlap(permitted, pattern) }
	plain, inGroup, anyGroup := p.Subscribe.Allow.split(queue, covers)
	allowed := len(p.Subscribe.Allow) == 0 || plain
	if queue != "" && anyGroup {
		allowed = inGroup // what is said of groups comes before what is said of the subject alone
	}
	plain, inGroup, _ = p.Subscribe.Deny.split(queue, covers)
	if !allowed || plain || inGroup {
		return GrantNone
	}
	if plain, inGroup, _ = p.Subscribe.Deny.split(queue, overlaps); plain || inGroup {
		return GrantPart
	}
	return GrantAll
}

// split tests the patterns of a list: those without a group, those for this group, and those for any.
func (l patterns) split(queue string, test func(string) bool) (plain, inGroup, anyGroup bool) {
	for _, permitted := range l {
		name, group, grouped := strings.Cut(permitted, " ")
		switch {
		case !test(name):
		case !grouped:
			plain = true
		default:
			anyGroup = true
			inGroup = inGroup || queue != "" && (group == queue || subject.Covers(group, queue))
		}
	}
	return plain, inGroup, anyGroup
}
