package relay

// A Receipt settles one message with whoever the source has it from: a JetStream consumer's acknowledgement.
//
// The route calls Settle exactly once for each message that accept has returned nil for, from any goroutine, and with locks held:
// Settle must not wait for anything, least of all for the network. Messages that are FateReturned are so in the route's order.
type Receipt interface {
	Settle(Fate)
}

// Fate is what the route has done with a message, as far as upstream is concerned.
type Fate uint8

const (
	// FateDone: the sink has confirmed it, it is a stored dead letter, it was left out as it is wanted, or it was given up, and counted.
	FateDone Fate = iota
	// FateStored: it is fsynced in the route's buffer, which will see to it. Only with BufferOptions.SettleStored.
	FateStored
	// FateReturned: the route ends and keeps nothing of it. Whoever has it is to give it to somebody, soon.
	FateReturned
)
