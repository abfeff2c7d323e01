package config

import (
	"strings"

	"github.com/natsrelay/natsrelay/internal/subject"
)

// deadLetterTable: without the table its defaults hold, but it matters whether it is there (DeadLetter.Given).
func deadLetterTable(c *DeadLetter) table {
	return table{
		keys: []key{
			opt("to", &c.To, "disk", oneOf("disk nats drop")),
			opt("max", &c.Max, gib, size(16*mib)),
			opt("nats", &c.NATS, "", connection),
			opt("subject", &c.Subject, "", textThat(badPublishSubject)),
		},
		finish: func(b *binder, v value) {
			c.Given = true
			if at, ok := v.get("max"); ok && c.To != "disk" {
				b.problem(at, `has no effect unless to = "disk"`)
			}
			for _, name := range []string{"nats", "subject"} {
				at, ok := v.get(name)
				switch {
				case ok && c.To != "nats":
					b.problem(at, `has no effect unless to = "nats"`)
				case !ok && c.To == "nats":
					b.problem(at, `required key is missing, for to = "nats"`)
				}
			}
		},
	}
}

// badPublishSubject checks a subject to publish to.
func badPublishSubject(s string) string {
	if problem := badSubject(s); problem != "" {
		return problem
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "*" || token == ">" {
			return "must not have wildcards: messages are published to it"
		}
	}
	return ""
}

// checkDeadLetterLoop refuses dead letters that would come back as messages of their route.
func checkDeadLetterLoop(b *binder, route value, c *Route) {
	dead := c.DeadLetter
	if dead.To != "nats" || dead.NATS != c.Source.connection() {
		return
	}
	for _, s := range c.Source.filter() {
		if subject.Overlap(s, dead.Subject) {
			table, _ := route.get("dead_letter")
			at, _ := table.get("subject")
			b.problem(at, "is one of the route's own: its dead letters would come back as messages")
			return
		}
	}
}
