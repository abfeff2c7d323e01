package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const fuzzSalt = 0x1234567

// sums makes the CRC of whatever looks like a frame, a header, a footer or a slot the right one, so that the fuzzer gets
// behind it.
func sums(b []byte) []byte {
	le := binary.LittleEndian
	for i := 0; i+headerSize <= len(b); i++ {
		if m := string(b[i : i+8]); m == headerMagic || m == footerMagic {
			clear(b[i+26 : i+32]) // millions of lost records only take time
			le.PutUint32(b[i+60:], crc32.Checksum(b[i:i+60], castagnoli))
		}
	}
	for i := 0; i+frameHeader <= len(b); i++ {
		end := i + frameHeader + int(le.Uint32(b[i+8:])&maxBody)
		if le.Uint32(b[i+4:]) == fuzzSalt && end <= len(b) {
			clear(b[i+14 : i+16])
			le.PutUint32(b[i:], crc32.Checksum(b[i+4:end], castagnoli))
		}
	}
	return b
}

func fuzzFrames(c Compression) (b []byte) {
	var cd codec
	recs := recRange(1, 5)
	if c == None {
		for i := range recs {
			b = appendRecord(b, fuzzSalt, uint32(i), &recs[i])
		}
		return b
	}
	for i := range recs { // so that it is worth compressing
		recs[i].Data = bytes.Repeat(recs[i].Data, 20)
	}
	b, _, err := cd.appendRun(nil, c, fuzzSalt, 0, recs)
	if err != nil {
		panic(err)
	}
	return b
}

// FuzzFrame: what a decoder makes of bytes whose CRC is right and whose content is not.
func FuzzFrame(f *testing.F) {
	for c := range Zstd + 1 {
		f.Add(fuzzFrames(c))
	}
	var cd codec
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr frame
		need, ok := fr.parse(sums(b), fuzzSalt)
		if !ok {
			return
		}
		if need > len(b) || fr.count == 0 {
			t.Fatalf("frame of %d bytes in %d, %d records", need, len(b), fr.count)
		}
		if fr.kind != kindRecord && binary.LittleEndian.Uint32(fr.body[4:]) > 1<<20 {
			return // slow, and nothing else
		}
		recs, err := cd.decode(nil, &fr, 7)
		if err != nil {
			return
		}
		if len(recs) != int(fr.count) {
			t.Fatalf("%d records of %d", len(recs), fr.count)
		}
		for i, r := range recs {
			if r.Seq != 7+uint64(i) {
				t.Fatalf("record %d has number %d", i, r.Seq)
			}
		}
		if fr.kind == kindRecord {
			again := appendRecord(nil, fuzzSalt, fr.ordinal, &recs[0])
			if !bytes.Equal(again, b[:need]) {
				t.Fatalf("%x became %x", b[:need], again)
			}
		}
	})
}

// FuzzScanner: whatever lies between sound frames, all of them are found.
func FuzzScanner(f *testing.F) {
	frames := fuzzFrames(None)
	f.Add([]byte{}, []byte{})
	f.Add(frames[:30], frames[10:50])
	f.Add([]byte{0x67, 0x45, 0x23, 1}, bytes.Repeat([]byte{0x67, 0x45, 0x23, 1, 0xff}, 20))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 1<<16 {
			return
		}
		var file []byte
		recs := recRange(1, 4)
		for i := range recs {
			file = appendRecord(file, fuzzSalt, uint32(i), &recs[i])
			file = append(file, [][]byte{a, b}[i%2]...)
		}
		sc := newScanner(bytes.NewReader(file), fuzzSalt, 0, int64(len(file)))
		var found []Record
		var covered int64
		for {
			err := sc.scanOn()
			covered += sc.gap.bytes
			if err != nil {
				break
			}
			fr := &sc.fr
			covered += fr.size()
			found = append(found, Record{uint64(fr.ordinal) + 1, fr.time, bytes.Clone(fr.body)})
		}
		if !slices.EqualFunc(recs, found, equal) {
			t.Fatal(cmp.Diff(recs, found))
		}
		if covered != int64(len(file)) {
			t.Fatalf("%d bytes accounted for, of %d", covered, len(file))
		}
	})
}

// FuzzSegment: a spool opens, delivers and goes on whatever is in a segment file.
func FuzzSegment(f *testing.F) {
	sg := segment{salt: fuzzSalt, first: 1, spool: 5, count: 5, firstTime: 1, lastTime: 5}
	for c := range Zstd + 1 {
		b := append(sg.header(), fuzzFrames(c)...)
		sg.end = int64(len(b))
		f.Add(append(b, sg.footer()...))
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := newSimFS(crashDir)
		fs.dirs[crashDir] = true
		n := &inode{links: 1, data: sums(bytes.Clone(b))}
		fs.names[filepath.Join(crashDir, segmentName(1))] = n
		openAndGoOn(t, fs)
	})
}

// FuzzCursor: the same for the cursor; and a slot that decodes is encoded to the same again.
func FuzzCursor(f *testing.F) {
	m := mark{generation: 3, spool: 5, base: 4, stored: 30, storedIn: 20, last: 40, sections: []section{{first: 5, words: []uint64{1, 2}}, {first: 200, all: 7}}}
	f.Add(m.encode(nil))
	m.sections = nil
	f.Add(m.encode(nil))
	base, _ := small(&testing.T{}, None, true)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < slotHeader || len(b) > slotSize {
			return
		}
		le := binary.LittleEndian
		copy(b, cursorMagic)
		le.PutUint32(b[16:], uint32(len(b)))
		le.PutUint32(b[12:], slotSum(b))
		m, err := decodeMark(b)
		if err == nil {
			again, err := decodeMark(m.encode(nil))
			if d := cmp.Diff(m, again, cmp.AllowUnexported(mark{}, section{})); d != "" || err != nil {
				t.Fatal(d, err)
			}
		}
		fs := base.killed()
		n := fs.names[filepath.Join(crashDir, cursorName)]
		n.data = bytes.Clone(b)
		openAndGoOn(t, fs)
	})
}

func openAndGoOn(t *testing.T, fs *simFS) {
	s, err := Open(crashDir, Options{FS: fs, MaxBytes: 1 << 30, Sync: SyncNever, SyncInterval: time.Hour})
	if v := (*VersionError)(nil); errors.As(err, &v) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st := s.Stats()
	n := 0
	for from := uint64(0); ; {
		recs, err := s.Read(from, 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		n += len(recs)
		if from = recs[len(recs)-1].Seq + 1; from == 0 {
			return
		}
	}
	if n+s.Stats().Corrupt < st.Records {
		t.Fatalf("%d records read, %+v", n, st)
	}
	if s.LastSeq() < 1<<62 {
		mustAppend(t, s, rec(s.LastSeq()+1))
	}
}
