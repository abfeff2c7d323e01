package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What follows is for the files of a relay that is stopped. The caller holds the lock of the state directory.

// Report is what Inspect, Verify and Repair found.
type Report struct {
	Stats
	Files  []SegmentInfo
	Damage []Damage
}

// SegmentInfo is one segment of a Report.
type SegmentInfo struct {
	File        string
	First, Last uint64
	Unsettled   int
	Bytes       int64
	Sealed      bool
}

// Inspect says what is in dir, as far as Open would find out, and changes nothing.
func Inspect(dir string) (Report, error) {
	return inspect(dir, Options{}, true, func(*Spool) error { return nil })
}

// Verify reads every byte of the segments in dir, and changes nothing. Damage to records that are settled counts as
// damage, with no records lost. progress may be nil; it is called every few hundred KiB.
func Verify(ctx context.Context, dir string, progress func(done, total int64)) (Report, error) {
	return verify(ctx, dir, Options{}, progress)
}

func verify(ctx context.Context, dir string, o Options, progress func(done, total int64)) (Report, error) {
	return inspect(dir, o, true, func(s *Spool) error {
		_, err := s.verifyAll(ctx, progress)
		return err
	})
}

// Repair opens the spool as a start of the relay would, and then writes every damaged segment anew, without the damage,
// which is kept in damaged/. Its report is that of the damage found; a Verify afterwards finds none.
func Repair(ctx context.Context, dir string, progress func(done, total int64)) (Report, error) {
	return repair(ctx, dir, Options{}, progress)
}

func repair(ctx context.Context, dir string, o Options, progress func(done, total int64)) (Report, error) {
	return inspect(dir, o, false, func(s *Spool) error {
		bad, err := s.verifyAll(ctx, progress)
		if err != nil {
			return err
		}
		s.appending.Lock()
		defer s.appending.Unlock()
		for _, sg := range bad {
			if sg.gone {
				continue
			}
			if err := s.rewrite(sg, 0, framesStart, Damaged); err != nil {
				return err
			}
		}
		return nil
	})
}

// inspect opens the spool, lets fn work on it, and reports.
func inspect(dir string, o Options, readOnly bool, fn func(*Spool) error) (r Report, err error) {
	o.OnDamage = func(d Damage) { r.Damage = append(r.Damage, d) }
	o.MaxBytes = math.MaxInt64
	if _, err := os.Stat(dir); err != nil && o.FS == nil {
		return r, err
	}
	s, err := open(dir, o, readOnly)
	if err != nil {
		return r, fmt.Errorf("open spool %s: %w", dir, err)
	}
	err = fn(s)
	r.Stats = s.Stats()
	for _, sg := range s.segs {
		r.Files = append(r.Files, SegmentInfo{sg.name(), sg.first, sg.last(), sg.live, sg.size, sg.sealed})
	}
	return r, errors.Join(err, s.Close())
}

// verifyAll scans all segments, and returns those with damage.
func (s *Spool) verifyAll(ctx context.Context, progress func(done, total int64)) (bad []*segment, err error) {
	s.mu.Lock()
	segs := slices.Clone(s.segs)
	s.mu.Unlock()
	var done, total int64
	for _, sg := range segs {
		total += sg.size
	}
	for _, sg := range segs {
		tick := func(off int64) error {
			if progress != nil {
				progress(done+off, total)
			}
			return ctx.Err()
		}
		damaged, err := s.verifySegment(sg, tick)
		if err != nil {
			return nil, err
		}
		if damaged {
			bad = append(bad, sg)
		}
		done += sg.size
		if err := tick(0); err != nil {
			return nil, err
		}
	}
	return bad, nil
}

const tickBytes = 256 << 10 // verified between two calls of progress

func (s *Spool) verifySegment(sg *segment, tick func(off int64) error) (damaged bool, err error) {
	report := func(from, to uint32, d Damage) {
		damaged = true
		d.Aside = s.setAside(sg, d)
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.lose(sg, from, to, d) && d.Bytes > 0 {
			d.File = sg.name()
			s.reports = append(s.reports, d)
		}
	}
	defer s.tell()
	f, err := s.fs.OpenFile(sg.path, os.O_RDONLY)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || unreadable(err) {
			report(0, sg.count, Damage{Cause: Missing, Err: err})
			return false, nil // and nothing to write anew
		}
		return false, err
	}
	defer f.Close()
	sc := newScanner(f, sg.salt, framesStart, sg.end)
	for shown := int64(0); ; {
		err := sc.scanOn()
		fr, h := &sc.fr, &sc.gap
		if err != nil && err != io.EOF {
			return damaged, err
		}
		upto := fr.ordinal
		if err == io.EOF {
			upto = sg.count
		}
		if upto > h.from || h.bytes > 0 {
			report(h.from, upto, h.damage())
		}
		if err == io.EOF {
			return damaged, nil
		}
		if _, err := s.reader.codec.decode(nil, fr, 1); err != nil {
			report(fr.ordinal, fr.ordinal+fr.count, fr.damage(err))
		}
		if sc.off-shown >= tickBytes {
			shown = sc.off
			if err := tick(shown); err != nil {
				return damaged, err
			}
		}
	}
}

// Walk calls fn with the unsettled records of dir from a sequence number on, in order, until fn returns an error or ctx
// ends, and changes nothing. Damaged records, and what the disk does not give back, are left out. Data is valid until fn returns.
func Walk(ctx context.Context, dir string, from uint64, fn func(Record) error) error {
	return walk(ctx, dir, Options{}, from, fn)
}

func walk(ctx context.Context, dir string, o Options, from uint64, fn func(Record) error) error {
	s, err := open(dir, o, true)
	if err != nil {
		return fmt.Errorf("open spool %s: %w", dir, err)
	}
	defer s.Close()
	var recs []Record
	for {
		recs, err = s.Read(from, 1<<20, recs[:0])
		if unreadable(err) && ctx.Err() == nil {
			continue // after a few attempts it passes over what cannot be read
		}
		if err != nil || len(recs) == 0 {
			return err
		}
		for _, r := range recs {
			if err := errors.Join(ctx.Err(), fn(r)); err != nil {
				return err
			}
		}
		from = recs[len(recs)-1].Seq + 1
	}
}

// Remove deletes the spool in dir with all that is in it, whatever version wrote it. Files that are not the spool's stay,
// and then so does dir.
func Remove(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range names {
		name := strings.TrimSuffix(e.Name(), tmpSuffix)
		if _, ok := parseName(name); ok || name == cursorName {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	errs = append(errs, os.RemoveAll(filepath.Join(dir, asideName)))
	errs = append(errs, osFS{}.SyncDir(dir)) // a loss of power must not bring some of them back
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if rest, err := os.ReadDir(dir); err != nil || len(rest) > 0 {
		return err
	}
	return os.Remove(dir)
}
