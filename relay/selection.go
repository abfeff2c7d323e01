package relay

import (
	"strings"
	"time"
)

// A Selection says which of the messages on disk are wanted. The zero value is all of them.
type Selection struct {
	Subject string    // pattern with wildcards; "" = any
	After   time.Time // only what began to age after this
	Limit   int       // most messages; 0 = no limit
}

// Wants reports whether the message is one of them, the limit aside.
func (s *Selection) Wants(m *Stored) bool {
	return m.Time.After(s.After) && (s.Subject == "" || matches(s.Subject, m.Subject))
}

// matches reports whether a subject matches a pattern with wildcards (docs.nats.io, "Subject-Based Messaging").
func matches(pattern, subject string) bool {
	want, have := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range want {
		if token == ">" && i == len(want)-1 {
			return len(have) > i
		}
		if i >= len(have) || token != "*" && token != have[i] {
			return false
		}
	}
	return len(want) == len(have)
}
