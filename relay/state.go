package relay

// State is what a route is doing, in one word.
type State string

// The states of a route. When several hold, the first of this list that does is shown.
const (
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateFull     State = "full"     // messages are being given up, or the source waits
	StateBlocked  State = "blocked"  // the sink or a permission is wrong, or the dead letters' store: somebody has to mend it
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
	sink := r.health()
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

// health returns what the worse of the route's two endpoints is: the sink, and the store of the dead letters.
func (r *Route) health() health {
	return max(r.gate.current(), r.dead.gate.current(), r.direct.health())
}
