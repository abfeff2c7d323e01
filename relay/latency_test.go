package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// Each delivery is counted by the time from its being received to its being confirmed.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: 30 * time.Millisecond, answer: deliverAll}
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 3, 1)
		old := &Message{Subject: "s", ID: "x", Time: time.Now().Add(-time.Hour), Stream: "S", Sequence: 1}
		if err := accept(old); err != nil { // it is not the relay's fault that it is old
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		stop()
		h := route.Stats().Latency
		got := map[time.Duration]uint64{}
		for i, n := range h.Counts {
			if n > 0 {
				got[h.Bounds[i]] = n
			}
		}
		if h.Count() != 4 || h.Sum != 300*time.Millisecond || got[50*time.Millisecond] != 1 || got[100*time.Millisecond] != 2 || got[250*time.Millisecond] != 1 {
			t.Errorf("histogram %v, sum %v; want 30, 60, 90 and 120 ms", got, h.Sum)
		}
	})
}

func TestLatencyBounds(t *testing.T) {
	l := newLatency()
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Hour, time.Hour + 1, 1 << 62} {
		l.observe(d)
	}
	h := l.snapshot()
	if h.Counts[0] != 2 || h.Counts[1] != 1 || h.Counts[latencyBuckets-1] != 1 || h.Counts[latencyBuckets] != 2 {
		t.Errorf("counts %v", h.Counts)
	}
}
