package config

import (
	"slices"
	"time"
)

func routeTable(c *Route) table {
	return table{
		keys: slices.Concat([]key{
			opt("enabled", &c.Enabled, true, boolean),
			reqSub("source", sourceTable(&c.Source)),
			sub("buffer", bufferTable(&c.Buffer)),
			sub("delivery", deliveryTable(&c.Delivery)),
			reqSub("sink", sinkTable(&c.Sink)),
		}, later("filter", "transform", "dead_letter")),
		finish: func(b *binder, v value) { checkLoop(b, v, c) },
	}
}

func sourceTable(c *Source) table {
	core := new(CoreSource)
	return table{
		plural: "sources",
		keys: slices.Concat([]key{
			req("type", &c.Type, oneOf("core", "jetstream")),
			req("nats", &core.NATS, connection),
		}, only("core",
			req("subjects", &core.Subjects, subjects),
			opt("queue", &core.Queue, "natsrelay", queueGroup),
		), only("core", later("reply")...,
		), only("jetstream", later("subjects", "stream", "durable", "consumer", "deliver", "ack", "ack_policy", "ack_wait",
			"max_ack_pending", "pull_bytes", "standby")...,
		)),
		finish: func(b *binder, v value) {
			if c.Type == "core" {
				c.Core = core
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
	return table{keys: slices.Concat([]key{
		opt("ordering", &c.Ordering, "subject", oneOf("strict subject none")),
		opt("in_flight", &c.InFlight, 16, integer(1, 1024)),
		sub("retry", backoffTable(&c.Retry, 500*time.Millisecond, 30*time.Second)),
	}, later("max_attempts", "rate_limit"))}
}

func sinkTable(c *Sink) table {
	http, nats := new(HTTPSink), new(NATSSink)
	return table{
		plural: "sinks",
		keys: slices.Concat([]key{
			req("type", &c.Type, oneOf("http nats")),
		}, only("http",
			req("url", &http.URL, textThat(badHTTPURL)),
			opt("method", &http.Method, "POST", oneOf("POST PUT PATCH")),
			opt("format", &http.Format, "raw", oneOf("raw", "lines", "json", "envelope", "cloudevents", "cloudevents_batch")),
			opt("timeout", &http.Timeout, 10*time.Second, duration(time.Millisecond, time.Hour)),
			opt("headers", &http.Headers, nil, headers),
			ptr("tls", &http.TLS, httpTLSTable),
		), only("http", later("batch", "compression", "bearer_token", "basic", "oauth2", "signing_secrets", "http2", "proxy", "status")...,
		), only("nats",
			req("nats", &nats.NATS, connection),
			req("mode", &nats.Mode, oneOf("core", "jetstream")).or(`mode is required: "core" ("jetstream" is not supported by this version)`),
			opt("dedupe", &nats.Dedupe, true, boolean),
		), only("nats", later("stream", "create_stream", "batch_publish", "exactly_once")...,
		)),
		finish: func(b *binder, v value) {
			switch c.Type {
			case "http":
				c.HTTP = http
				http.Endpoint = endpoint(v)
				checkHTTPS(b, v, http.URL)
			case "nats":
				c.NATS = nats
			}
		},
	}
}

func httpTLSTable(c *HTTPTLS) table {
	return table{
		keys: []key{
			opt("ca", &c.CA, "", file),
			opt("cert", &c.Cert, "", file),
			opt("key", &c.Key, "", file),
			opt("server_name", &c.ServerName, "", text),
		},
		finish: func(b *binder, v value) { checkPEM(b, v, c.CA, c.Cert, c.Key) },
	}
}

// checkLoop refuses a route that would receive its own messages. Longer loops are caught by Natsrelay-Via, at the cost of a hop each.
func checkLoop(b *binder, route value, c *Route) {
	if c.Source.Core == nil || c.Sink.NATS == nil {
		return
	}
	if from, to := c.Source.Core.NATS, c.Sink.NATS.NATS; to != "" && to == from {
		sink, _ := route.get("sink")
		at, _ := sink.get("nats")
		b.problem(at, "is also the source, and the subjects stay the same: each message would come back at once")
	}
}
