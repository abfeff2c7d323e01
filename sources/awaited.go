package sources

import "slices"

// An awaited is what the consumer is to deliver again before newer messages may reach the route. The server keeps no order among redeliveries: what it could
// not deliver, or what was too large for a request, comes behind what was handed out later.
//
// Two things are waited for. The recalled messages: which they may be, and how many of them are pending; the server does not tell which. And,
// where the consumer has gone back behind what the ledger has seen of it, since its server has crashed, that it comes there again.
//
// The zero value awaits nothing.
type awaited struct {
	left  int      // as many messages come again
	again []uint64 // which they may be, ascending; nil: any
	last  uint64   // the highest sequence that the consumer has handed out, as far as it knows
	until uint64   // the one that it has to reach
}

// none reports whether there is nothing to wait for.
func (a *awaited) none() bool { return a.left == 0 && a.last >= a.until }

// before reports whether all that is awaited comes behind the sequence n.
func (a *awaited) before(n uint64) bool {
	recalled := a.left == 0 || len(a.again) > 0 && n < a.again[0]
	return recalled && (n <= a.last || a.last >= a.until)
}

// deliver notes any delivery. The server hands out nothing new before it has handed out again all that it has been asked for.
func (a *awaited) deliver(n uint64) {
	if n > a.last && !a.none() {
		a.left, a.again, a.last = 0, nil, n
	}
}

// come notes a message that was not held.
func (a *awaited) come(n uint64) {
	i, found := slices.BinarySearch(a.again, n)
	switch {
	case a.left == 0:
	case a.again == nil:
		a.left--
	case found:
		a.left--
		copy(a.again[1:i+1], a.again[:i]) // nearly always i is 0
		a.again = a.again[1:]
	}
}
