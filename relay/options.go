package relay

import (
	"context"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// RouteOptions are the settings of one route. All fields are required unless it says otherwise.
type RouteOptions struct {
	Name     string
	Instance string // the relay's name, first half of its entry in Natsrelay-Via
	Dir      string // folder of the route's spool; created when it is first needed
	Buffer   BufferOptions
	Delivery DeliveryOptions

	// StallAfter is how long a call to the sink, to the store of dead letters or to the disk may take, or messages may be ready and not
	// taken, before the route counts as stalled; 0: two minutes.
	StallAfter time.Duration

	// Stage is what messages pass before the route takes them; nil: nothing.
	Stage Stage
	// DeadLetters takes what cannot be delivered; the route closes it. nil: that is dropped and counted.
	DeadLetters DeadLetters
	// Close ends what source, sink and dead letters stand on, their connections. It is called once, after all of them have ended. nil: nothing.
	Close func(context.Context)

	fs spool.FS // of the spool; nil: the operating system's. Tests put one in its place that fails
}

// Persist says when messages go to disk.
type Persist uint8

const (
	PersistOverflow Persist = iota // only when memory is full
	PersistOutage                  // also once the sink has been failing for SpillAfter
	PersistAlways                  // every message, before it is sent
)

// WhenFull says what gives way when neither memory nor disk has room.
type WhenFull uint8

const (
	Block      WhenFull = iota // the source waits
	DropOldest                 // the oldest message that is not being delivered
	DropNewest                 // the message that has just come
)

// BufferOptions bound the ordered buffer of a route.
type BufferOptions struct {
	Memory     int64 // bytes, as Message.Size counts
	Disk       int64 // bytes of all segment files; 0 = never spill (a backlog of an earlier run is still delivered)
	Persist    Persist
	SpillAfter time.Duration
	WhenFull   WhenFull
	MaxAge     time.Duration // 0 = keep for ever
	// KeepExpired: what is older than MaxAge goes the way of the rest until a lane makes it a dead letter, instead of being dropped.
	KeepExpired bool

	// SettleStored: a message with a Receipt is settled upstream as soon as it is fsynced, not only once it is done.
	SettleStored bool

	Sync         spool.SyncMode
	SyncInterval time.Duration
	Compression  spool.Compression
	MinFree      int64 // bytes that must stay free on the file system
}

// Ordering is what a route keeps in order.
type Ordering uint8

const (
	OrderStrict  Ordering = iota // the whole route
	OrderSubject                 // each subject
	OrderNone                    // nothing
)

// DeliveryOptions say how a route sends.
type DeliveryOptions struct {
	Ordering           Ordering
	InFlight           int           // most concurrent deliveries
	RetryMin, RetryMax time.Duration // bounds of the endpoint's backoff
	MaxAttempts        int           // failed attempts after which a message is given up; 0 = never
	RateLimit          int           // messages a second; 0 = no limit
}
