package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/rs/zerolog"
)

// A liveShelf is a shelf of the relay that runs in this process, which holds the lock of the state directory. It reads the files beside
// the routes that write them, and leaves all changes to those; where no route runs, it changes the files itself.
type liveShelf struct {
	shelf
	stateDir string
	relay    *relay.Relay
	log      zerolog.Logger
}

// running returns the route, or nil if there is none of that name.
func (l *liveShelf) running(name string) (*relay.Route, error) {
	if err := checkRouteName(name); err != nil {
		return nil, &admin.Refusal{Code: http.StatusNotFound, Err: err}
	}
	route := l.relay.Route(name)
	if route == nil && slices.ContainsFunc(l.relay.Status(), func(s relay.RouteStatus) bool { return s.Name == name }) {
		return nil, &admin.Refusal{Code: http.StatusConflict, Err: fmt.Errorf("route %q is being opened, or cannot be opened: see natsrelay status", name)}
	}
	return route, nil
}

// mustRun returns the route.
func (l *liveShelf) mustRun(name string) (*relay.Route, error) {
	route, err := l.running(name)
	if err == nil && route == nil {
		err = &admin.Refusal{Code: http.StatusConflict, Err: fmt.Errorf("no route %q runs here, so nobody would deliver the messages", name)}
	}
	return route, err
}

// folder returns the folder of what a route has.
func (l *liveShelf) folder(route string) (string, error) {
	dir, err := l.existing(l.stateDir, route)
	if err != nil {
		return "", &admin.Refusal{Code: http.StatusNotFound, Err: err}
	}
	return dir, nil
}

// List implements admin.Storage.
func (l *liveShelf) List(ctx context.Context) ([]admin.Holding, error) {
	names, err := l.routes(l.stateDir)
	all := make([]admin.Holding, 0, len(names))
	for _, name := range names {
		dir := l.dir(l.stateDir, name)
		report, err := lookAgain(func() (spool.Report, error) { return spool.Inspect(dir) })
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just gone
		}
		h := holdingOf(ctx, name, dir, report)
		h.Runs = l.relay.Route(name) != nil
		if err != nil {
			h.Error = err.Error()
		}
		all = append(all, h)
	}
	return all, err
}

// holdingOf describes what a route has in a folder. The spool knows when its oldest segment began, which may be long ago: the first message that
// is still there is asked for its own time.
func holdingOf(ctx context.Context, route, dir string, r spool.Report) admin.Holding {
	st := r.Stats
	err := walkMessages(ctx, dir, relay.Selection{Limit: 1}, func(first *relay.Stored) error {
		st.Oldest = first.Time
		return nil
	})
	if err != nil {
		st.Oldest = r.Stats.Oldest // it cannot be read, or has just gone: nearly right will do
	}
	return admin.Holding{
		Route: route, Messages: st.Records, Bytes: st.FileBytes, Oldest: st.Oldest, Newest: st.Newest, Segments: st.Segments, Damage: damageOf(r),
	}
}

// lookAgain looks at files that are being written. What it sees of a segment on its way in or out looks like damage; real damage is still
// there at the second look.
func lookAgain(look func() (spool.Report, error)) (spool.Report, error) {
	first, err := look()
	if err != nil || len(first.Damage) == 0 {
		return first, err
	}
	second, err := look()
	second.Damage = slices.DeleteFunc(second.Damage, func(d spool.Damage) bool {
		passing := d.Cause == spool.Torn && d.Records == 0
		return passing || !slices.ContainsFunc(first.Damage, func(e spool.Damage) bool { return e.File == d.File && e.Cause == d.Cause && e.Offset == d.Offset })
	})
	return second, err
}

// Walk implements admin.Storage.
func (l *liveShelf) Walk(ctx context.Context, route string, which relay.Selection, fn func(*relay.Stored) error) error {
	dir, err := l.folder(route)
	if err != nil {
		return err
	}
	return walkMessages(ctx, dir, which, fn)
}

// remove deletes what a route has that does not run.
func (l *liveShelf) remove(route string) (int, error) {
	dir, err := l.folder(route)
	if err != nil {
		return 0, err
	}
	report, err := spool.Inspect(dir)
	if err != nil {
		return 0, err
	}
	l.log.Warn().Str("route", route).Int("messages", report.Stats.Records).Str("what", l.command).Msg("dropping what a route that does not run has on disk, as somebody wishes")
	return report.Stats.Records, spool.Remove(dir)
}

// A liveSpool is what waits to be delivered.
type liveSpool struct{ liveShelf }

// Verify implements admin.SpoolStorage.
func (l *liveSpool) Verify(ctx context.Context, route string, progress func(done, total int64)) (admin.Report, error) {
	dir, err := l.folder(route)
	if err != nil {
		return admin.Report{}, err
	}
	report, err := lookAgain(func() (spool.Report, error) { return spool.Verify(ctx, dir, progress) })
	return reportOf(report), err
}

func reportOf(r spool.Report) admin.Report {
	out := admin.Report{Messages: r.Stats.Records, Segments: r.Stats.Segments, Damage: []string{}}
	for _, d := range r.Damage {
		out.Damage = append(out.Damage, d.String())
		out.Lost += d.Records
	}
	return out
}

// Replay implements admin.SpoolStorage.
func (l *liveSpool) Replay(ctx context.Context, name string, batch []*relay.Stored) (int, error) {
	route, err := l.mustRun(name)
	if err != nil {
		return 0, err
	}
	return route.Replay(ctx, batch)
}

// Drop implements admin.Storage.
func (l *liveSpool) Drop(ctx context.Context, name string) (int, error) {
	route, err := l.running(name)
	switch {
	case err != nil:
		return 0, err
	case route == nil:
		return l.remove(name)
	}
	return route.Purge(ctx)
}

// A liveDead are the dead letters.
type liveDead struct{ liveShelf }

// store returns the store that a route uses, or one for the letters that are left of a time when it used one; and what closes it.
func (l *liveDead) store(route *relay.Route, dir string) (store *sinks.DeadLetterDisk, done func() error) {
	if route != nil {
		if disk, ok := route.DeadLetters().(*sinks.DeadLetterDisk); ok {
			return disk, func() error { return nil }
		}
	}
	disk := openDead(dir, l.log)
	return disk, func() error { return disk.Close(context.Background()) }
}

// Replay implements admin.DeadStorage.
func (l *liveDead) Replay(ctx context.Context, name string, which relay.Selection, progress func(done, total int)) (n int, err error) {
	dir, err := l.folder(name)
	if err != nil {
		return 0, err
	}
	route, err := l.mustRun(name)
	if err != nil {
		return 0, err
	}
	store, done := l.store(route, dir)
	defer func() { err = errors.Join(err, done()) }()
	return store.Redrive(ctx, sinks.Redrive{Which: which, Progress: progress, Put: func(ctx context.Context, batch []*relay.Stored) error {
		_, err := route.Replay(ctx, batch)
		return err
	}})
}

// Drop implements admin.Storage.
func (l *liveDead) Drop(_ context.Context, name string) (int, error) {
	route, err := l.running(name)
	if err != nil {
		return 0, err
	}
	if route == nil {
		return l.remove(name)
	}
	dir, err := l.folder(name)
	if err != nil {
		return 0, err
	}
	store, done := l.store(route, dir)
	n, err := store.Drop()
	return n, errors.Join(err, done())
}
