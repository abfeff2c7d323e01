package admin

import (
	"net/http"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics serves a registry of its own: that of the process belongs to nobody, and to whatever is linked in.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{opts: &s.opts, descs: newDescs()}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: requestTimeout / 2})
}

// A collector makes the metrics when they are asked for, from the counts that the routes keep anyway. So each series is there, at 0, as
// soon as its route is.
type collector struct {
	opts  *Options
	descs descs
}

// descs are the metrics. docs/admin.md lists them.
type descs struct {
	received, delivered, deliveredBytes, attempts, dropped, deadLetters, deadStored, spilled, bufferMessages, bufferBytes, oldestAge,
	latency, state, ready, sourcePending, corrupt *prometheus.Desc

	connected, reconnects, connectionErrors *prometheus.Desc
	reloaded, build                         *prometheus.Desc
}

func newDescs() descs {
	route := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("natsrelay_"+name, help, append([]string{"route"}, labels...), nil)
	}
	conn := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("natsrelay_"+name, help, append([]string{"nats"}, labels...), nil)
	}
	return descs{
		received:       route("received_total", "Messages that the source has handed over, filtered ones and loops included."),
		delivered:      route("delivered_total", "Messages that the far side has confirmed."),
		deliveredBytes: route("delivered_bytes_total", "Payload of the messages that the far side has confirmed."),
		attempts:       route("attempts_total", "Deliveries tried, by result: ok or failed. A batch is one.", "result"),
		dropped:        route("dropped_total", "Messages that were given up or left out, by reason.", "reason"),
		deadLetters:    route("dead_letters_total", "Messages that became dead letters, by reason.", "reason"),
		deadStored:     route("dead_letters_stored", "Dead letters that are on this host's disk now."),
		spilled:        route("spilled_total", "Messages written to disk."),
		bufferMessages: route("buffer_messages", "Messages that wait, by tier: memory or disk. What is in both counts in both.", "tier"),
		bufferBytes:    route("buffer_bytes", "Bytes that the waiting messages take, by tier: memory or disk.", "tier"),
		oldestAge:      route("oldest_age_seconds", "Age of the oldest message that waits; 0 if none does."),
		latency:        route("delivery_seconds", "Time from receiving a message to its being confirmed."),
		state:          route("route_state", "1 for the state that the route is in, 0 for all others.", "state"),
		ready:          route("route_ready", "1 if nothing keeps the route from its work, as /readyz says, else 0."),
		sourcePending:  route("source_pending", "Messages that wait in the source's stream; 0 for a core source, or while it is not known."),
		corrupt:        route("corrupt_records_total", "Records on disk that were lost to damage."),

		connected:        conn("connected", "1 if all connections of this name are up, else 0."),
		reconnects:       conn("reconnects_total", "Connections made again after they were cut."),
		connectionErrors: conn("connection_errors_total", "Errors of connections and of attempts to connect, by kind.", "kind"),

		reloaded: prometheus.NewDesc("natsrelay_config_last_reload_successful", "1; 0 if the configuration was refused at the last reload.", nil, nil),
		build:    prometheus.NewDesc("natsrelay_build_info", "1, with what the program was built from.", []string{"version", "revision", "go"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	d := &c.descs
	for _, desc := range []*prometheus.Desc{
		d.received, d.delivered, d.deliveredBytes, d.attempts, d.dropped, d.deadLetters, d.deadStored, d.spilled, d.bufferMessages, d.bufferBytes,
		d.oldestAge, d.latency, d.state, d.ready, d.sourcePending, d.corrupt, d.connected, d.reconnects, d.connectionErrors, d.reloaded, d.build,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	b := c.opts.Build
	ch <- prometheus.MustNewConstMetric(c.descs.build, prometheus.GaugeValue, 1, b.Version, b.Revision, b.Go)
	ch <- prometheus.MustNewConstMetric(c.descs.reloaded, prometheus.GaugeValue, boolean(!c.opts.ReloadFailed()))
	for _, r := range c.opts.Relay.Status() {
		c.route(ch, r)
	}
	for _, conn := range merge(c.opts.Connections()) {
		c.connection(ch, conn)
	}
}

func (c *collector) route(ch chan<- prometheus.Metric, r relay.RouteStatus) {
	name, s := r.Name, r.Stats
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), append([]string{name}, labels...)...)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, append([]string{name}, labels...)...)
	}
	d := &c.descs
	count(d.received, s.Received)
	count(d.delivered, s.Delivered)
	count(d.deliveredBytes, s.DeliveredBytes)
	count(d.attempts, s.AttemptsOK, "ok")
	count(d.attempts, s.AttemptsFailed, "failed")
	for reason, n := range s.Dropped {
		count(d.dropped, n, reason)
	}
	for reason, n := range s.DeadLetters {
		count(d.deadLetters, n, reason)
	}
	gauge(d.deadStored, float64(s.DeadLettersStored))
	count(d.spilled, s.Spilled)
	gauge(d.bufferMessages, float64(s.MemoryMessages), "memory")
	gauge(d.bufferMessages, float64(s.DiskMessages), "disk")
	gauge(d.bufferBytes, float64(s.MemoryBytes), "memory")
	gauge(d.bufferBytes, float64(s.DiskBytes), "disk")
	gauge(d.oldestAge, s.OldestAge.Seconds())
	for _, state := range relay.States() {
		gauge(d.state, boolean(s.State == state), string(state))
	}
	gauge(d.ready, boolean(len(troubles(r)) == 0))
	gauge(d.sourcePending, float64(s.Pending))
	count(d.corrupt, s.Corrupt)
	ch <- histogram(d.latency, s.Latency, name)
}

func (c *collector) connection(ch chan<- prometheus.Metric, conn Connection) {
	ch <- prometheus.MustNewConstMetric(c.descs.connected, prometheus.GaugeValue, boolean(conn.Connected), conn.Name)
	ch <- prometheus.MustNewConstMetric(c.descs.reconnects, prometheus.CounterValue, float64(conn.Reconnects), conn.Name)
	for kind, n := range conn.Errors {
		ch <- prometheus.MustNewConstMetric(c.descs.connectionErrors, prometheus.CounterValue, float64(n), conn.Name, kind)
	}
}

// histogram turns counts by bucket into what Prometheus wants: of all that is not above each bound.
func histogram(desc *prometheus.Desc, h relay.Histogram, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	var below uint64
	for i, bound := range h.Bounds {
		below += h.Counts[i]
		buckets[bound.Seconds()] = below
	}
	return prometheus.MustNewConstHistogram(desc, h.Count(), h.Sum.Seconds(), buckets, labels...)
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
