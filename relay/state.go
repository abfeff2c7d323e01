package relay

// State is what a route is doing, in one word.
type State string

// The states of a route. When several hold, the first of this list that does is shown.
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateFull     State = "full"     // messages are being given up, or the source waits
	StateBlocked  State = "blocked"  // the endpoint or a permission is wrong, somebody has to mend it
	StateSpilling State = "spilling" // the sink fails, and messages go to disk
	StateRetrying State = "retrying" // the sink fails
	StateDraining State = "draining" // the sink works, and the backlog on disk is being caught up with
	StateFlowing  State = "flowing"
)

// state derives the route's state from its parts.
func (r *Route) state() State {
	switch p := phase(r.phase.Load()); p {
	case phaseNew:
		return StateStarting
	case phaseStopped:
		return StateStopped
	}
	full, spilling := r.buffer.condition()
	sink := r.gate.current()
	switch {
	case full:
		return StateFull
	case sink == blocked:
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
