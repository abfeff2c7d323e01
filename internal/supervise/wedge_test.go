package supervise

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/relay"
)

// A wedge is a sink whose Deliver does not return, whatever its context says, until it is pulled out.
type wedge chan struct{}

func (w wedge) Limits() relay.Limits { return relay.Limits{Messages: 1, Bytes: 1 << 20, Lanes: 1} }

func (w wedge) Close(context.Context) error { return nil }

func (w wedge) Deliver(_ context.Context, batch []*relay.Message, out []relay.Outcome) error {
	<-w
	for i := range batch {
		out[i].Status = relay.Delivered
	}
	return nil
}

// one is a source of a single message.
type one struct{}

func (one) Run(ctx context.Context, accept func(*relay.Message) error) error {
	err := accept(&relay.Message{Subject: "s", Data: []byte("x"), Time: time.Now()})
	<-ctx.Done()
	return err
}

func (one) Close(context.Context) error { return nil }

// A real relay with a route that is wedged: the watchdog is fed until the route counts as stalled, and again once it moves.
func TestWatchdogOfAWedgedRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := make(wedge)
		o := relay.RouteOptions{
			Name: "orders", Instance: "vm-17", Dir: filepath.Join(t.TempDir(), "orders"), StallAfter: time.Minute,
			Buffer:   relay.BufferOptions{Memory: 1 << 20, Disk: 16 << 20},
			Delivery: relay.DeliveryOptions{InFlight: 1, RetryMin: time.Second, RetryMax: time.Second},
		}
		plan := relay.Plan{Drain: time.Second, Routes: []relay.RoutePlan{{Name: o.Name, Open: func(*relay.Intake) (*relay.Route, error) {
			return relay.NewRoute(o, one{}, sink, zerolog.Nop())
		}}}}
		r := relay.Start(t.Context(), plan, zerolog.Nop())
		m := &manager{}
		opts := m.options()
		opts.Status = r.Status
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			New(opts).Run(ctx)
		}()
		if m.fedIn(30*time.Second) == 0 {
			t.Error("not fed before the route counts as stalled")
		}
		time.Sleep(time.Minute)
		if fed := m.fedIn(time.Hour); fed > 0 {
			t.Errorf("fed %d times while the route is wedged", fed)
		}
		close(sink)
		time.Sleep(time.Minute)
		if m.fedIn(time.Minute) == 0 {
			t.Error("not fed though the route moves again")
		}
		r.Stop()
		if err := r.Wait(); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
	})
}
