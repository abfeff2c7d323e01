package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
)

// The cursor file remembers what is settled. It has four slots of 32 KiB; each holds the whole cursor at one time:
//
//	 0  magic    "nrscurs\n"
//	 8  version  uint32
//	12  crc      uint32  CRC32C of all of the slot's content but itself
//	16  length   uint32  of the slot's content, from its very beginning
//	20  sections uint32
//	24  generation uint64  the slot with the highest one counts
//	32  spool id uint64
//	40  base     uint64  all records below are settled
//	48  stored   uint64  the newest record that was fsynced
//	56  stored in uint64 the first record of its segment
//	64  last     uint64  the highest sequence number ever appended
//	72  sections: first uint64, all uint32, words uint32: the records first to first+all-1 are settled, and of those
//	    from first on as the bitmap says that follows; bit i is sequence number first+i
//
// A write goes to a slot that is neither the last one written, so that kill -9 in the middle of it costs nothing, nor the
// last one fsynced (or just being fsynced), so that a loss of power falls back no further than to that. Losing the cursor
// altogether costs duplicates, never messages.
// MaxSpan and many sections fit into a slot: it has room for twice as many bits.
const (
	cursorName  = "cursor"
	cursorMagic = "nrscurs\n"
	slotSize    = 32 << 10
	slots       = 4
	slotHeader  = 72
)

// mark is the content of one slot.
type mark struct {
	generation uint64
	spool      uint64
	base       uint64
	stored     uint64
	storedIn   uint64
	last       uint64
	sections   []section
}

type section struct {
	first uint64
	all   uint32
	words []uint64
}

func (m *mark) encode(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b[:0], make([]byte, slotHeader)...)
	n := 0
	for _, s := range m.sections {
		room := (slotSize - len(b) - 16) / 8
		if room <= 0 {
			break // these are forgotten over a restart: delivered again
		}
		words := s.words[:min(len(s.words), room)]
		b = le.AppendUint64(b, s.first)
		b = le.AppendUint32(b, s.all)
		b = le.AppendUint32(b, uint32(len(words)))
		for _, w := range words {
			b = le.AppendUint64(b, w)
		}
		n++
	}
	copy(b, cursorMagic)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[20:], uint32(n))
	le.PutUint64(b[24:], m.generation)
	le.PutUint64(b[32:], m.spool)
	le.PutUint64(b[40:], m.base)
	le.PutUint64(b[48:], m.stored)
	le.PutUint64(b[56:], m.storedIn)
	le.PutUint64(b[64:], m.last)
	le.PutUint32(b[12:], slotSum(b))
	return b
}

func slotSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}

var errSlot = errors.New("spool: cursor slot does not hold together")

func decodeMark(b []byte) (mark, error) {
	le := binary.LittleEndian
	if len(b) < slotHeader || string(b[:8]) != cursorMagic {
		return mark{}, errSlot
	}
	length := le.Uint32(b[16:])
	if length < slotHeader || int64(length) > int64(len(b)) || slotSum(b[:length]) != le.Uint32(b[12:]) {
		return mark{}, errSlot
	}
	if v := le.Uint32(b[8:]); v > version {
		return mark{}, &VersionError{File: cursorName, Version: v}
	}
	m := mark{generation: le.Uint64(b[24:]), spool: le.Uint64(b[32:]), base: le.Uint64(b[40:]),
		stored: le.Uint64(b[48:]), storedIn: le.Uint64(b[56:]), last: le.Uint64(b[64:])}
	n := le.Uint32(b[20:])
	for b = b[slotHeader:length]; n > 0; n-- {
		if len(b) < 16 || uint32(len(b)-16)/8 < le.Uint32(b[12:]) {
			return mark{}, errSlot
		}
		s := section{first: le.Uint64(b), all: le.Uint32(b[8:]), words: make([]uint64, le.Uint32(b[12:]))}
		b = b[16:]
		for i := range s.words {
			s.words[i] = le.Uint64(b[8*i:])
		}
		b = b[8*len(s.words):]
		m.sections = append(m.sections, s)
	}
	return m, nil
}

// cursorFile is guarded by Spool.settling.
type cursorFile struct {
	fs     FS
	path   string
	closed bool
	f      File // nil: not there, or no longer to be trusted; the next write makes a new one

	generation            uint64
	last, synced, syncing int // slots
	buf                   []byte
}

// load finds the newest slot. damaged: there were bytes in the file, and none of them of use.
func (c *cursorFile) load(readOnly bool) (m mark, damaged bool, err error) {
	c.last, c.synced, c.syncing = -1, -1, -1
	flag := os.O_RDWR
	if readOnly {
		flag = os.O_RDONLY
	}
	f, err := c.fs.OpenFile(c.path, flag)
	if err != nil && !readOnly && !errors.Is(err, os.ErrNotExist) {
		f, err = c.fs.OpenFile(c.path, os.O_RDONLY)
	}
	if errors.Is(err, os.ErrNotExist) {
		return mark{}, false, nil
	}
	if err != nil {
		return mark{}, false, err
	}
	c.f = f
	for i := range slots {
		b, err := readAt(f, int64(i)*slotSize, slotSize)
		if err != nil && !unreadable(err) {
			return mark{}, false, err
		}
		got, err := decodeMark(b)
		if v := (*VersionError)(nil); errors.As(err, &v) {
			return mark{}, false, err
		}
		if err != nil {
			damaged = damaged || len(b) > 0
			continue
		}
		if c.last < 0 || got.generation > m.generation {
			m, c.last, c.synced = got, i, i
		}
	}
	c.generation = m.generation
	return m, damaged && c.last < 0, nil
}

// write puts m into a free slot. It is not fsynced. After a failure the file is given up, and the next write makes another.
func (c *cursorFile) write(m *mark) error {
	c.generation++
	m.generation = c.generation
	c.buf = m.encode(c.buf)
	if c.f == nil {
		return c.create()
	}
	slot := 0
	for slot == c.last || slot == c.synced || slot == c.syncing {
		slot++
	}
	if _, err := c.f.WriteAt(c.buf, int64(slot)*slotSize); err != nil {
		c.giveUp()
		return err
	}
	c.last = slot
	return nil
}

// create makes a new cursor file of one slot under another name, and moves it over the old one; all of it durable.
func (c *cursorFile) create() error {
	tmp := c.path + ".tmp"
	f, err := createFile(c.fs, tmp)
	if errors.Is(err, os.ErrNotExist) { // the directory has vanished, and perhaps nothing is ever appended that would notice
		if err = c.fs.MkdirAll(filepath.Dir(c.path)); err == nil {
			f, err = createFile(c.fs, tmp)
		}
	}
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(c.buf, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = c.fs.Rename(tmp, c.path)
	}
	if err == nil {
		err = c.fs.SyncDir(filepath.Dir(c.path))
	}
	if err != nil {
		_ = f.Close()
		_ = c.fs.Remove(tmp)
		return err
	}
	c.f, c.last, c.synced, c.syncing = f, 0, 0, -1
	return nil
}

// look gives up a file that has been removed.
func (c *cursorFile) look() {
	if c.f != nil && unlinked(c.f) {
		c.giveUp()
	}
}

func (c *cursorFile) giveUp() {
	if c.f != nil {
		_ = c.f.Close()
		c.f = nil
	}
}
