package spool

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const childEnv = "NATSRELAY_SPOOL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child appends and settles until it is killed, and says so: "+ n" n is in, "- n" n is about to be settled, "= n" it is.
func child(dir string) {
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	s, err := Open(dir, Options{MaxBytes: 1 << 30, SegmentBytes: 50_000, Compression: Compression(rng.IntN(3)),
		OnDamage: func(d Damage) { fmt.Println("! ", d) }})
	if err != nil {
		fmt.Println("!", err)
		return
	}
	var live []uint64
	for {
		last := s.LastSeq()
		recs := recRange(last+1, last+1+rng.Uint64N(20))
		n, err := s.Append(recs)
		if err != nil {
			fmt.Println("!", err)
			return
		}
		var b strings.Builder
		for _, r := range recs[:n] {
			fmt.Fprintln(&b, "+", r.Seq)
			live = append(live, r.Seq)
		}
		rng.Shuffle(min(len(live), 100), func(i, j int) { live[i], live[j] = live[j], live[i] })
		var done []uint64
		if len(live) > 50 {
			done, live = live[:20], live[20:]
		}
		for _, seq := range done {
			fmt.Fprintln(&b, "-", seq)
		}
		fmt.Print(b.String()) // in one write: the pipe is as far as the spool, or behind
		s.Settle(done)
		for _, seq := range done {
			fmt.Println("=", seq)
		}
	}
}

// TestKill9 kills a real process on a real file system at random moments, again and again over one spool. What Append had
// returned is there, in order, unless it was settled; what was settled is not.
func TestKill9(t *testing.T) {
	dir := t.TempDir()
	live, maybe := map[uint64]bool{}, map[uint64]bool{}
	var last uint64
	for round := range 30 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(out)
		for left := rand.IntN(3000); in.Scan(); left-- {
			if left == 0 {
				_ = cmd.Process.Kill()
			}
			var what string
			var seq uint64
			if _, err := fmt.Sscan(in.Text(), &what, &seq); err != nil || what == "!" {
				if left <= 0 {
					continue // the last line may be cut
				}
				t.Fatalf("child: %q", in.Text())
			}
			switch what {
			case "+":
				live[seq], last = true, max(last, seq)
			case "-":
				maybe[seq] = true
			case "=":
				delete(live, seq)
				delete(maybe, seq)
			}
		}
		_ = cmd.Wait()
		last = checkKilled(t, dir, round, live, maybe, last)
	}
	t.Logf("%d records, %d left", last, len(live))
}

func checkKilled(t *testing.T, dir string, round int, live, maybe map[uint64]bool, last uint64) uint64 {
	t.Helper()
	s := mustOpen(t, dir, Options{OnDamage: func(d Damage) {
		if d.Cause != Torn {
			t.Errorf("round %d: %v", round, d)
		}
	}})
	found := map[uint64]bool{}
	for _, r := range readAll(t, s, 0) {
		found[r.Seq] = true
		if !equal(r, rec(r.Seq)) {
			t.Fatalf("round %d: record %d: %q", round, r.Seq, r.Data)
		}
		if !live[r.Seq] && r.Seq <= last {
			t.Fatalf("round %d: %d was settled", round, r.Seq)
		}
		live[r.Seq] = true // in, but the child did not get to say so
	}
	for seq := range live {
		if !found[seq] {
			if !maybe[seq] {
				t.Fatalf("round %d: %d is lost", round, seq)
			}
			delete(live, seq)
		}
	}
	clear(maybe)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.LastSeq()
}
