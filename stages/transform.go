package stages

import (
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/submap"
	"github.com/natsrelay/natsrelay/relay"
)

// A transform changes subject and headers. nil changes nothing.
type transform struct {
	mapping *submap.Mapping // nil: the subject stays
	remove  []string
	set     map[string][]string
}

func newTransform(r *config.Route) (*transform, error) {
	c := r.Transform
	if c.Subject == "" && len(c.SetHeaders) == 0 && len(c.RemoveHeaders) == 0 {
		return nil, nil
	}
	t := &transform{remove: c.RemoveHeaders, set: make(map[string][]string, len(c.SetHeaders))}
	for key, value := range c.SetHeaders {
		t.set[key] = []string{value.Reveal()}
	}
	if c.Subject != "" {
		var err error
		if t.mapping, err = submap.New(r.Source.Patterns(), c.Subject); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// subject returns what the subject becomes.
func (t *transform) subject(s string) (string, error) {
	if t == nil || t.mapping == nil {
		return s, nil
	}
	return t.mapping.Map(s)
}

// apply changes the message. Headers go by their exact key, as NATS has it (ADR-4): what is removed may be set again.
func (t *transform) apply(m *relay.Message, subject string) {
	if t == nil {
		return
	}
	m.Subject = subject
	for _, key := range t.remove {
		delete(m.Header, key)
	}
	if m.Header == nil && len(t.set) > 0 {
		m.Header = make(relay.Header, len(t.set)+1) // and Natsrelay-Via
	}
	for key, values := range t.set {
		m.Header[key] = values // shared by all messages: nobody changes the values of a header
	}
}
