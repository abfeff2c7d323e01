package test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/sources"
)

// series returns every series of the route "web" and the connection "edge", but for the buckets of the histogram and the build.
func series() map[string]float64 {
	all := map[string]float64{}
	for _, name := range []string{"received_total", "delivered_total", "delivered_bytes_total", "spilled_total", "corrupt_records_total", "oldest_age_seconds",
		"route_ready", "source_pending", "dead_letters_stored", "delivery_seconds_sum", "delivery_seconds_count"} {
		all[`natsrelay_`+name+`{route="web"}`] = 0
	}
	add := func(name, owner, label string, values ...string) {
		for _, v := range values {
			pairs := []string{owner, fmt.Sprintf("%s=%q", label, v)}
			slices.Sort(pairs)
			all["natsrelay_"+name+"{"+strings.Join(pairs, ",")+"}"] = 0
		}
	}
	const web, edge = `route="web"`, `nats="edge"`
	add("attempts_total", web, "result", "ok", "failed")
	add("dropped_total", web, "reason", append(relay.DropReasons(), sources.LostSlowConsumer)...)
	add("dead_letters_total", web, "reason", relay.DeadReasons()...)
	add("buffer_messages", web, "tier", "memory", "disk")
	add("buffer_bytes", web, "tier", "memory", "disk")
	for _, s := range relay.States() {
		add("route_state", web, "state", string(s))
	}
	for _, k := range natsconn.Kinds() {
		add("connection_errors_total", edge, "kind", string(k))
	}
	all[`natsrelay_connected{nats="edge"}`] = 0
	all[`natsrelay_reconnects_total{nats="edge"}`] = 0
	all["natsrelay_config_last_reload_successful"] = 1
	return all
}

// without returns the series but for buckets and build.
func without(all map[string]float64) map[string]float64 {
	rest := maps.Clone(all)
	maps.DeleteFunc(rest, func(name string, _ float64) bool {
		return strings.HasPrefix(name, "natsrelay_delivery_seconds_bucket") || strings.HasPrefix(name, "natsrelay_build_info")
	})
	return rest
}

// All series are there from the start, at 0, and count known traffic exactly.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	s.web.refuse = func(payload string) bool { return strings.HasSuffix(payload, "7") } // 10 of 100
	want := series()
	want[`natsrelay_connected{nats="edge"}`] = 1
	want[`natsrelay_route_state{route="web",state="flowing"}`] = 1
	want[`natsrelay_route_ready{route="web"}`] = 1
	if diff := cmp.Diff(want, without(s.metrics())); diff != "" {
		t.Errorf("before any traffic (-want +got):\n%s", diff)
	}

	const n = 100
	began := time.Now()
	publishAt(t, s.edge.Client(), 0, n, 5000)
	delivered := func() float64 { return s.metrics()[`natsrelay_delivered_total{route="web"}`] }
	stored := `natsrelay_dead_letters_stored{route="web"}`
	within(t, 60*time.Second, func() bool {
		return delivered() == n*9/10 && s.metrics()[stored] == n/10 && s.status().Routes[0].Memory.Messages == 0
	}, "all are delivered, or dead letters")
	got := s.metrics()
	sum := got[`natsrelay_delivery_seconds_sum{route="web"}`]
	if sum <= 0 || sum > n*time.Since(began).Seconds() || got[`natsrelay_delivery_seconds_bucket{route="web",le="+Inf"}`] != n*9/10 {
		t.Errorf("the sum of the histogram is %v s", sum)
	}
	for name, v := range map[string]float64{
		`natsrelay_received_total{route="web"}`:                      n,
		`natsrelay_delivered_total{route="web"}`:                     90,
		`natsrelay_delivered_bytes_total{route="web"}`:               8 + 2*81 + 3, // 1-9 but 7; 10-99 but 9 of them; 100
		`natsrelay_attempts_total{result="ok",route="web"}`:          n,
		`natsrelay_dead_letters_total{reason="refused",route="web"}`: 10,
		`natsrelay_delivery_seconds_count{route="web"}`:              90,
		`natsrelay_delivery_seconds_sum{route="web"}`:                sum,
		stored: 10,
	} {
		want[name] = v
	}
	if diff := cmp.Diff(want, without(got)); diff != "" {
		t.Errorf("after the traffic (-want +got):\n%s", diff)
	}
}

// What cannot be delivered shows in the gauges, and how often that was tried in the counters.
func TestMetricsInAnOutage(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, `spill_after = "100ms"`, "", "")
	s.web.down()
	const n = 50
	publishAt(t, s.edge.Client(), 0, n, 5000)
	within(t, 60*time.Second, func() bool {
		m := s.metrics()
		return m[`natsrelay_spilled_total{route="web"}`] == n && m[`natsrelay_buffer_messages{route="web",tier="disk"}`] == n && m[`natsrelay_buffer_bytes{route="web",tier="disk"}`] > n &&
			m[`natsrelay_attempts_total{result="failed",route="web"}`] >= 3 && m[`natsrelay_oldest_age_seconds{route="web"}`] > 0.1 && m[`natsrelay_route_state{route="web",state="spilling"}`] == 1
	}, "the outage shows")
	s.edge.Stop()
	within(t, 60*time.Second, func() bool {
		m := s.metrics()
		return m[`natsrelay_connected{nats="edge"}`] == 0 && m[`natsrelay_connection_errors_total{kind="disconnect",nats="edge"}`] == 1 && m[`natsrelay_connection_errors_total{kind="connect",nats="edge"}`] > 0
	}, "the lost connection shows")
	s.edge.Restart()
	s.web.up()
	within(t, 60*time.Second, func() bool {
		m := s.metrics()
		return m[`natsrelay_connected{nats="edge"}`] == 1 && m[`natsrelay_reconnects_total{nats="edge"}`] == 1 && m[`natsrelay_delivered_total{route="web"}`] == n &&
			m[`natsrelay_buffer_messages{route="web",tier="disk"}`] == 0 && m[`natsrelay_oldest_age_seconds{route="web"}`] == 0 && m[`natsrelay_route_state{route="web",state="flowing"}`] == 1
	}, "all is well again")
}

// Prometheus' own linter has nothing to say about the metrics.
func TestMetricsLint(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is not installed: it is in Debian's package prometheus")
		}
		t.Skip("promtool is not installed: it is in Debian's package prometheus")
	}
	s := newAdminSetup(t, "", "", "")
	publishAt(t, s.edge.Client(), 0, 10, 1000)
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == 10 }, "some traffic")
	code, text := s.ask("GET", "/metrics", nil)
	if code != http.StatusOK {
		t.Fatal(code, text)
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = io.NopCloser(strings.NewReader(text))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// What waits in a stream shows, also while nothing is taken from it; how long it has waited there is not the relay's latency.
func TestMetricsOfAJetStreamSource(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	a := newAdminAPI(t)
	dir := t.TempDir()
	config := fmt.Sprintf(jsHead+thriftyRoute, mkdir(t, dir+"/state"), `"`+edge.URL()+`"`, web.url())
	r := newRelay(t, writeConfig(t, dir, "%s", config+a.table()))
	r.start()
	a.isUp()
	a.becomesReady()
	a.ask("POST", "/api/v1/routes/web/pause", nil)
	const n, held = 1000, 100
	stream.publish(n)
	published := time.Now()
	pending := func() float64 { return a.metrics()[`natsrelay_source_pending{route="web"}`] }
	within(t, 60*time.Second, func() bool { return pending() >= n-2*held }, "most wait in the stream")
	a.becomesUnready("web: paused: ")
	if st := a.status().Routes[0]; st.SourcePending == nil || st.Delivered != 0 {
		t.Errorf("status %+v", st)
	}
	const quickly = 2500 * time.Millisecond // a bound of the histogram
	time.Sleep(time.Until(published.Add(quickly + time.Second)))
	a.ask("POST", "/api/v1/routes/web/resume", nil)
	within(t, 60*time.Second, func() bool { return web.tally.count() == n && pending() == 0 }, "all arrive")
	a.becomesReady()
	within(t, 60*time.Second, func() bool { return a.metrics()[`natsrelay_delivered_total{route="web"}`] == n }, "all are counted")
	quick := a.metrics()[`natsrelay_delivery_seconds_bucket{route="web",le="2.5"}`]
	if quick < n-3*held {
		t.Errorf("%v of %d took less than %v, and only %d were held back by the pause", quick, n, quickly, held)
	}
	stream.awaitAcked("natsrelay-web")
	r.stop()
	web.tally.check(t, "web", n, 0)
}

// thriftyRoute is a route from the stream that takes little ahead.
const thriftyRoute = `
[route.web.source]
type = "jetstream"
nats = "edge"
stream = "TEST"
max_ack_pending = 100
[route.web.sink]
type = "http"
timeout = "30s"
url = %q
`
