package admin

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
)

// Each trouble that a route may have is said in words; without one it is ready.
func TestTroubles(t *testing.T) {
	down := errors.New("connection refused")
	for name, tc := range map[string]struct {
		status relay.RouteStatus
		want   []string
	}{
		"flowing":   {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateFlowing}}, nil},
		"draining":  {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateDraining}}, nil},
		"unopened":  {relay.RouteStatus{Err: errors.New("no space"), Stats: relay.RouteStats{State: relay.StateStarting}}, []string{"cannot be opened: no space"}},
		"starting":  {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateStarting, SourceTrouble: relay.ErrStarting}}, []string{"starting: has not come up yet"}},
		"stopped":   {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateStopped}}, []string{"stopped"}},
		"full":      {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateFull}}, []string{"full: messages are being given up, or the source is held back"}},
		"paused":    {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StatePaused, Paused: true}}, []string{"paused: somebody has to resume it"}},
		"blocked":   {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateBlocked, SinkTrouble: down}}, []string{"blocked: somebody has to mend it: connection refused"}},
		"denied":    {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateBlocked, SourceTrouble: down}}, []string{"blocked: somebody has to mend the source", "source: nothing arrives: connection refused"}},
		"spilling":  {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateSpilling, SinkTrouble: down}}, []string{"spilling: messages go to disk: connection refused"}},
		"retrying":  {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateRetrying, SinkTrouble: errors.Join(down, down)}}, []string{"retrying: connection refused; connection refused"}},
		"cut off":   {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateFlowing, SourceTrouble: down}}, []string{"source: nothing arrives: connection refused"}},
		"stalled":   {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateFlowing, Stalled: "why"}}, []string{"stalled: why"}},
		"all of it": {relay.RouteStatus{Stats: relay.RouteStats{State: relay.StateFull, Paused: true, SinkTrouble: down, DiskTrouble: down, SourceTrouble: down, Stalled: "why"}}, []string{"full: messages are being given up, or the source is held back", "paused: somebody has to resume it", "failing: connection refused", "disk: nothing can be written to it, messages are in memory alone: connection refused", "source: nothing arrives: connection refused", "stalled: why"}},
	} {
		if diff := cmp.Diff(tc.want, troubles(tc.status)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Every state has its place in the policy: a new one must be thought about here.
func TestEveryStateIsReadyOrSaysWhyNot(t *testing.T) {
	down := errors.New("connection refused")
	ready := ""
	for _, state := range relay.States() {
		s := relay.RouteStats{State: state, Paused: state == relay.StatePaused}
		if state == relay.StateBlocked || state == relay.StateSpilling || state == relay.StateRetrying {
			s.SinkTrouble = down
		}
		why := troubles(relay.RouteStatus{Stats: s})
		if len(why) == 0 {
			ready += " " + string(state)
		} else if !strings.HasPrefix(why[0], string(state)) {
			t.Errorf("%s says %q", state, why)
		}
	}
	if ready != " draining flowing" {
		t.Errorf("ready are%s", ready)
	}
}
