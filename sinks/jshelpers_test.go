package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// newJetStream returns a sink that is connected, and closed with the test. change may be nil.
func newJetStream(t testing.TB, cfg *config.NATS, change func(*config.NATSSink, *JetStreamOptions)) *JetStream {
	t.Helper()
	log := natstest.NewLog(t)
	conn, err := natsconn.Open(cfg, natsconn.Options{Instance: "vm-17", Role: "sink", Log: log.Logger})
	if err != nil {
		t.Fatal(err)
	}
	sinkCfg := &config.NATSSink{
		NATS: "cloud", Mode: "jetstream", Dedupe: true, JetStream: &config.JetStreamSink{Stream: "T", BatchPublish: "auto"},
	}
	opts := JetStreamOptions{Ordering: relay.OrderSubject, RetryMax: time.Second, Via: "vm-17/orders", Log: log.Logger}
	if change != nil {
		change(sinkCfg, &opts)
	}
	s := NewJetStream(conn, sinkCfg, opts)
	s.wait = testPatience
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), conn.Close(ctx)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	natstest.Eventually(t, "connected", func() bool { _, up := conn.Epoch(); return up })
	return s
}

// ways are the ways of publishing.
var ways = map[string]func(*config.NATSSink, *JetStreamOptions){
	"fast":    func(c *config.NATSSink, o *JetStreamOptions) {},
	"chained": func(c *config.NATSSink, o *JetStreamOptions) { c.JetStream.BatchPublish = "off" },
	"spaced": func(c *config.NATSSink, o *JetStreamOptions) {
		c.JetStream.BatchPublish, o.Ordering = "off", relay.OrderStrict
		c.Dedupe = false
	},
	"unordered": func(c *config.NATSSink, o *JetStreamOptions) {
		c.JetStream.BatchPublish, o.Ordering = "off", relay.OrderNone
	},
}

type jsMsg = jetstream.Msg

// createStream makes the stream T of subjects t.>, as settings say beside that, which are of the server's API.
func createStream(t testing.TB, nc *nats.Conn, settings string) {
	t.Helper()
	request := fmt.Sprintf(`{"name": "T", "subjects": ["t.>"], "allow_batched": true, "allow_direct": true %s}`, settings)
	m, err := nc.Request("$JS.API.STREAM.CREATE.T", []byte(request), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var info streamInfo
	if err := json.Unmarshal(m.Data, &info); err != nil || info.Error != nil {
		t.Fatalf("create stream: %v %v", err, info.Error)
	}
}

// stored returns all that is in the stream T, without what it stores the messages with.
func stored(t testing.TB, nc *nats.Conn) (all []jetstream.Msg) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var c jetstream.Consumer
	var info *jetstream.ConsumerInfo
	natstest.Eventually(t, "the stream can be read", func() bool { // of a cluster that chooses a leader just now, an answer may never come
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if c, err = js.OrderedConsumer(ctx, "T", jetstream.OrderedConsumerConfig{}); err == nil {
			info, err = c.Info(ctx)
		}
		return err == nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for want := int(info.NumPending); len(all) < want; {
		msgs, err := c.FetchNoWait(want - len(all))
		if err != nil {
			t.Fatal(err)
		}
		for m := range msgs.Messages() {
			all = append(all, m)
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d messages read", len(all), want)
		}
	}
	return all
}

// numbers returns the payloads, which are numbers.
func numbers(t testing.TB, msgs []jetstream.Msg) []int {
	t.Helper()
	out := make([]int, len(msgs))
	for i, m := range msgs {
		n, err := strconv.Atoi(string(m.Data()))
		if err != nil {
			t.Fatal(err)
		}
		out[i] = n
	}
	return out
}

// checkInOrder expects 0 … n-1, in order, each once.
func checkInOrder(t testing.TB, got []int, n int) {
	t.Helper()
	for i, x := range got {
		if x != i {
			t.Fatalf("message %d is in place %d of the stream", x, i)
		}
	}
	if len(got) != n {
		t.Fatalf("%d messages in the stream, want %d", len(got), n)
	}
}

// numbered returns messages with the numbers from … from+n-1.
func numbered(from, n int) []*relay.Message { return numberedVia("vm-17/orders", from, n) }

func numberedVia(via string, from, n int) []*relay.Message {
	batch := make([]*relay.Message, n)
	for i := range batch {
		data := strconv.Itoa(from + i)
		batch[i] = &relay.Message{
			Subject: "t.x", ID: "S:" + data, Data: []byte(data), Stream: "S", Sequence: uint64(from + i + 1), Time: time.Unix(1e9, int64(from+i)),
			Header: relay.Header{relay.HeaderVia: {via}},
		}
	}
	return batch
}

// deliverAll delivers the batch, again and again until it is confirmed, as a route does.
func deliverAll(t testing.TB, s *JetStream, batch []*relay.Message) (attempts int) {
	t.Helper()
	end := time.Now().Add(2 * time.Minute)
	for len(batch) > 0 {
		attempts++
		out, err := deliver(s, batch...)
		rest := batch[:0:0]
		for i := range out {
			switch out[i].Status {
			case relay.Unconfirmed:
				rest = append(rest, batch[i])
			case relay.Refused:
				t.Errorf("message %s is refused: %v", batch[i].ID, out[i].Err)
			}
		}
		if err == nil && len(rest) > 0 {
			t.Errorf("no error with %d unconfirmed", len(rest))
		}
		if time.Now().After(end) {
			t.Errorf("not delivered in time: %v", err)
			return attempts
		}
		if batch = rest; err != nil {
			time.Sleep(5 * time.Millisecond)
		}
	}
	return attempts
}
