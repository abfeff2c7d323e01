package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// maxHops is how many relays a message may pass.
const maxHops = 8

// A Route is one source, one buffer and one sink. NewRoute opens its buffer, run does the rest until it has stopped.
type Route struct {
	opts     RouteOptions
	source   Source
	upstream Upstream // the source, if it can tell how it stands
	sink     Sink
	log      zerolog.Logger

	count    counters
	drops    *drops
	lost     *lostRecords
	buffer   *buffer
	gate     *gate
	delivery *delivery
	dead     *deadLetterOffice
	direct   *direct // nil: the sink does not answer requests

	watch *watch

	pausing sync.Mutex   // one Pause or Resume at a time
	held    func(health) // tells the buffer of a pause: to it that is as good as a sink that fails

	via       string // this route's entry in HeaderVia
	viaHeader Header // the header of all messages that came without one; shared, so never changed
	phase     atomic.Uint32
}

type phase uint32

const (
	phaseNew phase = iota
	phaseRunning
	phaseStopped
)

// NewRoute opens the route's buffer, and takes over source and sink: run closes the sink.
func NewRoute(o RouteOptions, source Source, sink Sink, log zerolog.Logger) (*Route, error) {
	r := &Route{opts: o, source: source, sink: sink, log: log.With().Str("route", o.Name).Logger()}
	r.upstream, _ = source.(Upstream)
	r.via = o.Instance + "/" + o.Name
	r.viaHeader = Header{HeaderVia: {r.via}}
	r.drops = newDrops(r.log)
	r.lost = &lostRecords{}
	r.dead = &deadLetterOffice{route: o.Name, store: o.DeadLetters, count: newDropsOf(r.log, "messages became dead letters"), drops: r.drops}

	disk, err := r.openSpool()
	if err != nil {
		return nil, fmt.Errorf("route %s: open its spool %s: %w", o.Name, o.Dir, err)
	}
	limits := sink.Limits()
	lanes := min(o.Delivery.InFlight, limits.Lanes)
	if o.Delivery.Ordering == OrderStrict {
		lanes = 1
	}
	r.buffer = newBuffer(o.Buffer, disk, lanes, o.Delivery.Ordering, &r.count, r.drops, r.log)
	r.buffer.lost = r.lost
	down := &downs{tell: r.buffer.setSink}
	r.gate = newGate(o.Delivery, lanes, r.log, down.watch())
	r.dead.gate = newGate(o.Delivery, lanes, r.log, down.watch())
	r.dead.gate.what = "store of the dead letters"
	r.held = down.watch()
	r.direct = newDirect(sink, o.Delivery.InFlight, &r.count, r.drops, r.buffer.observe)
	r.delivery = newDelivery(o.Delivery, r.buffer, r.gate, sink, r.dead, &r.count)
	r.watch = newWatch(r, o.StallAfter, r.log)
	return r, nil
}

// Name returns the route's name.
func (r *Route) Name() string { return r.opts.Name }

// openSpool opens the route's spool, if it may write one or has one from an earlier run.
func (r *Route) openSpool() (*spool.Spool, error) {
	o := r.opts.Buffer
	if _, err := os.Stat(r.opts.Dir); o.Disk == 0 && errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	disk, err := spool.Open(r.opts.Dir, spool.Options{
		// With disk = 0 nothing is appended; the spool is there to be emptied.
		FS: r.opts.fs, MaxBytes: max(o.Disk, 1), MinFree: o.MinFree, Sync: o.Sync, SyncInterval: o.SyncInterval, Compression: o.Compression, OnDamage: r.damaged,
	})
	if err != nil {
		return nil, err
	}
	if s := disk.Stats(); s.Records > 0 {
		r.log.Info().Int("messages", s.Records).Int64("bytes", s.FileBytes).Time("oldest", s.Oldest).Msg("backlog found on disk: it goes first, all that comes lines up behind it")
	}
	return disk, nil
}

func (r *Route) damaged(d spool.Damage) {
	r.count.corrupt.Add(uint64(d.Records))
	if r.opts.Buffer.SettleStored {
		r.lost.add(d)
	}
	r.log.Error().Stringer("damage", d).Msg("the spool was damaged, the rest of it is delivered")
}

// accept is where messages enter the route. It is safe for concurrent use.
func (r *Route) accept(m *Message) error {
	if m.accepted { // by the route before, which had no room for it and has ended
		return r.put(m)
	}
	r.count.received.Add(1)
	if m.Stream != "" {
		m.arrived = time.Now()
	}
	if r.opts.Stage != nil && !r.judge(m) {
		m.settle(FateDone)
		return nil
	}
	if via := m.Header[HeaderVia]; len(via) >= maxHops || slices.Contains(via, r.via) {
		r.drops.add(DropLoop, 1, nil)
		r.direct.refuse(m, looped())
		m.settle(FateDone)
		return nil
	}
	r.sign(m)
	if r.direct.takes(m) {
		r.direct.serve(m)
		return nil
	}
	m.accepted = true
	return r.put(m)
}

// put puts the message into the buffer.
func (r *Route) put(m *Message) error {
	if err := r.buffer.put(m); err != errNoRoom {
		return err
	}
	m.settle(FateDone) // it is counted as dropped; the source has nothing to do about it
	return nil
}

// sign appends this route to the message's provenance.
func (r *Route) sign(m *Message) {
	if len(m.Header) == 0 {
		m.Header = r.viaHeader
		return
	}
	via := m.Header[HeaderVia]
	m.Header[HeaderVia] = append(via[:len(via):len(via)], r.via)
}

// run moves messages until it is told to stop. When stop is closed it ends in order: first the source, then, for at most
// drain as it is then, the deliveries; what is left goes to disk. When ctx ends it skips the waiting for deliveries. The error says what could not be put in order.
func (r *Route) run(ctx context.Context, stop <-chan struct{}, drain func() time.Duration) error {
	r.phase.Store(uint32(phaseRunning))
	defer r.phase.Store(uint32(phaseStopped))

	deliver, cutDeliveries := context.WithCancel(ctx)
	defer cutDeliveries()
	r.buffer.start()
	lanes := r.startLanes(deliver)
	defer r.startWatch(ctx)()
	r.direct.start(deliver)
	listen, stopSource := context.WithCancel(ctx)
	defer stopSource()
	source := make(chan struct{})
	go func() {
		defer close(source)
		r.runSource(listen)
	}()

	select {
	case <-stop:
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(ctx, drain())
	defer cancel()
	r.buffer.beginStop()
	stopSource()
	waitFor(limit, source)
	r.direct.wait(limit)
	r.buffer.waitDrained(limit)
	r.buffer.stopTakes()
	r.gate.stop()
	r.dead.gate.stop()
	r.takeRest(ctx, source)
	r.buffer.stopPuts()
	if r.gate.current() == healthy {
		waitFor(limit, lanes)
	}
	cutDeliveries()
	<-lanes
	<-source
	r.direct.wait(context.WithoutCancel(ctx))
	return r.close(ctx)
}

// takeRest lets a source whose time is over pass on what it has already, as far as there is room for it without a delivery: what a core
// source has is nowhere else. It does not take long.
func (r *Route) takeRest(ctx context.Context, source <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	r.buffer.hurryPuts()
	waitFor(ctx, source)
}

// startWatch starts the watch and returns a function that ends it.
func (r *Route) startWatch(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { r.watch.run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// startLanes starts the lanes and returns a channel that is closed when all have ended.
func (r *Route) startLanes(ctx context.Context) <-chan struct{} {
	var running sync.WaitGroup
	for _, l := range r.buffer.lanes {
		running.Go(func() { r.delivery.runLane(ctx, l) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		running.Wait()
	}()
	return done
}

// runSource keeps the source running until ctx ends.
func (r *Route) runSource(ctx context.Context) {
	const restart = 5 * time.Second
	for {
		err := r.source.Run(ctx, r.accept)
		if ctx.Err() != nil {
			return
		}
		r.log.Error().Err(err).Dur("next_in", restart).Msg("source failed, starting it again")
		select {
		case <-time.After(restart):
		case <-ctx.Done():
			return
		}
	}
}

// closeTimeout bounds the last words of a source, and those to it and to the endpoint.
const closeTimeout = 5 * time.Second

// close has its time even if ctx has ended: upstream is to know what is done, and get back what is not.
func (r *Route) close(ctx context.Context) error {
	bufferErr := r.buffer.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	endErr := errors.Join(r.source.Close(ctx), r.sink.Close(ctx), r.dead.close(ctx))
	if r.opts.Close != nil {
		r.opts.Close(ctx)
	}
	r.drops.close()
	s := r.Stats()
	r.log.Info().Uint64("received", s.Received).Uint64("delivered", s.Delivered).Uint64("spilled", s.Spilled).
		Uint64("left_out", s.LeftOut()).Uint64("dropped", s.DroppedTotal()).Uint64("dead_letters", s.DeadLettersTotal()).Int("left_on_disk", s.DiskMessages).Msg("route stopped")
	if err := errors.Join(bufferErr, endErr); err != nil {
		return fmt.Errorf("route %s: close: %w", r.opts.Name, err)
	}
	return nil
}

// waitFor waits until done is closed or ctx ends.
func waitFor(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}
