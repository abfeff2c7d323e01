// Package spool is the disk of one route's buffer: a queue of byte records in segment files, in the order of their
// sequence numbers. Records go in at the end, are read in order, and are settled in any order; a segment all of whose
// records are settled is unlinked.
//
// What it is for: whatever was appended is there after kill -9; whatever was synced is there after a loss of power;
// damage to the files costs the damaged records alone, is reported, and never keeps the spool from opening.
// docs/spool.md draws the files byte by byte and gives the argument for each of these.
//
// What it must not know: messages, NATS, HTTP, routes, configuration, logging. It calls nobody but its FS and
// Options.OnDamage.
package spool

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"
)

const (
	// MaxRecord is the most bytes of Data that a record may have. NATS allows a payload of 64 MiB at most; headers come on top.
	MaxRecord = 80 << 20
	// MaxSpan is how far beyond the oldest unsettled sequence number a settled one is still remembered over a restart.
	// Settle takes numbers beyond it too, but after a restart their records are delivered again.
	MaxSpan = 128 << 10
)

var (
	ErrFull     = errors.New("spool: full")                           // Options.MaxBytes
	ErrLowSpace = errors.New("spool: the file system is almost full") // Options.MinFree, or the disk itself: no space, quota
	ErrTooLarge = errors.New("spool: record too large")               // more than MaxRecord, or than MaxBytes holds at all
	ErrOrder    = errors.New("spool: sequence number out of order")   // a bug of the caller; nothing was written
	ErrClosed   = errors.New("spool: closed")
)

// A VersionError says that a file was written by a newer version of this package. Nothing in the directory was touched.
type VersionError struct {
	File    string
	Version uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d, this program knows up to %d: it was left untouched; run the newer program, or move the file away",
		e.File, e.Version, version)
}

// A Record is one entry of the spool.
type Record struct {
	Seq  uint64 // at least 1
	Time int64  // of arrival, Unix nanoseconds
	Data []byte
}

// SyncMode says when what was appended is fsynced.
type SyncMode uint8

const (
	SyncInterval SyncMode = iota // by the spool's own goroutine, every Options.SyncInterval
	SyncEach                     // before Append returns
	SyncNever                    // only when Sync is called
)

// Compression of what is appended; what is there already stays as it is, and is read whatever the option says.
type Compression uint8

const (
	None Compression = iota
	S2
	Zstd
)

// Options of a spool. All of them may differ from one Open to the next.
type Options struct {
	FS           FS            // nil = the operating system's
	MaxBytes     int64         // bound of all segment files together; mandatory
	SegmentBytes int64         // 0 = MaxBytes/8, at least 1 MiB, at most 64 MiB
	MinFree      int64         // stop writing before the file system has less; 0 = do not look
	Sync         SyncMode      // of the data; the cursor is fsynced every SyncInterval in any mode but SyncNever
	SyncInterval time.Duration // 0 = 200 ms
	Compression  Compression

	// OnDamage, if set, is told of everything that was lost or cut off. It is called from whatever goroutine met it,
	// from Open too, while no lock is held that a call into the spool needs. It must not block for long.
	OnDamage func(Damage)

	readBytes int // 0 = scanBuffer; tests let records lie across the reads
}

// Cause says what kind of damage it was.
type Cause uint8

const (
	Damaged    Cause = iota // the bytes are there, and wrong
	Missing                 // a file, or the end of it, is gone
	Unreadable              // the disk does not give the bytes back
	Unsynced                // a failed write or fsync, and the records could not be read back to be written anew
	Torn                    // an end of file that was being written when the process or the machine died: no record that counted as stored
	Forgotten               // the cursor is damaged: records that were settled will be read again
)

func (c Cause) String() string {
	return [...]string{"damaged", "missing", "unreadable", "unsynced", "torn", "forgotten"}[c]
}

// Damage is one place where something was lost.
type Damage struct {
	Cause   Cause
	File    string // base name
	Offset  int64  // where in the file
	Bytes   int64  // how much of it
	Records int    // unsettled records lost
	First   uint64 // the sequence numbers lost, all of First to Last that were not settled; 0 if Records is 0
	Last    uint64
	Aside   string // path of the copy of the bytes in damaged/, "" if none was made
	Err     error  // the disk's own words, if it had any
}

func (d Damage) String() string {
	s := fmt.Sprintf("%s: %d bytes at %d %s, %d records lost", d.File, d.Bytes, d.Offset, d.Cause, d.Records)
	if d.Cause == Forgotten {
		s = d.File + ": damaged, no records lost, what has been delivered may come again"
	}
	if d.Records > 0 {
		s += fmt.Sprintf(" (sequence %d to %d)", d.First, d.Last)
	}
	if d.Aside != "" {
		s += ", set aside in " + d.Aside
	}
	if d.Err != nil {
		s += ": " + d.Err.Error()
	}
	return s
}

// Dropped says what DropOldest gave up.
type Dropped struct {
	First, Last uint64 // of the segment
	Records     int    // that were not settled
	Bytes       int64  // of file
}

// Stats is what a spool holds now.
type Stats struct {
	Records   int       // unsettled
	Bytes     int64     // of file that the unsettled records take: each segment's in proportion of its unsettled records
	FileBytes int64     // of all segment files: what MaxBytes bounds
	First     uint64    // oldest unsettled sequence number, 0 if there is none
	Last      uint64    // newest sequence number in a segment, 0 if there is none
	Oldest    time.Time // arrival of the first record of the segment that First is in: First's own, or at most a segment's worth earlier
	Newest    time.Time // arrival of the last record appended; zero if there is no segment
	Segments  int
	Corrupt   int   // records lost to damage since Open
	Err       error // why the last sync of the data or write of the cursor failed; nil once one has succeeded
}

// Spool is an open spool. Append and Read are meant to be called by one goroutine, the keeper of the buffer; all
// methods may be called concurrently.
//
// Five locks, taken in this order: appending or reading, syncing, settling, mu. Files are read, written and synced without mu, so
// that Stats never waits for a disk. What is guarded by mu and written with another lock held too may be read with
// either.
type Spool struct {
	fs       FS
	dir      string
	o        Options
	readOnly bool

	reading   sync.Mutex // the reader
	reader    reader
	appending sync.Mutex // the active segment, and all else that writes segments
	writer    writer
	syncing   sync.Mutex // the fsync of the cursor's file
	settling  sync.Mutex // the cursor's file, and what unlinks segments
	cursor    cursorFile
	aside     asideDir

	mu       sync.Mutex
	segs     []*segment // by sequence number; every one has records, and unsettled ones unless it is active
	active   *segment   // the last of segs, or nil
	doomed   []*segment // settled, but could not be unlinked
	ghosts   []*segment // settled, but their removal is not durable
	id       uint64     // of this spool: a cursor with another one is not ours
	last     uint64     // highest sequence number ever appended
	stored   uint64     // newest record that is durable, as are all before it,
	storedIn uint64     // and the first of its segment
	bytes    int64      // of all files, doomed ones included
	corrupt  int
	reports  []Damage
	closed   bool

	newNames    bool // the directory has entries that are not durable
	cursorDirty bool // written since it was last fsynced
	cursorErr   error
	syncErr     error
	written     uint64 // appends so far
	synced      uint64 // as many of them are durable
	round       *round // the sync that is under way

	stop chan struct{}
	done sync.WaitGroup
}

// LastSeq is the highest sequence number ever appended, as far as is known: the next one must be higher.
func (s *Spool) LastSeq() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Stats says what the spool holds. It does not touch the disk.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{FileBytes: s.bytes, Segments: len(s.segs), Corrupt: s.corrupt, Err: errors.Join(s.syncErr, s.cursorErr)}
	for _, sg := range s.segs {
		if sg.live == 0 {
			continue
		}
		if st.First == 0 {
			st.First = sg.first + uint64(sg.low)
			st.Oldest = time.Unix(0, sg.firstTime)
		}
		st.Records += sg.live
		st.Bytes += int64(float64(sg.size) * float64(sg.live) / float64(sg.count))
	}
	if n := len(s.segs); n > 0 {
		st.Last = s.segs[n-1].last()
		st.Newest = time.Unix(0, s.segs[n-1].lastTime)
	}
	return st
}

// find returns the segment that holds seq, nil if none does. mu is held.
func (s *Spool) find(seq uint64) *segment {
	i := sort.Search(len(s.segs), func(i int) bool { return s.segs[i].last() >= seq })
	if i == len(s.segs) || s.segs[i].first > seq {
		return nil
	}
	return s.segs[i]
}

// index is where in the list a segment is that begins with seq, or belongs. mu is held.
func (s *Spool) index(seq uint64) int {
	return sort.Search(len(s.segs), func(i int) bool { return s.segs[i].first >= seq })
}

// tell calls OnDamage with what has gathered. No lock is held.
func (s *Spool) tell() {
	s.mu.Lock()
	reports := s.reports
	s.reports = nil
	s.mu.Unlock()
	if s.o.OnDamage == nil {
		return
	}
	for _, d := range reports {
		s.o.OnDamage(d)
	}
}
