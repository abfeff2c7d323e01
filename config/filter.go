package config

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/natsrelay/natsrelay/internal/subject"
	"github.com/natsrelay/natsrelay/internal/submap"
	"github.com/natsrelay/natsrelay/internal/when"
)

// Filter is a [route.NAME.filter] table. A message must pass both.
type Filter struct {
	When   string  // an expression as package when has it; "": all messages
	Sample *Sample // nil: all messages
}

// Sample is the sample table of a filter: at most one message per key and interval.
type Sample struct {
	Every time.Duration
	Key   string // subject | json.FIELD, a path with dots | header.NAME
}

// Transform is a [route.NAME.transform] table.
type Transform struct {
	Subject       string            // NATS subject-mapping syntax; "": unchanged
	SetHeaders    map[string]Secret // names in their exact case
	RemoveHeaders []string
}

func filterTable(c *Filter) table {
	return table{keys: []key{
		opt("when", &c.When, "", condition),
		ptr("sample", &c.Sample, func(s *Sample) table {
			return table{keys: []key{
				req("every", &s.Every, duration(time.Millisecond, forever)),
				opt("key", &s.Key, "subject", textThat(badSampleKey)),
			}}
		}),
	}}
}

func transformTable(c *Transform) table {
	return table{keys: []key{
		opt("subject", &c.Subject, "", text), // checked with the subjects of the source
		opt("set_headers", &c.SetHeaders, nil, natsHeaders),
		opt("remove_headers", &c.RemoveHeaders, nil, list(textThat(badNATSHeader))),
	}}
}

// condition reads the expression of a filter, and compiles it for its errors.
func condition(b *binder, v value) (string, bool) {
	s, ok := text(b, v)
	if !ok {
		return "", false
	}
	if _, err := when.Compile(s); err != nil {
		b.problem(v, "%s", unlessExpanded(v, err, "is not a valid expression"))
		return "", false
	}
	return s, true
}

// unlessExpanded returns err's text, which may quote pieces of v, or instead if v holds a ${…}.
func unlessExpanded(v value, err error, instead string) string {
	if s, _ := v.raw.(string); strings.Contains(s, "${") {
		return instead
	}
	printable := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "?"))
	return strings.Join(strings.Fields(printable), " ")
}

func badSampleKey(s string) string {
	field, json := strings.CutPrefix(s, "json.")
	name, header := strings.CutPrefix(s, "header.")
	switch {
	case json && slices.Contains(strings.Split(field, "."), ""):
		return `must name a field after "json."`
	case header:
		return badNATSHeader(name)
	case !json && s != "subject":
		return `must be "subject", "json.FIELD" or "header.NAME"`
	}
	return ""
}

// badNATSHeader checks the name of a header of a message: one that HTTP can carry, too.
func badNATSHeader(name string) string {
	if !isToken(name) {
		return "is not a valid name of a header"
	}
	return ""
}

// ownHeaders are those of a message that are natsrelay's, and what they are for.
var ownHeaders = map[string]string{
	"Natsrelay-Via": "by it loops are found",
	"Nats-Msg-Id":   "it is the message's id",
}

// natsHeaders reads a table of headers of a message. Letter case counts (NATS ADR-4).
func natsHeaders(b *binder, v value) (map[string]Secret, bool) {
	all := make(map[string]Secret)
	for _, name := range b.names(v) {
		at, _ := v.get(name)
		text, ok := anyText(b, at)
		switch problem := badNATSHeader(name); {
		case problem != "":
			b.problem(at, "%s", problem)
		case ownHeaders[name] != "":
			b.problem(at, "cannot be set: %s", ownHeaders[name])
		case ok && strings.ContainsFunc(text, isControl):
			b.problem(at, "the value has a control character")
		}
		all[name] = Secret(text)
	}
	return all, true // a bad one has been reported, and that is enough
}

// checkTransform checks transform.subject against the subjects that it maps, and remove_headers.
func checkTransform(b *binder, route value, c *Route) {
	transform, _ := route.get("transform")
	if list, ok := transform.get("remove_headers"); ok {
		elems, _ := list.elems()
		for i, name := range c.Transform.RemoveHeaders {
			if ownHeaders[name] != "" {
				b.problem(elems[i], "cannot be removed: %s", ownHeaders[name])
			}
		}
	}
	if c.Transform.Subject == "" || len(c.Source.Patterns()) == 0 {
		return
	}
	if _, err := submap.New(c.Source.Patterns(), c.Transform.Subject); err != nil {
		at, _ := transform.get("subject")
		b.problem(at, "%s", unlessExpanded(at, err, "is not a mapping of the subjects of the source"))
	}
}

// checkReply refuses reply = true where there is nothing to reply with.
func checkReply(b *binder, route value, c *Route) {
	if c.Source.Core == nil || !c.Source.Core.Reply {
		return
	}
	source, _ := route.get("source")
	at, _ := source.get("reply")
	switch {
	case c.Sink.NATS != nil:
		b.problem(at, "needs a sink of type http: its response is the reply")
	case c.Sink.HTTP != nil && c.Sink.HTTP.Format != "raw":
		b.problem(at, `needs sink.format = "raw": a request is answered on its own`)
	}
}

// checkLoop refuses a route that would receive its own messages. Longer loops are caught by Natsrelay-Via, at the cost of a hop each.
func checkLoop(b *binder, route value, c *Route) {
	if c.Sink.NATS == nil {
		return
	}
	from, to := c.Source.connection(), c.Sink.NATS.NATS
	if to == "" || to != from {
		return
	}
	sink, _ := route.get("sink")
	at, _ := sink.get("nats")
	if c.Transform.Subject == "" {
		b.problem(at, "is also the source, and the subjects stay the same: each message would come back at once")
		return
	}
	for i, taken := range c.Source.filter() {
		if subject.Overlap(submap.Pattern(c.Transform.Subject), taken) {
			transform, _ := route.get("transform")
			at, _ := transform.get("subject")
			b.problem(at, "may be what source.subjects[%d] matches, on the same connection: the message would come back at once", i)
		}
	}
}
