package relay

import (
	"time"

	"github.com/natsrelay/natsrelay/internal/subject"
)

// A Selection says which of the messages on disk are wanted. The zero value is all of them.
type Selection struct {
	Subject string    // pattern with wildcards; "" = any
	After   time.Time // only what began to age after this
	Limit   int       // most messages; 0 = no limit
}

// Wants reports whether the message is one of them, the limit aside.
func (s *Selection) Wants(m *Stored) bool {
	return m.Time.After(s.After) && (s.Subject == "" || subject.Covers(s.Subject, m.Subject))
}
