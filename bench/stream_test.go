package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// A streamContender moves what is in the stream SRC of a server somewhere else.
type streamContender struct {
	name    string
	start   mover
	batched bool // the target stream takes fast ingest
	http    bool // it goes to an HTTP endpoint
}

// BenchmarkStreamToStream empties a stream into another one on a second server: the relay, a loop that pulls, publishes with PublishMsgAsync and
// acknowledges, and the server's own sources, over a leaf node. These neither acknowledge each message, nor send an id with it: the relay
// does as they do with ack_policy = "all" and dedupe = false.
func BenchmarkStreamToStream(b *testing.B) {
	for _, size := range []int{128, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			const n = 300_000
			src := newStreamSource(b, size, n)
			compareStreams(b, src, n, []streamContender{
				{name: "bare", start: bareLoop("stream", "")},
				{name: "bare/ids", start: bareLoop("stream", "ids")},
				{name: "sources"},
				{name: "relay", start: streamRelay("", "subject", streamSink(""))},
				{name: "relay/dedupe=false", start: streamRelay("", "none", streamSink("dedupe = false\n"))},
				{name: "relay/fast", start: streamRelay("", "subject", streamSink("")), batched: true},
				{name: "relay/fast,dedupe=false", start: streamRelay("", "subject", streamSink("dedupe = false\n")), batched: true},
				{name: "relay/fast,all,dedupe=false", start: streamRelay(ackAll, "strict", streamSink("dedupe = false\n")), batched: true},
				{name: "relay/fast,all,exactly_once", start: streamRelay(ackAll, "strict", streamSink("exactly_once = true\n")), batched: true},
			})
		})
	}
}

// BenchmarkStreamToHTTP empties a stream into an HTTP endpoint.
func BenchmarkStreamToHTTP(b *testing.B) {
	for _, bc := range []struct {
		name, bare string
		sink       sink
		messages   int
	}{
		{"raw64", "64x1", httpSink, 60_000},
		{"lines500", "16x500", httpLines, 300_000},
	} {
		for _, size := range []int{128, 1024} {
			b.Run(fmt.Sprintf("%s/%dB", bc.name, size), func(b *testing.B) {
				src := newStreamSource(b, size, bc.messages)
				compareStreams(b, src, bc.messages, []streamContender{
					{name: "bare", start: bareLoop("stream-http", bc.bare), http: true},
					{name: "relay", start: streamRelay("", "none", bc.sink), http: true},
				})
			})
		}
	}
}

// compareStreams lets the contenders empty the stream, in turn, b.N times over.
func compareStreams(b *testing.B, src *streamSource, n int, contenders []streamContender) {
	names := make([]string, len(contenders))
	rounds := make([][]cost, b.N)
	for r := range rounds {
		for i, c := range contenders {
			names[i] = c.name
			rounds[r] = append(rounds[r], src.measure(b, n, c))
		}
	}
	report(b, names, rounds, n-n/20)
}

// A streamSource is a server with the stream SRC, full of messages.
type streamSource struct {
	srv  *natstest.Server
	leaf int // port for leaf nodes
	js   jetstream.JetStream
}

func newStreamSource(b *testing.B, size, n int) *streamSource {
	leaf := natstest.FreePort(b)
	srv := natstest.Start(b, jetStreamConf(b, "src")+fmt.Sprintf("\nleafnodes: {listen: \"127.0.0.1:%d\"}", leaf), nil)
	js, err := jetstream.New(srv.Client(), jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "SRC", Subjects: []string{"bench.>"}}); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, size)
	for i := range n {
		if _, err := js.PublishAsync(subjects[i%len(subjects)], payload, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	return &streamSource{srv: srv, leaf: leaf, js: js}
}

func jetStreamConf(b *testing.B, domain string) string {
	return fmt.Sprintf("jetstream: {store_dir: %q, domain: %q, max_mem: 64MB, max_file: 8GB}", filepath.Join(b.TempDir(), "js"), domain)
}

// measure returns what it took to move all but the first of the messages, which warm the mover up.
func (s *streamSource) measure(b *testing.B, n int, c streamContender) cost {
	for _, durable := range []string{"bare", "natsrelay-bench"} { // so that it starts at the first message
		s.js.DeleteConsumer(context.Background(), "SRC", durable) // an error means that there is none
	}
	address, count := s.target(b, c)
	var p *process
	if c.start != nil {
		p = c.start(b, s.srv.URL(), address)
		defer p.stop(b)
	}
	used := func() time.Duration {
		if p == nil {
			return 0
		}
		return p.cpu(b)
	}
	await(b, count, n/20)
	cpu, began := used(), time.Now()
	await(b, count, n)
	return cost{seconds: time.Since(began).Seconds(), cpu: (used() - cpu).Seconds()}
}

// await asks a hundred times a second: once a millisecond took a tenth of the machine.
func await(b *testing.B, count func() int, n int) {
	for end := time.Now().Add(2 * time.Minute); count() < n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("%d of %d messages moved", count(), n)
		}
	}
}

// target makes what the messages go to: an HTTP endpoint, or a server with a stream, by the kind of contender.
func (s *streamSource) target(b *testing.B, c streamContender) (address string, count func() int) {
	if c.http {
		var received atomic.Int64
		return httpReceiver(b, &received), func() int { return int(received.Load()) }
	}
	conf, settings := jetStreamConf(b, "dst"), `"subjects": ["bench.>"]`
	if c.start == nil {
		conf += fmt.Sprintf("\nleafnodes: {remotes: [{url: \"nats://127.0.0.1:%d\"}]}", s.leaf)
		settings = `"sources": [{"name": "SRC", "external": {"api": "$JS.src.API"}}]`
	}
	if c.batched {
		settings += `, "allow_batched": true`
	}
	dst := natstest.Start(b, conf, nil)
	nc := dst.Client()
	m, err := nc.Request("$JS.API.STREAM.CREATE.DST", []byte(`{"name": "DST", `+settings+`}`), 10*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	if count := streamLast(nc); count() < 0 {
		b.Fatalf("create stream: %s", m.Data)
	}
	return dst.URL(), streamLast(nc)
}

// streamLast returns a function that returns the last sequence of the target stream, -1 if there is none.
func streamLast(nc *nats.Conn) func() int {
	return func() int {
		m, err := nc.Request("$JS.API.STREAM.INFO.DST", nil, 10*time.Second)
		if err != nil {
			return -1
		}
		info := struct {
			State struct {
				Last int `json:"last_seq"`
			}
			Error any
		}{}
		if err := json.Unmarshal(m.Data, &info); err != nil || info.Error != nil {
			return -1
		}
		return info.State.Last
	}
}

func streamSink(keys string) sink {
	return func(dst string) string {
		return fmt.Sprintf("[nats.dst]\nurls = [%q]\n[route.bench.sink]\ntype = \"nats\"\nnats = \"dst\"\nmode = \"jetstream\"\nstream = \"DST\"\n%s", dst, keys)
	}
}

const streamRelayConfig = `state_dir = %q
instance = "bench"
admin = { listen = "" }
[nats.src]
urls = [%q]
[route.bench]
[route.bench.source]
type = "jetstream"
nats = "src"
stream = "SRC"
%s[route.bench.delivery]
ordering = %q
in_flight = 64
%s`

const ackAll = "ack_policy = \"all\"\n"

// streamRelay runs the real binary with one route from the stream.
func streamRelay(sourceKeys, ordering string, to sink) mover {
	return func(b *testing.B, src, dst string) *process {
		dir := b.TempDir()
		path := filepath.Join(dir, "relay.toml")
		conf := fmt.Sprintf(streamRelayConfig, filepath.Join(dir, "state"), src, sourceKeys, ordering, to(dst))
		if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
			b.Fatal(err)
		}
		return startProcess(b, relayBinary(b), "run", "-c", path)
	}
}
