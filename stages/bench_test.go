package stages

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/rs/zerolog"
)

// An order is a payload as filters see it.
func order(b *testing.B) []byte {
	payload, err := json.Marshal(map[string]any{
		"total": 250, "id": "o-1234567", "lines": []any{map[string]any{"sku": "a", "n": 2}}, "note": strings.Repeat("x", 100),
	})
	if err != nil {
		b.Fatal(err)
	}
	return payload
}

// BenchmarkStage is what a message pays on its way into the route.
func BenchmarkStage(b *testing.B) {
	payload := order(b)
	for name, change := range map[string]func(*config.Route){
		"subject":        func(r *config.Route) { r.Filter.When = `subject startsWith "orders.eu."` },
		"header":         func(r *config.Route) { r.Filter.When = `header["Type"] == "new"` },
		"json":           func(r *config.Route) { r.Filter.When = `json.total > 100` },
		"json not asked": func(r *config.Route) { r.Filter.When = `not (subject startsWith "bills." && json.total > 100)` },
		"sample":         func(r *config.Route) { r.Filter.Sample = &config.Sample{Every: time.Nanosecond, Key: "subject"} },
		"map subject":    func(r *config.Route) { r.Transform.Subject = "cloud.orders.>" },
		"set header":     func(r *config.Route) { r.Transform.SetHeaders = map[string]config.Secret{"Site": "vm-17"} },
	} {
		b.Run(name, func(b *testing.B) {
			r := route("orders.>")
			change(r)
			s := newStage(b, r)
			m := &relay.Message{Subject: "orders.eu.1", Header: relay.Header{"Type": {"new"}}, Data: payload}
			b.ReportAllocs()
			for b.Loop() {
				m.Subject = "orders.eu.1"
				if v, err := s(m); v == relay.Filtered || err != nil {
					b.Fatal(v, err)
				}
			}
		})
	}
}

// bareSource hands over accept; bareSink takes everything.
type (
	bareSource chan func(*relay.Message) error
	bareSink   struct{}
)

func (s bareSource) Run(ctx context.Context, accept func(*relay.Message) error) error {
	s <- accept
	<-ctx.Done()
	return nil
}

func (bareSource) Close(context.Context) error { return nil }

func (bareSink) Limits() relay.Limits {
	return relay.Limits{Messages: 1024, Bytes: 1 << 20, Lanes: 1}
}
func (bareSink) Close(context.Context) error { return nil }
func (bareSink) Deliver(_ context.Context, batch []*relay.Message, out []relay.Outcome) error {
	for i := range batch {
		out[i].Status = relay.Delivered
	}
	return nil
}

// BenchmarkAccept is a whole message through a route in memory, with and without a filter that takes it, or leaves it out.
func BenchmarkAccept(b *testing.B) {
	for name, when := range map[string]string{
		"bare": "", "subject": `subject startsWith "orders."`, "json": `json.total > 100`, "left out": `subject startsWith "bills."`,
	} {
		b.Run(name, func(b *testing.B) {
			r := route("orders.>")
			r.Filter.When = when
			stage, err := New(r)
			if err != nil {
				b.Fatal(err)
			}
			accept := acceptOf(b, stage)
			payload := order(b)
			b.ReportAllocs()
			for b.Loop() {
				if err := accept(&relay.Message{Subject: "orders.eu.1", ID: "id", Data: payload}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// acceptOf runs a route for the time of the benchmark.
func acceptOf(b *testing.B, stage relay.Stage) func(*relay.Message) error {
	source := make(bareSource, 1)
	route, err := relay.NewRoute(relay.RouteOptions{
		Name: "b", Instance: "i", Dir: b.TempDir() + "/b", Stage: stage,
		Buffer:   relay.BufferOptions{Memory: 64 << 20, WhenFull: relay.Block},
		Delivery: relay.DeliveryOptions{Ordering: relay.OrderStrict, InFlight: 1, RetryMin: time.Second, RetryMax: time.Second},
	}, source, bareSink{}, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	plan := relay.Plan{Drain: time.Minute, Routes: []relay.RoutePlan{{Name: "b", Open: func(*relay.Intake) (*relay.Route, error) { return route, nil }}}}
	r := relay.Start(context.Background(), plan, zerolog.Nop())
	b.Cleanup(func() {
		r.Stop()
		if err := r.Wait(); err != nil {
			b.Error(err)
		}
	})
	return <-source
}
