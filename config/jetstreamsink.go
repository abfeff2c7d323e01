package config

import "time"

// NATSSink is a sink of type nats.
type NATSSink struct {
	NATS      string         // key of Config.NATS
	Mode      string         // core | jetstream
	Dedupe    bool           // send Nats-Msg-Id
	JetStream *JetStreamSink // nil in mode core
}

// JetStreamSink is what mode jetstream has beyond mode core.
type JetStreamSink struct {
	Stream       string
	Create       *CreateStream // nil: the stream is never created
	BatchPublish string        // auto | off
	ExactlyOnce  bool
}

// CreateStream is a create_stream table: the stream as it is made when there is none. One that is there is never changed.
type CreateStream struct {
	Subjects        []string
	Replicas        int
	Storage         string // file | memory
	Retention       string // limits | interest | workqueue
	Discard         string // old | new
	MaxMessages     int64  // 0 = no limit, as for the other limits
	MaxBytes        int64
	MaxAge          time.Duration
	DuplicateWindow time.Duration
	Compression     string // none | s2
}

// natsSinkKeys are the keys of a sink of type nats.
func natsSinkKeys(c *NATSSink, js *JetStreamSink) []key {
	return []key{
		req("nats", &c.NATS, connection),
		req("mode", &c.Mode, oneOf("core jetstream")).or(`required key is missing: "jetstream" (confirmed by a stream) or "core" (plain publishing)`),
		opt("dedupe", &c.Dedupe, true, boolean),
		opt("stream", &js.Stream, "", textThat(badJetStreamName)),
		ptr("create_stream", &js.Create, createStreamTable),
		opt("batch_publish", &js.BatchPublish, "auto", oneOf("auto off")),
		opt("exactly_once", &js.ExactlyOnce, false, boolean),
	}
}

func createStreamTable(c *CreateStream) table {
	return table{
		keys: []key{
			req("subjects", &c.Subjects, subjects),
			opt("replicas", &c.Replicas, 1, integer(1, 5)),
			opt("storage", &c.Storage, "file", oneOf("file memory")),
			opt("retention", &c.Retention, "limits", oneOf("limits interest workqueue")),
			opt("discard", &c.Discard, "old", oneOf("old new")),
			opt("max_messages", &c.MaxMessages, 0, integer[int64](0, 1<<53)),
			opt("max_bytes", &c.MaxBytes, 0, zeroOrSize(1024)),
			opt("max_age", &c.MaxAge, 0, duration(0, forever)),
			opt("duplicate_window", &c.DuplicateWindow, 2*time.Minute, duration(100*time.Millisecond, forever)),
			opt("compression", &c.Compression, "none", oneOf("none s2")),
		},
		finish: func(b *binder, v value) {
			if c.MaxAge == 0 || c.DuplicateWindow <= c.MaxAge {
				return
			}
			if at, ok := v.get("duplicate_window"); ok {
				b.problem(at, "is longer than max_age, which no server takes")
			}
			c.DuplicateWindow = c.MaxAge
		},
	}
}

// finishNATSSink checks what concerns several keys.
func finishNATSSink(b *binder, sink value, c *NATSSink, js *JetStreamSink) {
	if c.Mode == "jetstream" {
		c.JetStream = js
		if at, ok := sink.get("stream"); !ok {
			b.problem(at, `required key is missing, for mode = "jetstream"`)
		}
		return
	}
	if c.Mode != "core" {
		return // which is reported already
	}
	for _, name := range []string{"stream", "create_stream", "batch_publish", "exactly_once"} {
		if at, ok := sink.get(name); ok {
			b.problem(at, `has no effect unless mode = "jetstream"`)
		}
	}
}

// checkExactlyOnce: what a target holds of a route is a beginning of it only if the route is in order, and it is known by
// its place in the stream it comes from.
func checkExactlyOnce(b *binder, route value, c *Route) {
	if c.Sink.NATS == nil || c.Sink.NATS.JetStream == nil || !c.Sink.NATS.JetStream.ExactlyOnce {
		return
	}
	sink, _ := route.get("sink")
	at, _ := sink.get("exactly_once")
	if create := c.Sink.NATS.JetStream.Create; create != nil && create.Retention != "limits" {
		table, _ := sink.get("create_stream")
		at, _ := table.get("retention")
		b.problem(at, `must be "limits" for exactly_once: a stream that forgets what was consumed cannot tell what it has had`)
	}
	if c.Source.Type == "core" {
		b.problem(at, `needs a source of type jetstream: only a stream's messages can be told apart for ever`)
	}
	if c.Delivery.Ordering != "strict" {
		b.problem(at, `needs delivery.ordering = "strict"`)
	}
	if js := c.Source.JetStream; js != nil && js.Standby != "" && js.Ack == "stored" {
		b.problem(at, `needs ack = "delivered" where another relay stands by: what one has stored comes behind what the other delivers meanwhile`)
	}
	if !c.Sink.NATS.Dedupe {
		b.problem(at, "needs dedupe = true: it is by their id that the stream knows messages that are still on their way")
	}
}
