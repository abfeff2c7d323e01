package natsconn

// Stats is a snapshot of a connection's counters.
type Stats struct {
	Connected  bool
	Reconnects uint64          // connections made after the first
	Errors     map[Kind]uint64 // every Kind is present
	Failure    error           // why the connection was cut, or could not be made, last; nil while it is up, and before the first attempt
}

// Stats never waits for the network.
func (c *Conn) Stats() Stats {
	_, up, _ := c.state.get()
	st := Stats{Connected: up, Reconnects: c.events.reconnects.Load(), Errors: make(map[Kind]uint64)}
	if !up {
		st.Failure = c.events.lastFailure()
	}
	for kind, n := range c.events.counts {
		st.Errors[kind] = n.Load()
	}
	return st
}
