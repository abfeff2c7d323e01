package config

import (
	"slices"
	"time"
)

func routeTable(c *Route) table {
	return table{
		keys: []key{
			opt("enabled", &c.Enabled, true, boolean),
			reqSub("source", sourceTable(&c.Source)),
			sub("filter", filterTable(&c.Filter)),
			sub("transform", transformTable(&c.Transform)),
			sub("buffer", bufferTable(&c.Buffer)),
			sub("delivery", deliveryTable(&c.Delivery)),
			reqSub("sink", sinkTable(&c.Sink)),
			sub("dead_letter", deadLetterTable(&c.DeadLetter)),
		},
		finish: func(b *binder, v value) {
			finishJetStream(b, v, c)
			checkReply(b, v, c)
			checkTransform(b, v, c)
			checkLoop(b, v, c)
			checkDeadLetterLoop(b, v, c)
			checkExactlyOnce(b, v, c)
		},
	}
}

func sourceTable(c *Source) table {
	core, js := new(CoreSource), new(JetStreamSource)
	var nats string
	return table{
		plural: "sources",
		keys: slices.Concat([]key{
			req("type", &c.Type, oneOf("core jetstream")),
			req("nats", &nats, connection),
		}, only("core",
			req("subjects", &core.Subjects, subjects),
			opt("queue", &core.Queue, "natsrelay", queueGroup),
			opt("reply", &core.Reply, false, boolean),
		), only("jetstream", jetStreamKeys(js)...)),
		finish: func(b *binder, v value) {
			switch c.Type {
			case "core":
				core.NATS, c.Core = nats, core
			case "jetstream":
				js.NATS, c.JetStream = nats, js
			}
		},
	}
}

func bufferTable(c *Buffer) table {
	return table{
		keys: []key{
			opt("memory", &c.Memory, 64*mib, size(mib)),
			opt("disk", &c.Disk, 10*gib, zeroOrSize(16*mib)),
			opt("persist", &c.Persist, "outage", oneOf("overflow outage always")),
			opt("spill_after", &c.SpillAfter, 2*time.Second, duration(0, 24*time.Hour)),
			opt("sync", &c.Sync, "interval", oneOf("each interval never")),
			opt("sync_interval", &c.SyncInterval, 200*time.Millisecond, duration(time.Millisecond, time.Hour)),
			opt("when_full", &c.WhenFull, "drop_oldest", oneOf("block drop_oldest drop_newest")),
			opt("max_age", &c.MaxAge, 0, duration(0, forever)),
			opt("compression", &c.Compression, "none", oneOf("none s2 zstd")),
			opt("min_free", &c.MinFree, gib, size(0)),
		},
		finish: func(b *binder, v value) {
			if at, ok := v.get("disk"); ok && c.Disk == 0 && c.Persist == "always" {
				b.problem(at, `is 0, so persist = "always" has no place to write to`)
			}
		},
	}
}

func deliveryTable(c *Delivery) table {
	return table{keys: []key{
		opt("ordering", &c.Ordering, "subject", oneOf("strict subject none")),
		opt("in_flight", &c.InFlight, 16, integer(1, 1024)),
		sub("retry", backoffTable(&c.Retry, 500*time.Millisecond, 30*time.Second)),
		opt("max_attempts", &c.MaxAttempts, 0, integer(0, 1_000_000)),
		opt("rate_limit", &c.RateLimit, 0, integer(0, 10_000_000)),
	}}
}

func sinkTable(c *Sink) table {
	http, nats, js := new(HTTPSink), new(NATSSink), new(JetStreamSink)
	return table{
		plural: "sinks",
		keys: slices.Concat([]key{
			req("type", &c.Type, oneOf("http nats")),
		}, only("http", httpKeys(http)...,
		), only("nats", natsSinkKeys(nats, js)...,
		)),
		finish: func(b *binder, v value) {
			switch c.Type {
			case "http":
				c.HTTP = http
				finishHTTP(b, v, http)
			case "nats":
				c.NATS = nats
				finishNATSSink(b, v, nats, js)
			}
		},
	}
}
