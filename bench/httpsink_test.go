package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/sinks"
)

// receiverArg makes the test binary an HTTP endpoint that reads what it gets; it prints its URL.
const receiverArg = "http-receiver"

// A deliverer sends a batch.
type deliverer func(batch []*relay.Message) error

// BenchmarkHTTPSink is the HTTP sink alone, beside a loop around http.Client, in turn, both with the same messages and as many lanes.
// The endpoint is a process of its own, so the processor time is that of the sender.
func BenchmarkHTTPSink(b *testing.B) {
	for _, bc := range []struct {
		name                  string
		format                string
		lanes, batch, rounds  int
		bare, bareWithHeaders func(url string, lanes int) deliverer
	}{
		{"raw", "raw", 64, 1, 30_000, bareRaw, bareRawHeaders},
		{"lines", "lines", 16, 500, 2_000, bareLines, nil},
	} {
		for _, size := range []int{128, 1024} {
			b.Run(fmt.Sprintf("%s/%dB", bc.name, size), func(b *testing.B) {
				url := startReceiver(b)
				contenders := []deliveryContender{{"bare", bc.bare(url, bc.lanes)}}
				if bc.bareWithHeaders != nil {
					contenders = append(contenders, deliveryContender{"bare+headers", bc.bareWithHeaders(url, bc.lanes)})
				}
				contenders = append(contenders, deliveryContender{"sink", sinkDeliverer(b, url, bc.format, bc.lanes)})
				compareDeliveries(b, contenders, benchBatches(bc.lanes, bc.batch, size), bc.rounds)
			})
		}
	}
}

type deliveryContender struct {
	name    string
	deliver deliverer
}

// compareDeliveries lets the contenders send, in turn, n batches each, b.N times over.
func compareDeliveries(b *testing.B, contenders []deliveryContender, batches [][]*relay.Message, n int) {
	names := make([]string, len(contenders))
	for i, c := range contenders {
		names[i] = c.name
		deliverAll(b, c.deliver, batches, n/10) // opens the connections
	}
	b.ResetTimer()
	rounds := make([][]cost, b.N)
	for r := range rounds {
		for _, c := range contenders {
			rounds[r] = append(rounds[r], deliverAll(b, c.deliver, batches, n))
		}
	}
	report(b, names, rounds, n*len(batches[0]))
}

// deliverAll sends batches from as many lanes as there are batches, until rounds are sent.
func deliverAll(b *testing.B, deliver deliverer, batches [][]*relay.Message, rounds int) cost {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began, cpu := time.Now(), ownCPU(b)
	var left atomic.Int64
	left.Store(int64(rounds))
	var lanes sync.WaitGroup
	for _, batch := range batches {
		lanes.Go(func() {
			for left.Add(-1) >= 0 {
				if err := deliver(batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	lanes.Wait()
	took := cost{seconds: time.Since(began).Seconds(), cpu: (ownCPU(b) - cpu).Seconds()}
	runtime.ReadMemStats(&after)
	took.allocs = after.Mallocs - before.Mallocs
	return took
}

// ownCPU returns the processor time that this process has used so far.
func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchBatches(lanes, n, size int) [][]*relay.Message {
	batches := make([][]*relay.Message, lanes)
	for i := range batches {
		for j := range n {
			batches[i] = append(batches[i], &relay.Message{
				Subject: subjects[i%len(subjects)],
				Header:  relay.Header{relay.HeaderVia: {"bench/bench"}},
				Data:    bytes.Repeat([]byte("x"), size),
				ID:      fmt.Sprintf("Xy8dJ3kQ0sLmN1%08d", i*n+j),
				Time:    time.Now(),
			})
		}
	}
	return batches
}

func sinkDeliverer(b *testing.B, url, format string, lanes int) deliverer {
	sink, err := sinks.NewHTTP(&config.HTTPSink{
		URL: url, Method: "POST", Format: format, Timeout: 10 * time.Second, HTTP2: true, Batch: config.Batch{Messages: 500, Bytes: 1 << 20},
	}, lanes)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sink.Close(context.Background()) })
	outs := sync.Pool{New: func() any { return new([]relay.Outcome) }}
	return func(batch []*relay.Message) error {
		out := outs.Get().(*[]relay.Outcome)
		defer outs.Put(out)
		*out = append((*out)[:0], make([]relay.Outcome, len(batch))...)
		return sink.Deliver(context.Background(), batch, *out)
	}
}

func bareClient(lanes int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: lanes}}
}

// bareRaw posts payloads and nothing else.
func bareRaw(url string, lanes int) deliverer {
	client := bareClient(lanes)
	return func(batch []*relay.Message) error {
		res, err := client.Post(url, "application/octet-stream", bytes.NewReader(batch[0].Data))
		return finish(res, err)
	}
}

// bareRawHeaders posts payloads with the headers that the relay sends.
func bareRawHeaders(url string, lanes int) deliverer {
	client := bareClient(lanes)
	return func(batch []*relay.Message) error {
		m := batch[0]
		req, err := http.NewRequest("POST", url, bytes.NewReader(m.Data))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Nats-Subject", m.Subject)
		req.Header.Set("Nats-Timestamp", m.Time.UTC().Format(time.RFC3339Nano))
		req.Header.Set("Idempotency-Key", m.ID)
		req.Header[relay.HeaderVia] = m.Header[relay.HeaderVia]
		res, err := client.Do(req)
		return finish(res, err)
	}
}

// bareLines posts payloads with newlines between them, out of a buffer that is used again.
func bareLines(url string, lanes int) deliverer {
	client := bareClient(lanes)
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	return func(batch []*relay.Message) error {
		buf := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(buf)
		buf.Reset()
		for i, m := range batch {
			if i > 0 {
				buf.WriteByte('\n')
			}
			buf.Write(m.Data)
		}
		res, err := client.Post(url, "application/x-ndjson", bytes.NewReader(buf.Bytes()))
		return finish(res, err)
	}
}

func finish(res *http.Response, err error) error {
	if err != nil {
		return err
	}
	io.Copy(io.Discard, res.Body)
	return res.Body.Close()
}

// startReceiver starts an endpoint in a process of its own, and returns its URL.
func startReceiver(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], receiverArg)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // the endpoint ends with it
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// receiverMain is the endpoint.
func receiverMain() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s/in\n", l.Addr())
	go http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	io.Copy(io.Discard, os.Stdin)
}
