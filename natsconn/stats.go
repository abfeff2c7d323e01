package natsconn

// Stats is a snapshot of a connection's counters.
type Stats struct {
	Connected  bool
	Reconnects uint64          // connections made after the first
	Errors     map[Kind]uint64 // every Kind is present
}

// Stats never waits for the network.
func (c *Conn) Stats() Stats {
	_, up, _ := c.state.get()
	st := Stats{Connected: up, Reconnects: c.events.reconnects.Load(), Errors: make(map[Kind]uint64)}
	for kind, n := range c.events.counts {
		st.Errors[kind] = n.Load()
	}
	return st
}
