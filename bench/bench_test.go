package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// mover is a program under measurement: it moves messages from subject "bench.>" of src to dst.
type mover func(b *testing.B, src, dst string) *process

// ahead is how many messages the publisher may be ahead of the receiver: enough that nobody waits, too few to be dropped.
const ahead = 50_000

func BenchmarkCoreToCore(b *testing.B) {
	for _, size := range []int{128, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			compare(b, size, 600_000, natsReceiver, []contender{
				{"bare", bareLoop("core", "plain")},
				{"bare+headers", bareLoop("core", "headers")},
				{"relay", relayTo(natsSink(true), settings{ordering: "subject", inFlight: 16})},
				{"relay/dedupe=false", relayTo(natsSink(false), settings{ordering: "subject", inFlight: 16})},
				{"relay/always", relayTo(natsSink(true), settings{ordering: "subject", inFlight: 16, buffer: persistAlways})},
			})
		})
	}
}

func BenchmarkCoreToHTTP(b *testing.B) {
	for _, bc := range []struct {
		name, bare string
		sink       sink
		inFlight   int
		messages   int
	}{
		{"raw16", "16x1", httpSink, 16, 60_000},
		{"raw64", "64x1", httpSink, 64, 60_000},
		{"lines500", "16x500", httpLines, 16, 600_000},
	} {
		for _, size := range []int{128, 1024} {
			b.Run(fmt.Sprintf("%s/%dB", bc.name, size), func(b *testing.B) {
				compare(b, size, bc.messages, httpReceiver, []contender{
					{"bare", bareLoop("http", bc.bare)},
					{"relay", relayTo(bc.sink, settings{ordering: "none", inFlight: bc.inFlight})},
					{"relay/always", relayTo(bc.sink, settings{ordering: "none", inFlight: bc.inFlight, buffer: persistAlways})},
				})
			})
		}
	}
}

type contender struct {
	name  string
	start mover
}

// A receiver counts what arrives, and says where it listens.
type receiver func(b *testing.B, count *atomic.Int64) (address string)

// compare lets the contenders move n messages each, in turn, b.N times over.
func compare(b *testing.B, size, n int, receive receiver, contenders []contender) {
	names := make([]string, len(contenders))
	rounds := make([][]cost, b.N)
	for r := range rounds {
		for i, c := range contenders {
			took, used := measure(b, size, n, receive, c.start)
			names[i] = c.name
			rounds[r] = append(rounds[r], cost{seconds: took.Seconds(), cpu: used.Seconds()})
		}
	}
	report(b, names, rounds, n)
}

// measure returns how long n messages took from the first published to the last received, and the processor time
// that the mover spent on them.
func measure(b *testing.B, size, n int, receive receiver, start mover) (took, cpu time.Duration) {
	src := natstest.Start(b, "", nil)
	defer src.Stop()
	var received atomic.Int64
	p := start(b, src.URL(), receive(b, &received))
	defer p.stop(b)
	natstest.Eventually(b, "the mover subscribes", func() bool { return src.Interest(subjects[0]) > 0 })
	pub := src.Client()
	defer pub.Close()
	payload := make([]byte, size)
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if err := pub.Publish(subjects[i%len(subjects)], payload); err != nil {
				b.Fatal(err)
			}
			for i%256 == 0 && int64(i)-received.Load() > ahead {
				time.Sleep(50 * time.Microsecond)
			}
		}
		for received.Load() < int64(to) {
			time.Sleep(50 * time.Microsecond)
		}
	}
	warm := n / 20
	send(0, warm)
	cpu, began := p.cpu(b), time.Now()
	send(warm, n+warm)
	return time.Since(began), p.cpu(b) - cpu
}

// subjects are enough that lanes by subject are all in use.
var subjects = func() (s [64]string) {
	for i := range s {
		s[i] = fmt.Sprintf("bench.%d", i)
	}
	return s
}()

func natsReceiver(b *testing.B, count *atomic.Int64) string {
	dst := natstest.Start(b, "", nil)
	nc := dst.Client()
	sub, err := nc.Subscribe("bench.>", func(*nats.Msg) { count.Add(1) })
	if err != nil {
		b.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		b.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	return dst.URL()
}

func httpReceiver(b *testing.B, count *atomic.Int64) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			count.Add(1 + int64(bytes.Count(body, []byte("\n")))) // payloads have no newlines
		}
	})}
	go srv.Serve(l) // ends with Close
	b.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String() + "/in"
}

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == bareArg {
		bareMain(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == receiverArg {
		receiverMain()
		return
	}
	os.Exit(m.Run())
}
