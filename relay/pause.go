package relay

// Pause makes the route deliver nothing until Resume. What is under way finishes; what comes is buffered, and goes to disk as if the
// sink failed. Requests are refused. A pause ends with the process. Pause and Resume may be called at any time, from any
// goroutine, and more than once.
func (r *Route) Pause() { r.setPaused(true) }

// Resume ends a pause.
func (r *Route) Resume() { r.setPaused(false) }

// Paused reports whether the route is paused.
func (r *Route) Paused() bool { return r.gate.isPaused() }

func (r *Route) setPaused(paused bool) {
	r.pausing.Lock()
	defer r.pausing.Unlock()
	if paused == r.Paused() {
		return
	}
	if paused {
		r.log.Warn().Msg("paused: nothing is delivered until somebody resumes the route")
		r.held(failing)
	} else {
		r.log.Info().Msg("resumed")
		r.held(healthy)
	}
	r.direct.setPaused(paused)
	r.gate.setPaused(paused)
}
