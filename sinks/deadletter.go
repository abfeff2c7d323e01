package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// DeadLetterDisk keeps dead letters in a spool of their own, where the dead commands find them. It is safe for
// concurrent use. The folder is made, and the spool opened, with the first letter: most routes never have one, and one whose
// old letters cannot be read still runs.
type DeadLetterDisk struct {
	dir  string
	opts spool.Options

	count  atomic.Int64 // letters in the spool
	taking sync.Mutex   // one Redrive or Drop at a time; taken before mu

	mu    sync.Mutex // one append at a time, since it numbers the records; and one count
	spool *spool.Spool
}

// NewDeadLetterDisk returns a store in dir, of at most maxBytes: then the oldest letters give way. It leaves minFree of the
// file system free.
func NewDeadLetterDisk(dir string, maxBytes, minFree int64, log zerolog.Logger) *DeadLetterDisk {
	s := &DeadLetterDisk{dir: dir, opts: spool.Options{
		MaxBytes: maxBytes, MinFree: minFree, Sync: spool.SyncInterval,
		OnDamage: func(d spool.Damage) {
			log.Error().Stringer("damage", d).Msg("the dead letters on disk were damaged, the rest of them is there")
		},
	}}
	if left, err := spool.Inspect(dir); err == nil { // what cannot be read is none, until it is opened
		s.count.Store(int64(left.Stats.Records))
	}
	return s
}

// errNoRoom: what fills the store are files that are done with and cannot be unlinked.
var errNoRoom = errors.New("there is no older letter to give way")

// Store implements relay.DeadLetters. The letters are fsynced when it returns: one fsync serves all lanes that wait for it. Those of an attempt
// that failed are taken out again, for they will come again: a store that fails often must not fill up with them.
func (s *DeadLetterDisk) Store(_ context.Context, letters []*relay.DeadLetter) (displaced int, err error) {
	disk, seqs, displaced, err := s.append(letters)
	if err == nil {
		err = disk.Sync()
	}
	if err == nil {
		return displaced, nil
	}
	if len(seqs) > 0 {
		disk.Settle(seqs)
		s.recount(disk)
	}
	return displaced, fmt.Errorf("dead letters in %s: %w", s.dir, err)
}

// append returns the sequence numbers of the letters that it has written.
func (s *DeadLetterDisk) append(letters []*relay.DeadLetter) (disk *spool.Spool, seqs []uint64, displaced int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool == nil {
		if s.spool, err = spool.Open(s.dir, s.opts); err != nil {
			return nil, nil, 0, err
		}
	}
	disk = s.spool
	defer func() { s.count.Store(int64(disk.Stats().Records)) }()
	records := make([]spool.Record, len(letters))
	for i, l := range letters {
		stored := l.Stored()
		stored.Seq = disk.LastSeq() + 1 + uint64(i)
		records[i] = stored.EncodeRecord()
	}
	for len(records) > 0 {
		n, err := disk.Append(records)
		for _, rec := range records[:n] {
			seqs = append(seqs, rec.Seq)
		}
		records = records[n:]
		switch {
		case errors.Is(err, spool.ErrFull):
			dropped, err := disk.DropOldest()
			if err == nil && dropped.Last == 0 {
				err = errNoRoom
			}
			if err != nil {
				return disk, seqs, displaced, err
			}
			displaced += dropped.Records
		case errors.Is(err, spool.ErrTooLarge):
			return disk, seqs, displaced, &relay.Fault{Err: err, Blocked: true} // until somebody raises dead_letter.max
		case err != nil:
			return disk, seqs, displaced, err
		}
	}
	return disk, seqs, displaced, nil
}

// Close implements relay.DeadLetters.
func (s *DeadLetterDisk) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool == nil {
		return nil
	}
	return s.spool.Close()
}

// HeaderDeadSubject is the subject that a dead letter's message came with, where the letter has another one.
const HeaderDeadSubject = "Natsrelay-Subject"

// DeadLetterNATS publishes dead letters to one subject. It is safe for concurrent use.
type DeadLetterNATS struct {
	sink    *NATS
	subject string
}

// NewDeadLetterNATS returns a store on conn, which the caller closes after it.
func NewDeadLetterNATS(conn *natsconn.Conn, cfg config.DeadLetter) *DeadLetterNATS {
	return &DeadLetterNATS{sink: NewNATS(conn, &config.NATSSink{NATS: cfg.NATS, Dedupe: true}), subject: cfg.Subject}
}

// Store implements relay.DeadLetters. The letters are confirmed by a PONG when it returns, as those of a NATS sink are. One that the
// server would never take blocks the store, since the only other way is to lose it.
func (s *DeadLetterNATS) Store(ctx context.Context, letters []*relay.DeadLetter) (displaced int, err error) {
	batch := make([]*relay.Message, len(letters))
	for i, l := range letters {
		header := l.Header()
		// A stream that keeps the letters would refuse this one for it, which nobody would hear, or do away with others, or with this one after a while.
		maps.DeleteFunc(header, func(key string, _ []string) bool { return isCommand(key) })
		header[HeaderDeadSubject] = []string{l.Message.Subject}
		batch[i] = &relay.Message{Subject: s.subject, Header: header, Data: l.Message.Data, ID: l.Message.ID, Time: l.Message.Time}
	}
	out := make([]relay.Outcome, len(batch))
	if err := s.sink.Deliver(ctx, batch, out); err != nil {
		return 0, err
	}
	for i := range out {
		switch out[i].Status {
		case relay.Refused:
			return 0, &relay.Fault{Err: fmt.Errorf("dead letter of message %s: %w", batch[i].ID, out[i].Err), Blocked: true}
		case relay.Unconfirmed:
			return 0, fmt.Errorf("dead letter of message %s was not confirmed", batch[i].ID)
		}
	}
	return 0, nil
}

// Close implements relay.DeadLetters.
func (s *DeadLetterNATS) Close(ctx context.Context) error { return s.sink.Close(ctx) }
