package sinks

import (
	"context"
	"flag"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

var stepDowns = flag.Int("stepdowns", 1, "how often the stream's leader steps down in the middle of a batch; with more than 1, what happens without care is shown too")

// Cuts anywhere in the batches: nothing is lost, nothing is twice, and the stream never has n+1 before n.
func TestJetStreamOrderThroughCuts(t *testing.T) {
	for _, name := range []string{"fast", "chained"} {
		t.Run(name, func(t *testing.T) {
			const cuts, perBatch = 30, 300
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			proxy := tcpproxy.Start(t, srv.Addr())
			s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), ways[name])
			made, next, published := 0, 500, 0
			s.midBatch = func(int) {
				if published++; published >= next && made < cuts {
					made++
					next = published + 100 + rand.IntN(1000)
					proxy.Cut()
					if made%2 == 0 { // the rest of the batch finds a connection, and must not go out on it
						time.Sleep(30 * time.Millisecond)
					}
				}
			}
			n := 0
			for ; made < cuts; n += perBatch {
				deliverAll(t, s, numbered(n, perBatch))
			}
			checkInOrder(t, numbers(t, stored(t, srv.Client())), n)
		})
	}
}

// Lanes side by side, each with a subject of its own, cuts anywhere: on each subject nothing is lost, nothing is twice, and n+1 is never before n.
func TestJetStreamLanesThroughCuts(t *testing.T) {
	for _, name := range []string{"fast", "chained"} {
		t.Run(name, func(t *testing.T) {
			const cuts, perBatch, batches = 20, 300, 40
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			proxy := tcpproxy.Start(t, srv.Addr())
			s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), ways[name])
			made, next, published := 0, 500, 0
			s.midBatch = func(int) { // one lane at a time publishes
				if published++; published >= next && made < cuts {
					made++
					next = published + 100 + rand.IntN(3000)
					proxy.Cut()
				}
			}
			var lanes sync.WaitGroup
			subjects := []string{"t.a", "t.b", "t.c", "t.d"}
			for _, subject := range subjects {
				lanes.Go(func() {
					for i := range batches {
						deliverAll(t, s, numberedOn(subject, i*perBatch, perBatch))
					}
				})
			}
			lanes.Wait()
			of := map[string][]jetstream.Msg{}
			for _, m := range stored(t, srv.Client()) {
				of[m.Subject()] = append(of[m.Subject()], m)
			}
			for _, subject := range subjects {
				checkInOrder(t, numbers(t, of[subject]), batches*perBatch)
			}
			if made < cuts {
				t.Errorf("%d of %d cuts were made", made, cuts)
			}
		})
	}
}

// While a batch is on its way, somebody makes room in a stream that is full: what comes behind a message that found none must not be stored before it.
func TestJetStreamOrderInAStreamThatWasFull(t *testing.T) {
	for _, name := range []string{"fast", "chained"} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			settings := `"discard": "new", "max_msgs": `
			createStream(t, nc, ", "+settings+"100")
			s := newJetStream(t, natstest.Config(srv.URL()), ways[name])
			deliverAll(t, s, numbered(0, 10))
			lane := s.lanes.all[0]
			heard := func() uint64 {
				lane.mu.Lock()
				defer lane.mu.Unlock()
				return lane.heard
			}
			before := heard()
			s.midBatch = func(i int) {
				if i != 150 {
					return
				}
				s.midBatch = nil
				full := before + 150 // answers; by fast ingest only the first that was refused is answered, beside the acknowledgements
				if name == "fast" {
					full = before + 2
				}
				natstest.Eventually(t, "the stream is full", func() bool { return heard() >= full })
				config := `{"name": "T", "subjects": ["t.>"], "allow_batched": true, "allow_direct": true, ` + settings + `1000}`
				if m, err := nc.Request("$JS.API.STREAM.UPDATE.T", []byte(config), 10*time.Second); err != nil || strings.Contains(string(m.Data), `"error"`) {
					t.Errorf("update: %v %s", err, m.Data)
				}
			}
			deliverAll(t, s, numbered(10, 300))
			checkInOrder(t, numbers(t, stored(t, nc)), 310)
		})
	}
}

// Lanes side by side break nobody's chain: each message is published once.
func TestJetStreamLanesDoNotMix(t *testing.T) {
	const perBatch, batches = 200, 20
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	createStream(t, srv.Client(), "")
	s := newJetStream(t, natstest.Config(srv.URL()), ways["chained"])
	var published atomic.Int64
	s.midBatch = func(int) { published.Add(1) }
	var lanes sync.WaitGroup
	for _, subject := range []string{"t.a", "t.b", "t.c", "t.d"} {
		lanes.Go(func() {
			for i := range batches {
				deliverAll(t, s, numberedOn(subject, i*perBatch, perBatch))
			}
		})
	}
	lanes.Wait()
	if n := published.Load(); n != 4*perBatch*batches {
		t.Errorf("%d messages were published, want %d", n, 4*perBatch*batches)
	}
}

// numberedOn is numbered on a subject, with ids of their own.
func numberedOn(subject string, from, n int) []*relay.Message {
	batch := numbered(from, n)
	for _, m := range batch {
		m.Subject, m.ID = subject, subject+":"+m.ID
	}
	return batch
}

// The leader of a replicated stream steps down in the middle of a batch: what it has not yet replicated is gone, what comes after it
// must not be stored before that has been sent again.
func TestJetStreamOrderThroughStepDowns(t *testing.T) {
	c := natstest.StartCluster(t, 3)
	for _, name := range []string{"fast", "chained", "unordered"} { // on several replicas, chained is spaced
		if name == "unordered" && *stepDowns == 1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			nc := c.Client()
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			_ = js.DeleteStream(t.Context(), "T")
			createStream(t, nc, `, "num_replicas": 3`)
			s := newJetStream(t, natstest.Config(c.URLs()...), ways[name])
			s.wait = 2 * time.Second
			const perBatch = 1000
			n, attempts := 0, 0
			for range *stepDowns {
				var stepping sync.WaitGroup
				var published atomic.Int64
				at := int64(perBatch + rand.IntN(perBatch))
				s.midBatch = func(i int) {
					if i%20 == 0 { // as over a slow line: the leader changes while a batch is being published
						time.Sleep(10 * time.Millisecond)
					}
					if published.Add(1) == at {
						stepping.Go(func() { c.StepDown("T") })
					}
				}
				for range 4 {
					attempts += deliverAll(t, s, numbered(n, perBatch))
					n += perBatch
				}
				stepping.Wait()
			}
			got := numbers(t, stored(t, nc))
			disorder := 0
			for i := 1; i < len(got); i++ {
				if got[i] != got[i-1]+1 {
					disorder++
				}
			}
			t.Logf("%d step-downs, %d messages in %d attempts, %d in the stream, %d places out of order", *stepDowns, n, attempts, len(got), disorder)
			if name != "unordered" {
				checkInOrder(t, got, n)
			}
		})
	}
}

// Somebody else writes to the stream all the time.
func TestJetStreamOrderBesideOthers(t *testing.T) {
	for _, name := range []string{"fast", "chained"} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createStream(t, nc, "")
			s := newJetStream(t, natstest.Config(srv.URL()), ways[name])
			ctx, stop := context.WithCancel(t.Context())
			var others sync.WaitGroup
			others.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					if err := nc.Publish("t.other", []byte(strconv.Itoa(i))); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(200 * time.Microsecond)
				}
			})
			const n = 20_000
			for from := 0; from < n; from += 1000 {
				deliverAll(t, s, numbered(from, 1000))
			}
			stop()
			others.Wait()
			ours := stored(t, nc)
			kept := ours[:0]
			for _, m := range ours {
				if m.Subject() == "t.x" {
					kept = append(kept, m)
				}
			}
			checkInOrder(t, numbers(t, kept), n)
		})
	}
}
