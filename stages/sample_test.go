package stages

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/when"
	"github.com/natsrelay/natsrelay/relay"
)

func (s *sample) judge(t *testing.T, m *relay.Message) bool {
	t.Helper()
	ok, err := s.takes(m, &when.Document{Data: m.Data})
	if err != nil {
		t.Errorf("%s %s: %v", m.Subject, m.Data, err)
	}
	return ok
}

func about(subject string) *relay.Message { return &relay.Message{Subject: subject} }

func TestSampleInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSample(&config.Sample{Every: time.Minute, Key: "subject"})
		for _, step := range []struct {
			wait    time.Duration
			subject string
			want    bool
		}{
			{0, "a", true},
			{0, "a", false},
			{0, "b", true},
			{30 * time.Second, "a", false},
			{0, "c", true},
			{29 * time.Second, "a", false}, // what is left out does not make the interval longer
			{time.Second, "a", true},
			{0, "b", true},
			{0, "c", false},
			{30 * time.Second, "c", true},
			{0, "a", false},
			{24 * time.Hour, "a", true},
			{0, "a", false},
		} {
			time.Sleep(step.wait)
			if got := s.judge(t, about(step.subject)); got != step.want {
				t.Errorf("%s at %v: %v, want %v", step.subject, time.Now(), got, step.want)
			}
		}
	})
}

// For any number of keys, and any pace, at most one a key and interval, and never none.
func TestSampleAgainstAMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 100 * time.Millisecond
		s := newSample(&config.Sample{Every: every, Key: "subject"})
		last := map[string]time.Time{}
		for i := range 20_000 {
			pace := 40 - min(i/100, 39) // faster and faster: the ring grows while it turns
			time.Sleep(time.Duration(i*i%7*pace) * time.Millisecond / 10)
			subject := fmt.Sprint(i * i % 997)
			at, seen := last[subject]
			want := !seen || time.Since(at) >= every
			if got := s.judge(t, about(subject)); got != want {
				t.Fatalf("message %d, %s: %v, want %v", i, subject, got, want)
			}
			if want {
				last[subject] = time.Now()
			}
		}
	})
}

// What a sample remembers is bounded: with too many keys the oldest passes early, and nobody waits for ever.
func TestSampleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSample(&config.Sample{Every: time.Hour, Key: "subject"})
		for i := range maxSampleKeys {
			if !s.judge(t, about(fmt.Sprint(i))) {
				t.Fatalf("key %d is left out", i)
			}
		}
		if s.judge(t, about("0")) {
			t.Error("the oldest key is forgotten too early")
		}
		for i := range 1000 {
			if !s.judge(t, about(fmt.Sprint("new ", i))) {
				t.Fatalf("new key %d is left out", i)
			}
		}
		if len(s.recent) != maxSampleKeys || len(s.passed) != maxSampleKeys {
			t.Errorf("%d keys, %d passages remembered", len(s.recent), len(s.passed))
		}
		if s.judge(t, about("1000")) || !s.judge(t, about("0")) {
			t.Error("it was not the oldest that was forgotten")
		}
	})
}

func TestSampleKeys(t *testing.T) {
	message := func(data string, header relay.Header) *relay.Message {
		return &relay.Message{Subject: "s", Header: header, Data: []byte(data)}
	}
	for _, tc := range []struct {
		key        string
		one, other *relay.Message
		same       bool
	}{
		{"subject", about("a"), about("a"), true},
		{"subject", about("a"), about("A"), false},
		{"header.Type", message("", relay.Header{"Type": {"a", "b"}}), message("", relay.Header{"Type": {"a"}}), true},
		{"header.Type", message("", relay.Header{"Type": {"a"}}), message("", relay.Header{"Type": {"b"}}), false},
		{"header.Type", message("", relay.Header{"type": {"a"}}), message("", nil), true}, // both are without it
		{"json.a", message(`{"a": 1, "b": 1}`, nil), message(`{"b": 2, "a": 1}`, nil), true},
		{"json.a", message(`{"a": 1}`, nil), message(`{"a": "1"}`, nil), false},
		{"json.a", message(`{"a": "true"}`, nil), message(`{"a": true}`, nil), false},
		{"json.a.b", message(`{"a": {"b": [1]}}`, nil), message(`{"a": {"b": [1], "c": 2}}`, nil), true},
		{"json.a", message(`{"a": {"x": 1, "y": 2}}`, nil), message(`{"a": {"y": 2, "x": 1}}`, nil), true},
		{"json.a.b", message(`{"a": 5}`, nil), message(`[]`, nil), true}, // neither has it
		{"json.a", message(`{"a": null}`, nil), message(`{}`, nil), true},
		{"json.a", message(`{"a": ""}`, nil), message(`{}`, nil), false},
	} {
		s := newSample(&config.Sample{Every: time.Hour, Key: tc.key})
		if !s.judge(t, tc.one) {
			t.Errorf("%s: the first is left out", tc.key)
		}
		if same := !s.judge(t, tc.other); same != tc.same {
			t.Errorf("%s of %s and %s: same is %v", tc.key, tc.one.Data, tc.other.Data, same)
		}
	}
	for _, data := range []string{"", "not JSON", `{"a": 1e999}`} {
		s := newSample(&config.Sample{Every: time.Hour, Key: "json.a"})
		m := message(data, nil)
		if _, err := s.takes(m, &when.Document{Data: m.Data}); err == nil {
			t.Errorf("%q has a key", data)
		}
	}
}

func TestSampleFromManyGoroutines(t *testing.T) {
	s := newSample(&config.Sample{Every: time.Hour, Key: "subject"})
	var taken atomic.Int64
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for i := range 1000 {
				if s.judge(t, about(fmt.Sprint(i))) {
					taken.Add(1)
				}
			}
		})
	}
	running.Wait()
	if taken.Load() != 1000 {
		t.Errorf("%d taken of 1000 keys", taken.Load())
	}
}
