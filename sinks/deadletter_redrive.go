package sinks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// What becomes of dead letters on disk later on.

// redriveBytes is how much is read at a time.
const redriveBytes = 256 << 10

// A Redrive moves dead letters back to where they came from.
type Redrive struct {
	Which relay.Selection
	// Put takes over the messages that the letters were. It returns nil when they are safe; how many it has taken does not matter then, since
	// those of an attempt that failed are put again.
	Put func(ctx context.Context, batch []*relay.Stored) error
	// Progress is told how many letters have been looked at, of how many.
	Progress func(done, total int)
}

// Redrive returns how many letters it has moved. A letter is removed once its message is safe; if the process is killed in between it
// is in both places. Letters that come meanwhile stay: an endpoint that refuses them still would make new ones of them for ever.
func (s *DeadLetterDisk) Redrive(ctx context.Context, r Redrive) (moved int, err error) {
	s.taking.Lock()
	defer s.taking.Unlock()
	disk, err := s.existing()
	if err != nil || disk == nil {
		return 0, err
	}
	total, seen, last := disk.Stats().Records, 0, disk.LastSeq()
	for next := uint64(0); r.Which.Limit == 0 || moved < r.Which.Limit; {
		records, err := disk.Read(next, redriveBytes, nil)
		records = slices.DeleteFunc(records, func(rec spool.Record) bool { return rec.Seq > last })
		if err = errors.Join(err, ctx.Err()); err != nil || len(records) == 0 {
			return moved, err
		}
		n, err := r.move(ctx, disk, records, moved)
		s.recount(disk)
		moved += n
		if err != nil {
			return moved, err
		}
		seen += len(records)
		next = records[len(records)-1].Seq + 1
		r.Progress(seen, max(seen, total))
	}
	return moved, nil
}

// move moves the wanted ones of the records, and returns how many those were. So many have been moved before.
func (r *Redrive) move(ctx context.Context, disk *spool.Spool, records []spool.Record, before int) (int, error) {
	var batch []*relay.Stored
	var seqs []uint64
	for _, rec := range records {
		if r.Which.Limit > 0 && before+len(batch) == r.Which.Limit {
			break
		}
		letter, err := relay.DecodeRecord(rec)
		if err != nil {
			return 0, err
		}
		if !r.Which.Wants(letter) {
			continue
		}
		letter.Revive()
		batch, seqs = append(batch, letter), append(seqs, rec.Seq)
	}
	if len(batch) == 0 {
		return 0, nil
	}
	if err := r.Put(ctx, batch); err != nil {
		return 0, err
	}
	disk.Settle(seqs)
	return len(batch), nil
}

// existing opens the spool if it is there; nil: it is not.
func (s *DeadLetterDisk) existing() (*spool.Spool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool != nil {
		return s.spool, nil
	}
	if _, err := os.Stat(s.dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	opened, err := spool.Open(s.dir, s.opts)
	if err != nil {
		return nil, fmt.Errorf("dead letters in %s: %w", s.dir, err)
	}
	s.spool = opened
	return opened, nil
}

// Drop deletes all letters, and returns how many those were, as far as that is known.
func (s *DeadLetterDisk) Drop() (int, error) {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.Stored()
	if s.spool != nil {
		if err := s.spool.Close(); err != nil {
			return 0, err
		}
		s.spool = nil
	}
	if err := spool.Remove(s.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	s.count.Store(0)
	return n, nil
}

// Stored returns how many letters there are.
func (s *DeadLetterDisk) Stored() int { return int(s.count.Load()) }

// recount notes how many letters there are now, unless they have been dropped with their spool.
func (s *DeadLetterDisk) recount(disk *spool.Spool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool == disk {
		s.count.Store(int64(disk.Stats().Records))
	}
}
