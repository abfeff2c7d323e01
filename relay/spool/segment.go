package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment file is a header, written twice, then frames, then, once no more will come, a footer. Its records have
// consecutive sequence numbers: a gap in what is appended begins a new segment. So the file's name, the header and the
// footer say exactly which records it holds, without a look at them.
//
//	header                              footer
//	 0  magic      "nrspool\n"           0  magic     "nrspend\n"
//	 8  version    uint32                8  version   uint32
//	12  salt       uint32               12  salt      uint32
//	16  first      uint64               16  first     uint64
//	24  spool id   uint64               24  last      uint64
//	32  prev first uint64               32  frames end at, int64
//	40  prev last  uint64               40  time of the first record, int64
//	48  created    int64                48  time of the last record, int64
//	56  0                               56  0
//	60  crc        uint32               60  crc       uint32
//
// prev: the segment before this one when this one was begun, so that a segment that has lost its end is noticed.
// Magic, version and crc stay where they are in every version to come.
const (
	version     = 1
	headerSize  = 64
	footerSize  = 64
	framesStart = 2 * headerSize

	headerMagic = "nrspool\n"
	footerMagic = "nrspend\n"
	suffix      = ".seg"
)

// segment is one file and what is known of it. All fields are guarded by Spool.mu, except that those of the active
// segment are written only by whoever holds Spool.appending too.
type segment struct {
	path      string
	salt      uint32
	first     uint64
	spool     uint64
	prevFirst uint64
	prevLast  uint64
	firstTime int64
	lastTime  int64

	count  uint32 // of records, lost ones included
	end    int64  // of the frames
	size   int64  // of the file
	sealed bool   // has a footer
	gone   bool   // no longer in the list: settled, or replaced by others

	done []uint64 // bitmap of the settled ones; may be shorter than count
	low  uint32   // all ordinals below are settled: ones in done
	live int      // unsettled records

	f         File   // open for writing until all of it is durable
	durable   uint32 // records that an fsync has confirmed, of the file and of its name
	safeEnd   int64  // where these end
	unlinked  bool   // its file has been removed
	broken    error  // nothing in it can be read: its file is moved aside, not removed
	abandoned bool   // a write or an fsync failed: never written or fsynced again
}

// dirty: something in it is not durable, or its file has still to be closed.
func (sg *segment) dirty() bool {
	return sg.durable < sg.count || sg.f != nil && (sg.sealed || sg.abandoned)
}

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, suffix) }

// parseName is the inverse of segmentName.
func parseName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0
}

func (sg *segment) name() string { return filepath.Base(sg.path) }

// last is the sequence number of the last record. A segment without records is never in the list.
func (sg *segment) last() uint64 { return sg.first + uint64(sg.count) - 1 }

func (sg *segment) isSettled(ordinal uint32) bool {
	w := int(ordinal / 64)
	return w < len(sg.done) && sg.done[w]&(1<<(ordinal%64)) != 0
}

// grow adds records, whose frames took so many bytes at the end of the file.
func (sg *segment) grow(recs []Record, bytes int64) {
	sg.count += uint32(len(recs))
	sg.live += len(recs)
	sg.size += bytes
	sg.end = sg.size
	sg.lastTime = recs[len(recs)-1].Time
}

// settle marks one record, and reports whether that is news.
func (sg *segment) settle(ordinal uint32) bool {
	if ordinal >= sg.count || sg.isSettled(ordinal) {
		return false
	}
	for int(ordinal/64) >= len(sg.done) {
		sg.done = append(sg.done, 0)
	}
	sg.done[ordinal/64] |= 1 << (ordinal % 64)
	sg.live--
	sg.raiseLow()
	return true
}

func (sg *segment) raiseLow() {
	for w := int(sg.low / 64); w < len(sg.done); w++ {
		ones := bits.TrailingZeros64(^(sg.done[w] >> (sg.low % 64)))
		sg.low += uint32(ones)
		if sg.low%64 != 0 || ones == 0 {
			return
		}
	}
}

// settleBelow marks all ordinals under n.
func (sg *segment) settleBelow(n uint32) {
	n = min(n, sg.count)
	for int(n+63)/64 > len(sg.done) {
		sg.done = append(sg.done, 0)
	}
	for w := range n / 64 {
		sg.done[w] = ^uint64(0)
	}
	if n%64 != 0 {
		sg.done[n/64] |= 1<<(n%64) - 1
	}
	sg.raiseLow()
	sg.recount()
}

// cut takes the records from ordinal n on out of the segment.
func (sg *segment) cut(n uint32) {
	if n >= sg.count {
		return
	}
	sg.count = n
	sg.low = min(sg.low, n)
	words := int(n+63) / 64
	if len(sg.done) > words {
		sg.done = sg.done[:words]
	}
	if n%64 != 0 && len(sg.done) == words {
		sg.done[words-1] &= 1<<(n%64) - 1
	}
	sg.recount()
}

func (sg *segment) recount() {
	sg.live = int(sg.count)
	for _, word := range sg.done {
		sg.live -= bits.OnesCount64(word)
	}
}

func (sg *segment) header() []byte {
	b := make([]byte, headerSize, framesStart)
	copy(b, headerMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], sg.salt)
	le.PutUint64(b[16:], sg.first)
	le.PutUint64(b[24:], sg.spool)
	le.PutUint64(b[32:], sg.prevFirst)
	le.PutUint64(b[40:], sg.prevLast)
	le.PutUint64(b[48:], uint64(sg.firstTime))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return append(b, b...)
}

func (sg *segment) footer() []byte {
	b := make([]byte, footerSize)
	copy(b, footerMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], sg.salt)
	le.PutUint64(b[16:], sg.first)
	le.PutUint64(b[24:], sg.last())
	le.PutUint64(b[32:], uint64(sg.end))
	le.PutUint64(b[40:], uint64(sg.firstTime))
	le.PutUint64(b[48:], uint64(sg.lastTime))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// sound reports whether b is a header or a footer by its magic and CRC. One of a newer version is an error.
func sound(b []byte, magic, name string) (bool, error) {
	if len(b) != headerSize || string(b[:8]) != magic ||
		crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]) {
		return false, nil
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > version {
		return false, &VersionError{File: name, Version: v}
	}
	return true, nil
}

// errNoHeader: not even the salt of a segment could be made out.
var errNoHeader = errors.New("spool: segment without a sound header")

// open reads what header and footer say into sg, whose path and first are known. A footer that is missing or damaged
// leaves sealed false: the caller must scan. A lost header costs nothing as long as the salt can be had from elsewhere.
func (sg *segment) open(f File) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	sg.size, sg.end, sg.count = size, size, 0
	head, err := readAt(f, 0, framesStart+frameHeader)
	if err != nil {
		return err
	}
	foot, err := readAt(f, max(size-footerSize, 0), footerSize)
	if err != nil {
		return err
	}
	known, err := sg.parseHeader(head)
	if err != nil {
		return err
	}
	sealed, err := sg.parseFooter(foot)
	if err != nil || known || sealed {
		return err
	}
	if len(head) == framesStart+frameHeader { // the first frame knows the salt too
		sg.salt = binary.LittleEndian.Uint32(head[framesStart+4:])
		sc := newScanner(f, sg.salt, framesStart, size)
		if sc.scan() == nil && sc.fr.off == framesStart {
			sg.firstTime = sc.fr.time
			return nil
		}
	}
	return errNoHeader
}

func (sg *segment) parseHeader(b []byte) (bool, error) {
	le := binary.LittleEndian
	for i := 0; i+headerSize <= min(len(b), framesStart); i += headerSize {
		h := b[i : i+headerSize]
		ok, err := sound(h, headerMagic, sg.name())
		if err != nil {
			return false, err
		}
		if ok && le.Uint64(h[16:]) == sg.first {
			sg.salt = le.Uint32(h[12:])
			sg.spool = le.Uint64(h[24:])
			sg.prevFirst, sg.prevLast = le.Uint64(h[32:]), le.Uint64(h[40:])
			sg.firstTime = int64(le.Uint64(h[48:]))
			return true, nil
		}
	}
	return false, nil
}

func (sg *segment) parseFooter(b []byte) (bool, error) {
	le := binary.LittleEndian
	ok, err := sound(b, footerMagic, sg.name())
	if !ok || err != nil {
		return false, err
	}
	last, end := le.Uint64(b[24:]), int64(le.Uint64(b[32:]))
	if le.Uint64(b[16:]) != sg.first || last < sg.first || last-sg.first >= 2*maxCount || end != sg.size-footerSize {
		return false, nil
	}
	sg.salt = le.Uint32(b[12:])
	sg.count, sg.end, sg.sealed = uint32(last-sg.first+1), end, true
	sg.firstTime, sg.lastTime = int64(le.Uint64(b[40:])), int64(le.Uint64(b[48:]))
	return true, nil
}

// readAt reads up to n bytes; fewer only at the end of the file.
func readAt(f io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b[:got], nil
}
