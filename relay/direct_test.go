package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answerSink is a sink whose requests are answered as the test says.
type answerSink struct {
	scriptSink
	respond func(context.Context, *Message) (Answer, error)
}

func (s *answerSink) Respond(ctx context.Context, m *Message) (Answer, error) {
	return s.respond(ctx, m)
}

// newAnswerSink has an endpoint whose answer the request's payload names.
func newAnswerSink() *answerSink {
	return &answerSink{
		scriptSink: scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2}, answer: deliverAll},
		respond: func(ctx context.Context, m *Message) (Answer, error) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			switch data := string(m.Data); data {
			case "refused":
				return Answer{}, errors.New("connection refused")
			case "unfit":
				return Answer{}, &AnswerFault{400, "unfit"}
			case "slow":
				<-ctx.Done()
				return Answer{}, ctx.Err()
			case "404":
				return Answer{Data: []byte("nobody"), Fault: &AnswerFault{404, "Not Found"}}, nil
			default:
				time.Sleep(time.Second)
				return Answer{Data: []byte("re: " + data)}, nil
			}
		},
	}
}

// asker notes what it is answered: "payload" or "code text payload".
type asker struct {
	mu      sync.Mutex
	answers []string
}

func (a *asker) ask(t *testing.T, accept func(*Message) error, m *Message) {
	t.Helper()
	m.Respond = func(answer Answer) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		got := string(m.Data) + ": " + string(answer.Data)
		if answer.Fault != nil {
			got += " " + answer.Fault.Error()
		}
		a.answers = append(a.answers, got)
		return nil
	}
	if err := accept(m); err != nil {
		t.Fatal(err)
	}
}

// got returns the answers so far.
func (a *asker) got() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.answers)
}

func TestRouteAnswersRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Stage = byData
		sink := newAnswerSink()
		route, accept, stop := start(t, o, sink)
		var a asker
		for _, data := range []string{"hello", "404", "refused", "unfit", "slow", "error", "filtered", "sampled"} {
			a.ask(t, accept, &Message{Subject: "s", Data: []byte(data)})
			time.Sleep(time.Minute)
		}
		a.ask(t, accept, &Message{Subject: "s", Data: []byte("loop"), Header: Header{HeaderVia: {"vm-17/orders"}}})
		if err := accept(&Message{Subject: "s", Data: []byte("no request")}); err != nil {
			t.Fatal(err)
		}
		stop()
		want := []string{
			"hello: re: hello", "404: nobody 404 Not Found", "refused:  503 endpoint unavailable", "unfit:  400 unfit",
			"slow:  504 endpoint timed out", "error:  500 filter failed", "loop:  508 loop detected",
		}
		if diff := cmp.Diff(want, a.got()); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if len(sink.arrived) != 1 {
			t.Errorf("delivered without an answer: %q", sink.arrived)
		}
		s := route.Stats()
		if s.Received != 10 || s.Delivered != 3 || s.Dropped[DropUnanswered] != 4 || s.AttemptsFailed != 2 || s.DeadLettersTotal() != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// While requests get no answer, the route says so.
func TestRouteStateOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route, accept, stop := start(t, testOptions(t), newAnswerSink())
		var a asker
		for _, step := range []struct {
			data string
			want State
		}{{"hello", StateFlowing}, {"refused", StateRetrying}, {"unfit", StateRetrying}, {"404", StateFlowing}} {
			a.ask(t, accept, &Message{Data: []byte(step.data)})
			time.Sleep(time.Minute)
			if got := route.Stats().State; got != step.want {
				t.Errorf("after %q: %s, want %s", step.data, got, step.want)
			}
		}
		stop()
	})
}

// No more than in_flight are under way; who comes then is told so at once, and the source never waits.
func TestRouteRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		route, accept, stop := start(t, o, newAnswerSink())
		began := time.Now()
		var a asker
		for range o.Delivery.InFlight + 3 {
			a.ask(t, accept, &Message{Data: []byte("hello")})
		}
		if got := a.got(); len(got) != 3 || time.Since(began) != 0 || got[0] != "hello:  503 too many requests under way" {
			t.Errorf("after %v: %q", time.Since(began), got)
		}
		time.Sleep(2 * time.Second)
		a.ask(t, accept, &Message{Data: []byte("again")})
		stop()
		if len(a.got()) != o.Delivery.InFlight+4 || !slices.Contains(a.got(), "again: re: again") {
			t.Errorf("at the end: %q", a.got())
		}
		if n := route.Stats().Dropped[DropUnanswered]; n != 3 {
			t.Errorf("%d unanswered, want 3", n)
		}
	})
}

// A stop waits for requests under way, at most for the drain time; then who still waits is told.
func TestRouteDrainsRequests(t *testing.T) {
	for name, tc := range map[string]struct {
		takes, lag, want time.Duration // lag: from its end to the sink's return
		answer           string
	}{
		"in time":        {20 * time.Second, 0, 20 * time.Second, "x: late"},
		"too late":       {time.Hour, 0, 25 * time.Second, "x:  503 relay is stopping"},
		"slow to notice": {time.Hour, time.Second, 26 * time.Second, "x:  503 relay is stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := newAnswerSink()
				sink.respond = func(ctx context.Context, _ *Message) (Answer, error) {
					select {
					case <-time.After(tc.takes):
						return Answer{Data: []byte("late")}, nil
					case <-ctx.Done():
						time.Sleep(tc.lag)
						return Answer{}, ctx.Err()
					}
				}
				_, accept, stop := start(t, testOptions(t), sink)
				var a asker
				a.ask(t, accept, &Message{Data: []byte("x")})
				began := time.Now()
				stop()
				if took := time.Since(began); took != tc.want || strings.Join(a.got(), ",") != tc.answer {
					t.Errorf("the stop took %v, answers %q; want %v, %q", took, a.got(), tc.want, tc.answer)
				}
			})
		})
	}
}

// An answer that nobody can be given is a loss, and counted.
func TestRouteAnswerCannotBeGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		route, accept, stop := start(t, testOptions(t), newAnswerSink())
		gone := func(Answer) error { return errors.New("disconnected") }
		for _, data := range []string{"hello", "refused"} {
			if err := accept(&Message{Data: []byte(data), Respond: gone}); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		if s := route.Stats(); s.Dropped[DropUnanswered] != 2 || s.Delivered != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A sink that cannot answer gets requests as messages like others.
func TestRouteRequestsToASinkWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: deliverAll}
		_, accept, stop := start(t, testOptions(t), sink)
		var a asker
		a.ask(t, accept, &Message{Subject: "s", Data: []byte("hello")})
		stop()
		if len(sink.arrived) != 1 || len(a.got()) != 0 {
			t.Errorf("arrived %q, answers %q", sink.arrived, a.got())
		}
	})
}
