package spool

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

const (
	runBytes     = 64 << 10 // of records in one compressed run, unless a single one is larger: what one flipped bit can cost
	runHeader    = 8
	recordHeader = 12 // of a record in a run: length uint32, time int64
)

var errRun = errors.New("spool: compressed run does not decode")

// A codec turns runs of records into frames and back. It is not for concurrent use.
type codec struct {
	raw []byte
	enc *zstd.Encoder
	dec *zstd.Decoder
}

// appendRun appends a run of records from the front of recs, and returns how many it took. A run that compression
// does not make smaller is stored as it is, a frame for each record.
func (c *codec) appendRun(b []byte, how Compression, salt, ordinal uint32, recs []Record) ([]byte, int, error) {
	n := c.gather(recs)
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.raw)))
	kind := uint8(kindS2)
	if how == S2 {
		body := len(b)
		b = append(b, make([]byte, s2.MaxEncodedLen(len(c.raw)))...)
		b = b[:body+len(s2.Encode(b[body:], c.raw))]
	} else {
		if c.enc == nil {
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
			if err != nil {
				return nil, 0, fmt.Errorf("spool: %w", err)
			}
			c.enc = enc
		}
		kind = kindZstd
		b = c.enc.EncodeAll(c.raw, b)
	}
	if len(b)-start-frameHeader >= len(c.raw) {
		b = b[:start]
		for i := range recs[:n] {
			b = appendRecord(b, salt, ordinal+uint32(i), &recs[i])
		}
		return b, n, nil
	}
	putHeader(b[start:], salt, kind, len(b)-start-frameHeader, ordinal, recs[0].Time)
	putCRC(b[start:])
	return b, n, nil
}

func appendRecord(b []byte, salt, ordinal uint32, r *Record) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	putHeader(b[start:], salt, kindRecord, len(r.Data), ordinal, r.Time)
	b = append(b, r.Data...)
	putCRC(b[start:])
	return b
}

// gather puts records with consecutive sequence numbers one after the other into c.raw, up to runBytes.
func (c *codec) gather(recs []Record) int {
	if cap(c.raw) > 4*runBytes {
		c.raw = nil
	}
	c.raw = c.raw[:0]
	for i := range recs {
		r := &recs[i]
		if i > 0 && (r.Seq != recs[i-1].Seq+1 || len(c.raw)+recordHeader+len(r.Data) > runBytes) {
			return i
		}
		c.raw = binary.LittleEndian.AppendUint32(c.raw, uint32(len(r.Data)))
		c.raw = binary.LittleEndian.AppendUint64(c.raw, uint64(r.Time))
		c.raw = append(c.raw, r.Data...)
	}
	return len(recs)
}

// decode appends the records of a frame that begins at sequence number seq. Their Data is newly allocated for a run, and
// for a single record the frame's own.
func (c *codec) decode(dst []Record, fr *frame, seq uint64) ([]Record, error) {
	if fr.kind == kindRecord {
		return append(dst, Record{Seq: seq, Time: fr.time, Data: fr.body}), nil
	}
	size := binary.LittleEndian.Uint32(fr.body[4:])
	if size > MaxRecord+recordHeader || uint64(size) < uint64(fr.count)*recordHeader {
		return dst, errRun
	}
	raw, err := c.expand(fr.kind, fr.body[runHeader:], int(size))
	if err != nil || len(raw) != int(size) {
		return dst, errRun
	}
	mark := len(dst)
	for i := range fr.count {
		if len(raw) < recordHeader {
			return dst[:mark], errRun
		}
		n, t := binary.LittleEndian.Uint32(raw), binary.LittleEndian.Uint64(raw[4:])
		raw = raw[recordHeader:]
		if uint64(n) > uint64(len(raw)) {
			return dst[:mark], errRun
		}
		dst = append(dst, Record{Seq: seq + uint64(i), Time: int64(t), Data: raw[:n:n]})
		raw = raw[n:]
	}
	if len(raw) > 0 {
		return dst[:mark], errRun
	}
	return dst, nil
}

func (c *codec) expand(kind uint8, src []byte, size int) ([]byte, error) {
	if kind == kindS2 {
		if n, err := s2.DecodedLen(src); err != nil || n != size {
			return nil, errRun
		}
		return s2.Decode(make([]byte, size), src)
	}
	if c.dec == nil {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxRecord+recordHeader))
		if err != nil {
			return nil, err
		}
		c.dec = dec
	}
	return c.dec.DecodeAll(src, make([]byte, 0, size))
}

func (c *codec) close() {
	if c.enc != nil {
		_ = c.enc.Close()
	}
	if c.dec != nil {
		c.dec.Close()
	}
	c.enc, c.dec = nil, nil
}
