package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	// subjects is what both routes of the demo subscribe to.
	subjects = "demo.>"
	// devices is how many subjects the messages are spread over.
	devices = 32
	// publishEvery is how often the publisher sends what is due.
	publishEvery = 5 * time.Millisecond
)

// A publisher sends numbered messages to the edge server at a steady rate.
type publisher struct {
	nc    *nats.Conn
	rate  int
	began time.Time
	sent  atomic.Int64
}

func newPublisher(edge *server.Server, rate int, began time.Time) (*publisher, error) {
	nc, err := nats.Connect("", nats.InProcessServer(edge), nats.Name("demo publisher"))
	if err != nil {
		return nil, fmt.Errorf("connect the publisher to the edge server: %w", err)
	}
	return &publisher{nc: nc, rate: rate, began: began}, nil
}

// published returns how many messages have been published so far.
func (p *publisher) published() int { return int(p.sent.Load()) }

// run publishes for the given time. When it returns nil the server has everything.
func (p *publisher) run(ctx context.Context, d time.Duration) error {
	start := time.Now()
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		elapsed := min(time.Since(start), d)
		for due := int(float64(p.rate) * elapsed.Seconds()); n < due; n++ {
			if err := p.publish(); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		if elapsed == d {
			return p.nc.FlushTimeout(patience)
		}
	}
}

func (p *publisher) publish() error {
	seq := p.published() + 1
	data, err := json.Marshal(payload{Seq: seq, Sent: time.Since(p.began)})
	if err != nil {
		return err
	}
	if err := p.nc.Publish(fmt.Sprintf("demo.device.%d", seq%devices), data); err != nil {
		return err
	}
	p.sent.Add(1)
	return nil
}

func (p *publisher) close() { p.nc.Close() }
