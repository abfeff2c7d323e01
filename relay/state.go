package relay

import "errors"

// State is what a route is doing, in one word.
type State string

// The states of a route. When several hold, the first of this list that does is shown.
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting" // the source has neither come up yet nor said why not
	StateFull     State = "full"     // messages are being given up, or the source waits
	StatePaused   State = "paused"   // by somebody: see Pause
	StateBlocked  State = "blocked"  // the sink or a permission is wrong, or the dead letters' store: somebody has to mend it
	StateSpilling State = "spilling" // the sink fails, and messages go to disk
	StateRetrying State = "retrying" // the sink fails
	StateDraining State = "draining" // the sink works, and the backlog on disk is being caught up with
	StateFlowing  State = "flowing"
)

// States returns all of them.
func States() []State {
	return []State{StateStopped, StateStarting, StateFull, StatePaused, StateBlocked, StateSpilling, StateRetrying, StateDraining, StateFlowing}
}

// State derives the route's state from its parts. It may be called at any time.
func (r *Route) State() State {
	source := r.sourceTrouble()
	switch p := phase(r.phase.Load()); {
	case p == phaseNew || p == phaseRunning && errors.Is(source, ErrStarting):
		return StateStarting
	case p == phaseStopped:
		return StateStopped
	}
	full, spilling := r.buffer.condition()
	sink := r.health()
	fault, _ := errors.AsType[*Fault](source)
	switch {
	case full:
		return StateFull
	case r.Paused():
		return StatePaused
	case sink == blocked || fault != nil && fault.Blocked:
		return StateBlocked
	case sink == failing && spilling:
		return StateSpilling
	case sink == failing:
		return StateRetrying
	case spilling && r.opts.Buffer.Persist != PersistAlways:
		return StateDraining
	}
	return StateFlowing
}

// sourceTrouble returns why nothing can arrive, nil if it can or the source cannot tell.
func (r *Route) sourceTrouble() error {
	if r.upstream == nil {
		return nil
	}
	return r.upstream.Trouble()
}

// health returns what the worse of the route's two endpoints is: the sink, and the store of the dead letters.
func (r *Route) health() health {
	return max(r.gate.current(), r.dead.gate.current(), r.direct.health())
}
