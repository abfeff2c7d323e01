package admin

import (
	"context"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// Storage is one of the two kinds of things that routes keep on disk: what waits to be delivered, and dead letters. Routes that do not run (any
// more) may have something there, too. The errors that are the client's to mend are *Refusal.
type Storage interface {
	// List describes what there is, in the order of the routes' names.
	List(context.Context) ([]Holding, error)
	// Walk calls fn with the messages of a route that are wanted, oldest first, until it returns an error.
	Walk(ctx context.Context, route string, which relay.Selection, fn func(*relay.Stored) error) error
	// Drop deletes all that a route has, and returns how many messages that was.
	Drop(ctx context.Context, route string) (messages int, err error)
}

// SpoolStorage is what waits to be delivered.
type SpoolStorage interface {
	Storage
	// Verify reads every byte that a route has.
	Verify(ctx context.Context, route string, progress func(done, total int64)) (Report, error)
	// Replay puts messages into a route that runs, behind what is there, and returns how many of them are safe there.
	Replay(ctx context.Context, route string, batch []*relay.Stored) (int, error)
}

// DeadStorage is what was given up.
type DeadStorage interface {
	Storage
	// Replay puts dead letters back into their route, which must run.
	Replay(ctx context.Context, route string, which relay.Selection, progress func(done, total int)) (messages int, err error)
}

// A Holding is what one route has on disk.
type Holding struct {
	Route    string    `json:"route"`
	Runs     bool      `json:"runs"` // the route runs
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"` // of files
	Oldest   time.Time `json:"oldest,omitzero"`
	Newest   time.Time `json:"newest,omitzero"`
	Segments int       `json:"segments"`
	Damage   string    `json:"damage"` // "none", or how much
	Error    string    `json:"error,omitempty"`
}

// A Report is what a Verify has found.
type Report struct {
	Messages int      `json:"messages"`
	Segments int      `json:"segments"`
	Damage   []string `json:"damage"` // each place in a line
	Lost     int      `json:"lost"`   // messages
}

// A Refusal is an error that the client can do something about.
type Refusal struct {
	Code int // HTTP status
	Err  error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }
