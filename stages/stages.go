// Package stages makes what messages pass on their way into a route, as its filter and transform tables say:
// the condition, the sample, the transformation, in this order.
package stages

import (
	"fmt"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/when"
	"github.com/natsrelay/natsrelay/relay"
)

// New returns the stage of a route, nil if it has neither filter nor transformation. config has checked what it is made of.
func New(r *config.Route) (relay.Stage, error) {
	var s stage
	var err error
	if s.condition, err = condition(r.Filter.When); err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	if r.Filter.Sample != nil {
		s.sample = newSample(r.Filter.Sample)
	}
	if s.transform, err = newTransform(r); err != nil {
		return nil, fmt.Errorf("transform: %w", err)
	}
	if s == (stage{}) {
		return nil, nil
	}
	return s.apply, nil
}

func condition(src string) (*when.Condition, error) {
	if src == "" {
		return nil, nil
	}
	return when.Compile(src)
}

// A stage is all that a route has of the three; the others are nil.
type stage struct {
	condition *when.Condition
	sample    *sample
	transform *transform
}

// apply is a relay.Stage. The message is changed last, when nothing can fail any more.
func (s *stage) apply(m *relay.Message) (relay.Verdict, error) {
	doc := when.Document{Data: m.Data} // so that condition and sample parse it once
	if s.condition != nil {
		holds, err := s.condition.Holds(m.Subject, m.Header, &doc)
		if err != nil {
			return relay.Pass, fmt.Errorf("filter.when: %w", err)
		}
		if !holds {
			return relay.Filtered, nil
		}
	}
	subject, err := s.transform.subject(m.Subject)
	if err != nil {
		return relay.Pass, fmt.Errorf("transform.subject: %w", err)
	}
	if s.sample != nil {
		takes, err := s.sample.takes(m, &doc)
		if err != nil {
			return relay.Pass, fmt.Errorf("filter.sample: %w", err)
		}
		if !takes {
			return relay.Sampled, nil
		}
	}
	s.transform.apply(m, subject)
	return relay.Pass, nil
}
