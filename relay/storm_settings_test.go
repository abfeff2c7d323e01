package relay

import (
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
)

var syscallErrors = []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EACCES}

func failTo(errno syscall.Errno, ops ...string) map[string]syscall.Errno {
	fail := map[string]syscall.Errno{}
	for _, op := range ops {
		fail[op] = errno
	}
	return fail
}

// drawSettings draws all that a reload may change.
func (s *storm) drawSettings() {
	rng := s.rng
	o := RouteOptions{Name: "orders", Instance: "vm-17", Dir: s.dir, Stage: stormStage}
	o.Buffer = s.drawBuffer(rng)
	o.Delivery = DeliveryOptions{
		Ordering:    pick(rng, OrderStrict, OrderSubject, OrderNone),
		InFlight:    1 + rng.IntN(6),
		RetryMin:    pick(rng, 20*time.Millisecond, 500*time.Millisecond, 6*time.Second),
		MaxAttempts: pick(rng, 0, 0, 1, 3),
		RateLimit:   pick(rng, 0, 0, 0, 20, 300),
	}
	o.Delivery.RetryMax = o.Delivery.RetryMin * pick[time.Duration](rng, 1, 4, 20)
	if rng.IntN(3) > 0 {
		o.DeadLetters = &stormBox{storm: s}
		o.Buffer.KeepExpired = rng.IntN(2) == 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options = o
	s.limits = Limits{
		Messages: pick(rng, 1, 5, 50), Bytes: pick[int64](rng, 1000, 50_000, 1<<20), Lanes: 1 + rng.IntN(5), Wait: pick[time.Duration](rng, 0, 0, 50*time.Millisecond),
	}
	s.streams = rng.IntN(2) == 0
	s.drain = pick(rng, time.Second, 25*time.Second)
	s.version++
	s.say("settings: receipts %t, intake %t, streams %t, limits %+v, drain %v, dead letters %t\n%s%+v\n%s%+v",
		s.receipts, s.intake, s.streams, s.limits, s.drain, o.DeadLetters != nil, "            ", o.Buffer, "            ", o.Delivery)
}

// drawBuffer leaves alone what an upstream that keeps the messages asks for.
func (s *storm) drawBuffer(rng *rand.Rand) BufferOptions {
	o := BufferOptions{
		Memory:       pick[int64](rng, 30_000, 100_000, 400_000),
		Disk:         pick[int64](rng, 0, 150_000, 4<<20, 1<<30),
		Persist:      pick(rng, PersistOverflow, PersistOutage, PersistAlways),
		SpillAfter:   pick(rng, 0, time.Second),
		WhenFull:     pick(rng, Block, DropOldest, DropNewest),
		MaxAge:       pick(rng, 0, 0, 3*time.Second, time.Minute),
		SettleStored: s.options.Buffer.SettleStored,
		Sync:         pick(rng, spool.SyncEach, spool.SyncInterval, spool.SyncNever),
		SyncInterval: pick(rng, 50*time.Millisecond, 2*time.Second),
		Compression:  pick(rng, spool.None, spool.None, spool.S2),
		MinFree:      1 << 20,
	}
	if s.receipts {
		o.WhenFull = Block
	}
	if o.SettleStored && o.Disk == 0 {
		o.Disk = 1 << 30
	}
	if o.SettleStored && o.Sync == spool.SyncNever {
		o.Sync = spool.SyncInterval
	}
	return o
}
