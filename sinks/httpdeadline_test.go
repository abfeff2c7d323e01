package sinks

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d deadline
		defer d.end()
		parent, cancel := context.WithCancel(t.Context())
		first := d.begin(parent, time.Second)
		time.Sleep(900 * time.Millisecond)
		d.rest()
		time.Sleep(time.Hour) // nothing runs out meanwhile
		if again := d.begin(parent, time.Second); again != first {
			t.Error("a deadline that was kept was made anew")
		}
		time.Sleep(900 * time.Millisecond)
		if first.Err() != nil {
			t.Error("the time of the request before was counted")
		}
		<-first.Done()
		if err := context.Cause(first); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it ended with: %v", err)
		}
		d.rest()

		second := d.begin(parent, time.Second)
		if second.Err() != nil {
			t.Error("the next request begins when its time is over")
		}
		d.rest()
		other := d.begin(t.Context(), time.Second)
		cancel()
		if other.Err() != nil {
			t.Error("it ends with the parent of the request before")
		}
		d.rest()
		if err := d.begin(parent, time.Second).Err(); err == nil {
			t.Error("it does not end with its parent")
		}
	})
}
