package config

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// JetStreamSource is a source of type jetstream: a durable pull consumer.
type JetStreamSource struct {
	NATS     string // key of Config.NATS
	Stream   string
	Durable  string
	Consumer string   // ensure | bind
	Subjects []string // filter; nil: the whole stream
	Deliver  Deliver

	Ack           string // delivered | stored
	AckPolicy     string // explicit | all
	AckWait       time.Duration
	MaxAckPending int
	PullBytes     int64
	Standby       string // priority group; "": none
}

// Deliver says where a new consumer starts.
type Deliver struct {
	From     string    // all | new | last | last_per_subject | sequence | time
	Sequence uint64    // for sequence
	Time     time.Time // for time
}

func jetStreamKeys(c *JetStreamSource) []key {
	return []key{
		req("stream", &c.Stream, textThat(badJetStreamName)),
		opt("durable", &c.Durable, "", textThat(badJetStreamName)), // "" until the route's name is known
		opt("consumer", &c.Consumer, "ensure", oneOf("ensure bind")),
		opt("subjects", &c.Subjects, nil, subjects),
		opt("deliver", &c.Deliver, Deliver{From: "all"}, deliver),
		opt("ack", &c.Ack, "delivered", oneOf("delivered stored")),
		opt("ack_policy", &c.AckPolicy, "explicit", oneOf("explicit all")),
		// The server checks for what is overdue no more often than once a second.
		opt("ack_wait", &c.AckWait, 30*time.Second, duration(time.Second, 24*time.Hour)),
		opt("max_ack_pending", &c.MaxAckPending, 4096, integer(1, 1_000_000)),
		opt("pull_bytes", &c.PullBytes, 8*mib, size(64<<10)),
		opt("standby", &c.Standby, "", textThat(badGroup)),
	}
}

// finishJetStream fills in and checks what depends on other tables of the route.
func finishJetStream(b *binder, route value, c *Route) {
	js := c.Source.JetStream
	if js == nil {
		return
	}
	if js.Durable == "" {
		js.Durable = "natsrelay-" + c.Name
	}
	source, _ := route.get("source")
	checkAckPolicy(b, source, c)
	checkStored(b, source, c)

	buffer, _ := route.get("buffer")
	at, given := buffer.get("when_full")
	if given && c.Buffer.WhenFull != "block" {
		b.problem(at, `must be "block" for a source of type jetstream: what does not fit stays in the stream`)
	}
	c.Buffer.WhenFull = "block"
}

// checkAckPolicy: one acknowledgement for a run of messages is only true if they are done in their order.
func checkAckPolicy(b *binder, source value, c *Route) {
	at, _ := source.get("ack_policy")
	if c.Source.JetStream.AckPolicy == "all" && c.Delivery.Ordering != "strict" {
		b.problem(at, `"all" needs delivery.ordering = "strict": it acknowledges a message together with all before it`)
	}
}

// checkStored: what is acknowledged as stored must be on a disk.
func checkStored(b *binder, source value, c *Route) {
	at, _ := source.get("ack")
	switch {
	case c.Source.JetStream.Ack != "stored":
	case c.Buffer.Disk == 0:
		b.problem(at, `"stored" needs a disk to store to, and buffer.disk is 0`)
	case c.Buffer.Sync == "never":
		b.problem(at, `"stored" means forced down to the disk, and buffer.sync is "never"`)
	}
}

// connection returns the name of the [nats.NAME] that the source reads from.
func (s *Source) connection() string {
	switch {
	case s.Core != nil:
		return s.Core.NATS
	case s.JetStream != nil:
		return s.JetStream.NATS
	}
	return ""
}

// filter returns the subjects that the file gives for the source; none: those of the stream, whatever they are.
func (s *Source) filter() []string {
	switch {
	case s.Core != nil:
		return s.Core.Subjects
	case s.JetStream != nil:
		return s.JetStream.Subjects
	}
	return nil
}

// Patterns returns what the subjects of the source's messages match.
func (s *Source) Patterns() []string {
	if s.JetStream != nil && len(s.JetStream.Subjects) == 0 {
		return []string{">"}
	}
	return s.filter()
}

// badJetStreamName checks the name of a stream or consumer: a token of the subjects of the JetStream API, and of paths on the server.
func badJetStreamName(s string) string {
	if len(s) > 255 || strings.ContainsAny(s, `.*>/\`) || strings.ContainsFunc(s, isBlankOrControl) {
		return `is not a name that JetStream takes: at most 255 characters, without blanks and . * > / \`
	}
	return ""
}

// badGroup checks the name of a priority group (NATS ADR-42).
func badGroup(s string) string {
	if len(s) > 16 || strings.ContainsFunc(s, func(r rune) bool { return !isInstanceChar(r) && !strings.ContainsRune("/=", r) || r == '.' }) {
		return "is not the name of a priority group: at most 16 letters, digits, - _ / ="
	}
	return ""
}

// startWords are what deliver may be besides a sequence or a time.
var startWords = []string{"all", "new", "last", "last_per_subject"}

// deliver reads a word, { sequence = N } or { time = DATE }.
func deliver(b *binder, v value) (Deliver, bool) {
	if _, ok := v.raw.(string); ok {
		from, ok := oneOf(strings.Join(startWords, " "))(b, v)
		return Deliver{From: from}, ok
	}
	names := slices.Collect(maps.Keys(v.table()))
	if len(names) != 1 || names[0] != "sequence" && names[0] != "time" {
		b.problem(v, `must be one of "%s", or { sequence = N } or { time = DATE }`, strings.Join(startWords, `", "`))
		return Deliver{}, false
	}
	d := Deliver{From: names[0]}
	at, _ := v.get(d.From)
	var ok bool
	if d.From == "time" {
		d.Time, ok = date(b, at)
	} else {
		var n int64
		n, ok = integer[int64](1, math.MaxInt64)(b, at)
		d.Sequence = uint64(n)
	}
	return d, ok
}

// date reads a date with its time and zone.
func date(b *binder, v value) (time.Time, bool) {
	t, ok := v.raw.(time.Time)
	if !ok || strings.Contains(t.Location().String(), "local") {
		b.problem(v, "must be a date with time and zone, without quotes, such as 2026-11-01T00:00:00Z")
		return time.Time{}, false
	}
	return t.UTC(), true // one zone, so that equal dates are equal settings
}
