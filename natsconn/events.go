package natsconn

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// events logs and counts what happens to a connection, and passes asynchronous errors on to those
// who asked for them. State changes are always logged, repeats are summed up.
type events struct {
	log    zerolog.Logger
	counts map[Kind]*atomic.Uint64 // never changed after newEvents

	reconnects atomic.Uint64

	mu        sync.Mutex
	url       string            // of the last connect, without credentials
	failure   error             // of the last attempt, or the last cut
	processes map[string]string // the server process that we last met at a URL
	throttle  throttle
	listeners map[*listener]struct{}
}

// A listener is a function made comparable.
type listener struct{ fn func(error) }

func newEvents(log zerolog.Logger) *events {
	e := &events{log: log, counts: make(map[Kind]*atomic.Uint64), listeners: make(map[*listener]struct{}), processes: make(map[string]string)}
	for _, k := range Kinds() {
		e.counts[k] = new(atomic.Uint64)
	}
	return e
}

func (e *events) connected(nc *nats.Conn) (restarted bool) {
	url, failed, restarted := e.arrived(nc)
	e.arrival(nc, url, failed).Str("version", nc.ConnectedServerVersion()).Msg("connected")
	return restarted
}

func (e *events) reconnected(nc *nats.Conn, down time.Duration) (restarted bool) {
	e.reconnects.Add(1)
	url, failed, restarted := e.arrived(nc)
	e.arrival(nc, url, failed).Dur("down_for", down.Round(time.Millisecond)).Msg("reconnected")
	return restarted
}

// arrival begins the log line of a connection. heldBack is how many failed attempts have had no line.
func (e *events) arrival(nc *nats.Conn, url string, heldBack int) *zerolog.Event {
	line := e.log.Info().Str("url", url)
	if name := nc.ConnectedServerName(); name != nc.ConnectedServerId() { // a server that has no name shows its id
		line = line.Str("server", name)
	}
	if heldBack > 0 {
		line = line.Int("attempts_held_back", heldBack)
	}
	return line
}

// maxProcesses bounds what is remembered of servers, whose addresses may be other ones each time.
const maxProcesses = 64

// arrived notes where the connection is now, and ends the series of failed attempts. restarted says whether the server at
// this URL is another process than the last time.
func (e *events) arrived(nc *nats.Conn) (url string, heldBack int, restarted bool) {
	url, id := plainURL(nc.ConnectedUrl()), nc.ConnectedServerId()
	e.mu.Lock()
	defer e.mu.Unlock()
	heldBack = e.throttle.reset(attemptPrefix)
	e.failure = nil
	if url == "" || id == "" { // cut again already
		return e.url, heldBack, false
	}
	e.url = url
	before, met := e.processes[url]
	if !met && len(e.processes) >= maxProcesses {
		clear(e.processes)
	}
	e.processes[url] = id
	return url, heldBack, met && id != before
}

// disconnected reports a cut; next is the pause before the next attempt.
func (e *events) disconnected(err error, next time.Duration, moving, stopping bool) {
	switch {
	case stopping:
		e.log.Debug().Str("url", e.lastURL()).Msg("disconnected: the relay stops")
	case moving:
		e.log.Info().Str("url", e.lastURL()).Msg("disconnected to move to another server")
	default:
		e.counts[kindOf(err, KindDisconnect)].Add(1)
		e.failed(err)
		e.log.Warn().Str("url", e.lastURL()).Err(err).Dur("next_in", next.Round(time.Millisecond)).Msg("disconnected: reconnecting")
	}
}

func (e *events) countAttempt(err error) {
	e.counts[kindOf(err, KindConnect)].Add(1)
	e.failed(err)
}

// failed keeps why there is no connection.
func (e *events) failed(err error) {
	if err == nil {
		err = errCut
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failure = err
}

func (e *events) lastFailure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure
}

// errCut is the failure of a connection that ended without a word.
var errCut = errors.New("disconnected")

// attemptFailed logs a failed attempt to connect; next is the pause until the next round, 0 if
// nats.go has not asked for it yet.
func (e *events) attemptFailed(addr string, err error, next time.Duration) {
	held, ok := e.allow(attemptKey(addr, err))
	if !ok {
		return
	}
	ev := e.log.Warn().Str("url", addr).Err(err).Int("held_back", held)
	if next > 0 {
		ev = ev.Dur("next_in", next.Round(time.Millisecond))
	}
	ev.Msg("cannot connect: trying again")
}

const attemptPrefix = "attempt "

// attemptKey tells causes apart: another one is news, since something may have been mended, and something else is wrong now.
// Digits are not: the port on our side is another one each time.
func attemptKey(addr string, err error) string {
	return attemptPrefix + addr + " " + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
}

func (e *events) async(sub *nats.Subscription, err error) {
	kind := kindOf(err, KindOther)
	e.counts[kind].Add(1)
	if kind == KindPermission {
		err = permission(err)
	}
	e.logAsync(sub, kind, err)
	for _, fn := range e.interested() {
		fn(err)
	}
}

func (e *events) logAsync(sub *nats.Subscription, kind Kind, err error) {
	key := string(kind)
	if denied, ok := errors.AsType[*PermissionError](err); ok && !denied.Publish {
		key += " " + denied.Subject // one per subscription, not one per message: each is news
	}
	held, ok := e.allow(key)
	if !ok {
		return
	}
	ev := e.log.Warn()
	if kind == KindPermission {
		ev = e.log.Error()
	}
	if sub != nil {
		ev = ev.Str("subject", sub.Subject)
	}
	ev.Str("url", e.lastURL()).Err(err).Int("held_back", held).Msg("error reported by the connection")
}

func (e *events) discovered(servers []string) {
	e.log.Info().Str("url", e.lastURL()).Strs("servers", servers).Msg("servers discovered")
}

// lameDuck reports that the server is about to stop; within is how long it may take until we move to another one.
func (e *events) lameDuck(others bool, within time.Duration) {
	ev := e.log.Warn().Str("url", e.lastURL())
	if others {
		ev.Dur("within", within.Round(time.Millisecond)).Msg("server is about to stop (lame duck): moving to another one")
	} else {
		ev.Msg("server is about to stop (lame duck) and no other one is known: staying as long as it lasts")
	}
}

func (e *events) closed(err error, stopping bool) {
	if stopping {
		e.log.Info().Str("url", e.lastURL()).Msg("closed")
		return
	}
	e.counts[KindOther].Add(1)
	e.log.Error().Str("url", e.lastURL()).Err(err).Msg("closed for good by the client library: building the connection anew")
}

func (e *events) lastURL() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.url
}

func (e *events) allow(key string) (held int, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.throttle.allow(key, time.Now())
}

func (e *events) interested() []func(error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fns := make([]func(error), 0, len(e.listeners))
	for l := range e.listeners {
		fns = append(fns, l.fn)
	}
	return fns
}

// OnError calls fn for each asynchronous error of an established connection, in order, from one
// goroutine that also reports cuts and reconnects: fn must not wait. Permission violations come as
// *PermissionError. Call remove to end it.
func (c *Conn) OnError(fn func(error)) (remove func()) {
	e, l := c.events, &listener{fn}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners[l] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.listeners, l)
	}
}
