package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A frame is what one record, or a compressed run of records, is wrapped in:
//
//	 0  crc      uint32  CRC32C of all that follows, to the end of the body
//	 4  salt     uint32  the segment's
//	 8  length   uint32  of the body; the top 4 bits are the kind
//	12  ordinal  uint32  of the (first) record in the segment: its sequence number minus the segment's first
//	16  time     int64   of the (first) record
//	24  body
//
// All numbers are little-endian. The salt is random for each segment. It marks where a frame may begin, for a reader that
// has lost its place: no payload can contain it but by chance, so that such a reader never sums up megabytes at each of
// thousands of forged headers. And being under the CRC it keeps stale bytes of an older file from passing.
//
// The ordinals tell exactly which records a hole has cost.
const (
	frameHeader = 24
	maxBody     = 1<<28 - 1
	maxCount    = 1 << 24 // a segment is sealed once it has so many records, in compressed runs of empty ones too

	kindRecord = 1 // the body is the record's data
	kindS2     = 2 // runs: the body is count uint32, size uint32, and the compressed run of that size
	kindZstd   = 3
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frame struct {
	off     int64 // in the file
	kind    uint8
	ordinal uint32
	count   uint32 // of records
	time    int64
	body    []byte // valid until the scanner's next step
}

// damage is that of a frame whose body does not decode.
func (fr *frame) damage(err error) Damage {
	return Damage{Cause: Damaged, Offset: fr.off, Bytes: fr.size(), Err: err}
}

func (fr *frame) size() int64 { return int64(frameHeader + len(fr.body)) }

// putHeader writes all of a frame's header but the CRC, which putCRC adds once the body is there. The header goes first: a
// checksum over bytes that were stored just now waits for them (8 of 240 ns a KiB).
func putHeader(f []byte, salt uint32, kind uint8, length int, ordinal uint32, time int64) {
	le := binary.LittleEndian
	le.PutUint32(f[4:], salt)
	le.PutUint32(f[8:], uint32(length)|uint32(kind)<<28)
	le.PutUint32(f[12:], ordinal)
	le.PutUint64(f[16:], uint64(time))
}

func putCRC(f []byte) { binary.LittleEndian.PutUint32(f, crc32.Checksum(f[4:], castagnoli)) }

// parse looks for a frame at the start of b. ok: it is there, whole and sound. Otherwise need > len(b) says that more bytes
// would tell, and 0 that there is no frame here.
func (fr *frame) parse(b []byte, salt uint32) (need int, ok bool) {
	if len(b) < frameHeader {
		return frameHeader, false
	}
	le := binary.LittleEndian
	length := le.Uint32(b[8:])
	need = frameHeader + int(length&maxBody)
	fr.kind = uint8(length >> 28)
	if le.Uint32(b[4:]) != salt || fr.kind < kindRecord || fr.kind > kindZstd {
		return 0, false
	}
	if len(b) < need {
		return need, false
	}
	if crc32.Checksum(b[4:need], castagnoli) != le.Uint32(b) {
		return 0, false
	}
	fr.ordinal, fr.count, fr.time = le.Uint32(b[12:]), 1, int64(le.Uint64(b[16:]))
	fr.body = b[frameHeader:need:need]
	if fr.kind != kindRecord {
		if len(fr.body) < runHeader {
			return 0, false
		}
		fr.count = le.Uint32(fr.body)
	}
	return need, fr.count > 0 && fr.count <= runBytes/recordHeader && fr.ordinal <= maxCount
}

// scanBuffer is what a scanner reads at a time. The kernel copies large pieces faster: with 64 KiB, records of 256 B cost 16 % more,
// of 16 KiB 50 % (Linux 6.18, ext4).
const scanBuffer = 512 << 10

// A scanner walks the frames of one segment, and over what is damaged between them, in constant memory (but for a frame
// that is larger than its buffer).
type scanner struct {
	fr  frame // the last one found
	gap hole  // before it

	f    io.ReaderAt
	size int // what it reads at a time
	salt uint32
	next uint32 // ordinal that the next frame should have
	end  int64  // where the frames end; may grow between calls
	off  int64  // of the first byte in win
	buf  []byte // length 0
	win  []byte // what was read and not yet used: in buf
	bad  int64  // where the present hole began; < 0: none

	pinned bool // what was found is still in use: buf must stay as it is

	tries int   // failed reads in a row
	step  int64 // how much the next skip passes over
	err   error // why something was skipped in the present hole
}

func newScanner(f io.ReaderAt, salt uint32, off, end int64) *scanner {
	return &scanner{f: f, size: scanBuffer, salt: salt, off: off, end: end, bad: -1, step: 4096}
}

// A hole is a stretch of a segment in which no frame was found.
type hole struct {
	off, bytes int64
	from       uint32 // the first ordinal that the scanner missed; what it found next says up to where
	err        error  // the disk's, if it did not give the bytes back
}

// scan goes on to the next sound frame, and leaves it in fr, and the hole before it in gap. At the end the error is io.EOF, and
// the hole is what followed the last frame. Any other error is the disk's: tell it failed, and call scan again.
func (sc *scanner) scan() error {
	for {
		need, ok := sc.fr.parse(sc.win, sc.salt)
		if need > len(sc.win) {
			filled, err := sc.fill(need)
			if err != nil {
				return err
			}
			if filled {
				continue
			}
			if need == frameHeader {
				sc.lost(len(sc.win))
				sc.found()
				return io.EOF
			}
		}
		if ok && sc.fr.ordinal >= sc.next {
			sc.found()
			sc.next = sc.fr.ordinal + sc.fr.count
			sc.use(need)
			sc.tries, sc.step = 0, 4096
			return nil
		}
		sc.lost(sc.search())
	}
}

// errPinned: the scanner must read on, and was told not to. It can be called again.
var errPinned = errors.New("spool: scanner is pinned")

// found ends a hole, if there is one, where the scanner is now.
func (sc *scanner) found() {
	sc.fr.off = sc.off
	sc.gap = hole{off: sc.off, from: sc.next, err: sc.err}
	if sc.bad >= 0 {
		sc.gap.off, sc.gap.bytes = sc.bad, sc.off-sc.bad
	}
	sc.bad, sc.err = -1, nil
}

// search returns how many bytes to pass over to get to the next place where a frame may begin.
func (sc *scanner) search() int {
	var mark [4]byte
	binary.LittleEndian.PutUint32(mark[:], sc.salt)
	if i := bytes.Index(sc.win[5:], mark[:]); i >= 0 {
		return i + 1
	}
	return len(sc.win) - 7 // the mark may begin in the last three bytes, after a CRC
}

// fill sees to it that n bytes are in the window, which has fewer; false: there are not so many before the end.
func (sc *scanner) fill(n int) (bool, error) {
	if int64(n) > sc.end-sc.off {
		return false, nil
	}
	if sc.pinned {
		return false, errPinned
	}
	size := max(n, int(min(int64(sc.size), sc.end-sc.off)))
	if cap(sc.buf) < size || cap(sc.buf) > 4*sc.size && size <= sc.size {
		sc.buf = make([]byte, 0, size)
	}
	sc.win = append(sc.buf, sc.win...)
	have := len(sc.win)
	want := int(min(int64(cap(sc.win)), sc.end-sc.off))
	got, err := sc.f.ReadAt(sc.win[have:want], sc.off+int64(have))
	sc.win = sc.win[:have+got]
	if err == io.EOF { // the file is shorter than it was said to be
		sc.end = sc.off + int64(len(sc.win))
		err = nil
	}
	if len(sc.win) >= n {
		return true, nil
	}
	return false, err
}

func (sc *scanner) use(n int) {
	sc.win = sc.win[n:]
	sc.off += int64(n)
}

// lost passes over n bytes that belong to no frame.
func (sc *scanner) lost(n int) {
	if sc.bad < 0 && n > 0 {
		sc.bad = sc.off
	}
	sc.use(n)
}

const readTries = 3

// failed counts an error of the disk. After a few in a row what cannot be read is passed over, twice as much each time: a
// dead disk costs a few dozen reads a segment, and a bad sector at most as much again as it is large.
func (sc *scanner) failed(err error) {
	if sc.tries++; sc.tries < readTries {
		return
	}
	sc.lost(len(sc.win))
	if sc.bad < 0 {
		sc.bad = sc.off
	}
	sc.err = err
	sc.off = min((sc.off+sc.step+4095)&^4095, sc.end)
	sc.step *= 2
}

// scanOn is scan for a caller with nobody to return the disk's errors to: it tries again, and then goes on behind.
func (sc *scanner) scanOn() error {
	for {
		err := sc.scan()
		if err == nil || err == io.EOF || !unreadable(err) {
			return err
		}
		sc.failed(err)
	}
}

func (h hole) damage() Damage {
	d := Damage{Cause: Damaged, Offset: h.off, Bytes: h.bytes, Err: h.err}
	switch {
	case h.err != nil:
		d.Cause = Unreadable
	case h.bytes == 0:
		d.Cause = Missing
	}
	return d
}
