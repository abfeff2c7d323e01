package main

import (
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// The words of relay.toml in the engine's terms. config has checked them: each is in its map.

func bufferOptions(r *config.Route) relay.BufferOptions {
	b := r.Buffer
	return relay.BufferOptions{
		Memory: b.Memory,
		Disk:   b.Disk,
		Persist: map[string]relay.Persist{
			"overflow": relay.PersistOverflow,
			"outage":   relay.PersistOutage,
			"always":   relay.PersistAlways,
		}[b.Persist],
		SpillAfter: b.SpillAfter,
		WhenFull: map[string]relay.WhenFull{
			"block":       relay.Block,
			"drop_oldest": relay.DropOldest,
			"drop_newest": relay.DropNewest,
		}[b.WhenFull],
		MaxAge:       b.MaxAge,
		SettleStored: r.Source.JetStream != nil && r.Source.JetStream.Ack == "stored",

		KeepExpired: r.DeadLetter.Given && r.DeadLetter.To != "drop",
		Sync: map[string]spool.SyncMode{
			"each":     spool.SyncEach,
			"interval": spool.SyncInterval,
			"never":    spool.SyncNever,
		}[b.Sync],
		SyncInterval: b.SyncInterval,
		Compression: map[string]spool.Compression{
			"none": spool.None,
			"s2":   spool.S2,
			"zstd": spool.Zstd,
		}[b.Compression],
		MinFree: b.MinFree,
	}
}

// stallAfter returns how long one request may take before the route counts as stalled; 0 is the engine's own idea.
func stallAfter(r *config.Route) time.Duration {
	const margin = 3 // a request that has timed out is over soon after
	if http := r.Sink.HTTP; http != nil && http.Timeout > 30*time.Second {
		return margin*http.Timeout + time.Minute
	}
	return 0
}

func deliveryOptions(d config.Delivery) relay.DeliveryOptions {
	return relay.DeliveryOptions{
		Ordering: map[string]relay.Ordering{
			"strict":  relay.OrderStrict,
			"subject": relay.OrderSubject,
			"none":    relay.OrderNone,
		}[d.Ordering],
		InFlight: d.InFlight,
		RetryMin: d.Retry.Min,
		RetryMax: d.Retry.Max,

		MaxAttempts: d.MaxAttempts,
		RateLimit:   d.RateLimit,
	}
}
