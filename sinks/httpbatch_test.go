package sinks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
)

// bodies returns the bodies of requests, with spaces for newlines.
func requestBodies(requests []httpRequest) []string {
	var all []string
	for _, r := range requests {
		all = append(all, strings.ReplaceAll(r.body, "\n", " "))
	}
	return all
}

// A refused batch is halved until the refused message stands alone; the rest arrives in order.
func TestHTTPRefusedBatch(t *testing.T) {
	srv := newRecorder(t, func(r httpRequest) int {
		if strings.Contains(r.body, "bad") {
			return 422
		}
		return 202
	})
	outcomes, out, err := deliverBatch(t, newHTTP(t, batchConfig(srv.URL, "lines")), payloads("a", "b", "bad", "d", "e"))
	if err != nil || outcomes != "DDRDD" {
		t.Fatalf("outcomes %s, error %v", outcomes, err)
	}
	want := []string{"a b bad d e", "a b", "bad d e", "bad", "d e"}
	if diff := cmp.Diff(want, requestBodies(srv.take())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	var status interface{ StatusCode() int }
	if !errors.As(out[2].Err, &status) || status.StatusCode() != 422 || out[2].Code != 422 {
		t.Errorf("outcome %+v, want status 422", out[2])
	}
}

// When the endpoint fails in the middle, what has arrived is confirmed, and the rest is left to be sent again.
func TestHTTPFailureInMidBatch(t *testing.T) {
	srv := newRecorder(t, func(r httpRequest) int {
		switch {
		case strings.Contains(r.body, "bad"):
			return 400
		case strings.Contains(r.body, "d"):
			return 503
		}
		return 200
	})
	outcomes, _, err := deliverBatch(t, newHTTP(t, batchConfig(srv.URL, "lines")), payloads("a", "bad", "c", "d", "e"))
	var fault *relay.Fault
	if !errors.As(err, &fault) || fault.Blocked || fault.Code != 503 {
		t.Errorf("error %v, want a fault with status 503", err)
	}
	if outcomes != "DRUUU" {
		t.Errorf("outcomes %s, want DRUUU", outcomes)
	}
	if diff := cmp.Diff([]string{"a bad c d e", "a bad", "a", "bad", "c d e"}, requestBodies(srv.take())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// One poison among 10,000 in batches of 500: 9,999 arrive once each, in order, and one is refused.
func TestHTTPOnePoisonAmongManyBatches(t *testing.T) {
	const total, size, poison = 10_000, 500, 6_789
	var arrived []string
	srv := newRecorder(t, func(r httpRequest) int {
		lines := strings.Split(r.body, "\n")
		if slices.Contains(lines, fmt.Sprint(poison)) {
			return 400
		}
		arrived = append(arrived, lines...)
		return 200
	})
	h := newHTTP(t, batchConfig(srv.URL, "lines"))
	var all, refused []string
	for i := range total {
		all = append(all, fmt.Sprint(i))
	}
	for batch := range slices.Chunk(payloads(all...), size) {
		outcomes, _, err := deliverBatch(t, h, batch)
		if err != nil || strings.Contains(outcomes, "U") {
			t.Fatalf("outcomes %s, error %v", outcomes, err)
		}
		for i, o := range outcomes {
			if o == 'R' {
				refused = append(refused, string(batch[i].Data))
			}
		}
	}
	if diff := cmp.Diff([]string{fmt.Sprint(poison)}, refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Delete(all, poison, poison+1), arrived); diff != "" {
		t.Errorf("arrived (-want +got):\n%s", diff)
	}
	if n, most := len(srv.take()), total/size+2*9; n > most {
		t.Errorf("%d requests, want %d at most", n, most)
	}
}

// The same batch has the same key at each attempt, another batch another one, and one message its id.
func TestHTTPIdempotencyKeys(t *testing.T) {
	srv := newRecorder(t, nil)
	h := newHTTP(t, batchConfig(srv.URL, "lines"))
	batch := payloads("a", "b", "c")
	odd := payloads("d")
	odd[0].ID = "line\nbreak"
	for _, b := range [][]*relay.Message{batch, batch, batch[:2], batch[1:], batch[:1], odd} {
		if outcomes, _, err := deliverBatch(t, h, b); err != nil || strings.Trim(outcomes, "D") != "" {
			t.Fatalf("outcomes %s, error %v", outcomes, err)
		}
	}
	var keys []string
	for _, r := range srv.take() {
		keys = append(keys, r.header.Get("Idempotency-Key"))
	}
	if keys[0] != keys[1] || keys[0] == "" || keys[4] != "id-0" {
		t.Errorf("keys %q", keys)
	}
	different := slices.Compact(slices.Sorted(slices.Values(keys[1:])))
	if len(different) != 5 {
		t.Errorf("keys %q: batches that differ share one", keys)
	}
}

// A body keeps to batch.bytes, but for one message that is larger by itself.
func TestHTTPBatchBytes(t *testing.T) {
	srv := newRecorder(t, nil)
	cfg := batchConfig(srv.URL, "json")
	cfg.Batch.Bytes = 10
	outcomes, _, err := deliverBatch(t, newHTTP(t, cfg), payloads(`"aa"`, `"b"`, `"c"`, `"longer than that"`, `1`))
	if err != nil || outcomes != "DDDDD" {
		t.Fatalf("outcomes %s, error %v", outcomes, err)
	}
	want := []string{`["aa","b"]`, `["c"]`, `["longer than that"]`, `[1]`}
	if diff := cmp.Diff(want, requestBodies(srv.take())); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestHTTPLimits(t *testing.T) {
	cfg := batchConfig("http://h", "lines")
	got := newHTTP(t, cfg).Limits()
	if want := (relay.Limits{Messages: 500, Bytes: 1 << 20, Lanes: 1024, Wait: cfg.Batch.Wait}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	cfg.Batch.Bytes = 1000 // less than Message.Size counts of 500 messages without payload
	if got := newHTTP(t, cfg).Limits(); got.Bytes != 1000+500*512 {
		t.Errorf("small requests: %+v", got)
	}
	if got := newHTTP(t, httpConfig("http://h")).Limits(); got.Messages != 1 || got.Wait != 0 {
		t.Errorf("raw: %+v", got)
	}
}
