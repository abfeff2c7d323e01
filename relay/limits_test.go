package relay

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An attempt is a call of the sink.
type attempt struct {
	at time.Duration // since the test began
	n  int
}

// noteAttempts returns a sink that takes everything, and where it notes its calls.
func noteAttempts(limits Limits) (*scriptSink, *[]attempt) {
	began := time.Now()
	var all []attempt
	return &scriptSink{limits: limits, answer: func(batch []*Message, out []Outcome) error {
		all = append(all, attempt{time.Since(began), len(batch)})
		return deliverAll(batch, out)
	}}, &all
}

// No window of a second sees more messages than the limit, and what the limiter's burst allows; and the limit is reached.
func TestRateLimit(t *testing.T) {
	for name, c := range map[string]struct{ rate, batch, burst int }{
		"one a request":          {100, 1, 1},
		"fast, one a request":    {1000, 1, 10},
		"batches":                {100, 40, 40},
		"batches above a second": {10, 500, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Delivery.RateLimit = c.rate
				sink, attempts := noteAttempts(Limits{Messages: c.batch, Bytes: 1 << 20, Lanes: 8})
				_, accept, stop := start(t, o, sink)
				const seconds = 5
				publish(t, accept, c.rate*seconds, 8)
				time.Sleep(seconds * time.Second)
				stop()
				total, last := 0, time.Duration(0)
				for i, a := range *attempts {
					window := 0
					for _, b := range (*attempts)[i:] {
						if b.at >= a.at+time.Second {
							break
						}
						window += b.n
					}
					if window > c.rate+c.burst {
						t.Fatalf("%d messages within a second of %v, the limit is %d and a burst of %d", window, a.at, c.rate, c.burst)
					}
					total, last = total+a.n, a.at
				}
				if total != c.rate*seconds || last > (seconds+1)*time.Second {
					t.Errorf("%d messages in %v, want %d in %d s", total, last, c.rate*seconds, seconds)
				}
			})
		})
	}
}

// A batch that is not full waits, from its first message on and no longer than it may; a full one goes at once.
func TestBatchWait(t *testing.T) {
	const wait = 50 * time.Millisecond
	for name, ordering := range map[string]Ordering{"subject": OrderSubject, "none": OrderNone} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Delivery.Ordering = ordering
				sink, attempts := noteAttempts(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 4, Wait: wait})
				_, accept, stop := start(t, o, sink)
				publish(t, accept, 1, 1)
				time.Sleep(wait / 2)
				publish(t, accept, 2, 1)
				time.Sleep(time.Second - wait/2)
				publish(t, accept, 10, 1)
				time.Sleep(time.Second)
				publish(t, accept, 25, 1)
				time.Sleep(time.Second)
				stop()
				want := []attempt{{wait, 3}, {time.Second, 10}, {2 * time.Second, 10}, {2 * time.Second, 10}, {2*time.Second + wait, 5}}
				if !slices.Equal(*attempts, want) {
					t.Errorf("attempts %v, want %v", *attempts, want)
				}
			})
		})
	}
}

// What bytes make full goes at once, too: with the first messages, and with one that comes later.
func TestBatchWaitFullOfBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink, attempts := noteAttempts(Limits{Messages: 1000, Bytes: 2 * (messageOverhead + 200), Lanes: 1, Wait: time.Hour})
		_, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 5, 1)
		time.Sleep(time.Minute)
		publish(t, accept, 2, 1)
		time.Sleep(time.Minute)
		stop()
		if want := []attempt{{0, 2}, {0, 2}, {time.Minute, 2}, {2 * time.Minute, 1}}; !slices.Equal(*attempts, want) {
			t.Errorf("attempts %v, want %v", *attempts, want)
		}
	})
}

// A stop does not wait for a batch to become full.
func TestBatchWaitEndsWithTheDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink, attempts := noteAttempts(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 4, Wait: time.Hour})
		_, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 3, 1)
		time.Sleep(time.Second)
		stop()
		if want := []attempt{{time.Second, 3}}; !slices.Equal(*attempts, want) {
			t.Errorf("attempts %v, want %v", *attempts, want)
		}
	})
}

// Lanes that share a queue do not sleep while there is work, though what woke one of them was meant for others.
func TestBatchWaitLeavesNoLaneAsleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderNone
		sink := &scriptSink{limits: Limits{Messages: 2, Bytes: 1 << 20, Lanes: 2, Wait: time.Hour}, latency: time.Minute, answer: deliverAll}
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 1, 1)
		synctest.Wait()
		publish(t, accept, 3, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		sink.mu.Lock()
		if len(sink.arrived) != 4 {
			t.Errorf("%d of 4 messages arrived after one request's time: a lane slept", len(sink.arrived))
		}
		sink.mu.Unlock()
		stop()
	})
}

// What comes while a lane waits for a fuller batch is that lane's, also when another one looks for work meanwhile.
func TestBatchWaitIsOneLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderNone
		sink, attempts := noteAttempts(Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2, Wait: time.Second})
		sink.latency = 100 * time.Millisecond
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 10, 1)
		synctest.Wait()
		publish(t, accept, 1, 1) // the second lane begins to wait
		synctest.Wait()
		publish(t, accept, 3, 1)
		time.Sleep(time.Minute) // the first lane comes back while it does
		stop()
		if want := []attempt{{100 * time.Millisecond, 10}, {1100 * time.Millisecond, 4}}; !slices.Equal(*attempts, want) {
			t.Errorf("attempts %v, want %v", *attempts, want)
		}
	})
}
