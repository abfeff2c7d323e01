package demo

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestCloudCountsWhatItConfirmed cuts the cloud off in the middle of a stream of messages: whatever a flush has
// confirmed to the publisher must have been counted. Otherwise the demo would blame the relay.
func TestCloudCountsWhatItConfirmed(t *testing.T) {
	for range 5 {
		tally := newTally(true, time.Now())
		c, err := newCloud(tally)
		if err != nil {
			t.Fatal(err)
		}
		confirmed := publishUntilCut(t, c)
		if err := c.leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := tally.sum().distinct; got < <-confirmed {
			t.Errorf("%d messages were counted, fewer than were confirmed", got)
		}
		if _, err := net.Dial("tcp", c.addr); err == nil {
			t.Error("it still lets connections in")
		}
	}
}

// publishUntilCut publishes in the background, batch after batch, until that fails; it returns once the first batch has
// been confirmed. The channel gives the number of messages that were confirmed.
func publishUntilCut(t *testing.T, c *cloud) <-chan int {
	t.Helper()
	nc, err := nats.Connect("nats://"+c.addr, nats.NoReconnect())
	if err != nil {
		t.Fatal(err)
	}
	p := &publisher{nc: nc, began: time.Now()}
	first, confirmed := make(chan struct{}), make(chan int, 1)
	go func() {
		defer nc.Close()
		n := 0
		for batch := 0; ; batch++ {
			for range 100 {
				_ = p.publish() // a failure shows in the flush
			}
			if err := nc.Flush(); err != nil {
				confirmed <- n
				return
			}
			if n = p.published(); batch == 0 {
				close(first)
			}
		}
	}()
	<-first
	return confirmed
}

func TestCloudComesBack(t *testing.T) {
	tally := newTally(true, time.Now())
	c, err := newCloud(tally)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.back(); err != nil {
		t.Fatal(err)
	}
	confirmed := publishUntilCut(t, c)
	if err := c.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := tally.sum().distinct; got == 0 || got < <-confirmed {
		t.Errorf("%d messages were counted", got)
	}
	if err := c.leave(t.Context()); err != nil {
		t.Errorf("leaving twice: %v", err)
	}
}

func TestWebLeavesAndComesBack(t *testing.T) {
	tally := newTally(false, time.Now())
	w, err := newWeb(tally)
	if err != nil {
		t.Fatal(err)
	}
	post := func() error {
		resp, err := http.Post("http://"+w.addr, "application/json", bytes.NewBufferString(`{"seq":1}`))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := post(); err != nil {
		t.Fatal(err)
	}
	if err := w.leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := post(); err == nil {
		t.Error("it still answers")
	}
	if err := w.back(); err != nil {
		t.Fatal(err)
	}
	if err := post(); err != nil {
		t.Error(err)
	}
	if err := w.leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := tally.sum(); got.distinct != 1 || got.duplicates != 1 {
		t.Errorf("got %+v", got)
	}
}
