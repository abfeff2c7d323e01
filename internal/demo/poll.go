package demo

import (
	"context"
	"fmt"
	"time"
)

// patience is how long any single step of the demo may take on a machine that is busy with other things.
const patience = time.Minute

// poll asks cond until it holds, for at most the given time. what completes "timed out waiting until …".
func poll(ctx context.Context, limit time.Duration, what string, cond func() (bool, error)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return fmt.Errorf("timed out after %v waiting until %s", limit, what)
		case <-tick.C:
		}
	}
}
