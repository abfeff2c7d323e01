package test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// A batchEndpoint receives batches in the envelope format, and refuses those with poison in them.
type batchEndpoint struct {
	*httptest.Server
	tally *tally

	mu      sync.Mutex
	away    bool
	poison  string // a payload
	largest int    // batch that was taken
}

func newBatchEndpoint(t *testing.T, poison string) *batchEndpoint {
	e := &batchEndpoint{tally: newTally(), away: true, poison: poison}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

func (e *batchEndpoint) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *batchEndpoint) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.away {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	type envelope struct {
		Subject string
		Data    json.RawMessage
	}
	var batch []envelope
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		var m envelope
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil || string(m.Data) == e.poison {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		batch = append(batch, m)
	}
	e.largest = max(e.largest, len(batch))
	for _, m := range batch {
		e.tally.add(m.Subject, string(m.Data))
	}
}

// One poison message among 10,000, in batches of 500: 9,999 arrive in order and once, the one is a dead letter with its reason. When the
// endpoint has been mended, `dead replay` brings it there, too.
func TestPoisonMessage(t *testing.T) {
	t.Parallel()
	const n, poison = 10_000, 4711
	edge := natstest.Start(t, "", nil)
	web := newBatchEndpoint(t, strconv.Itoa(poison))
	dir := t.TempDir()
	format := oneRoute + "format = \"envelope\"\nbatch = { messages = 500, wait = \"10ms\" }\n"
	relay := newRelay(t, writeConfig(t, dir, format, mkdir(t, dir+"/state"), edge.URL(), "", `ordering = "strict"`, web.URL))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
	publishAt(t, edge.Client(), 0, n, 100_000)
	web.set(func() { web.away = false })
	within(t, 60*time.Second, func() bool { return web.tally.count() == n-1 }, "all but one arrive")
	relay.stop()
	if web.largest != 500 {
		t.Errorf("the largest batch has %d messages, want 500", web.largest)
	}
	if missing := web.tally.missing(1, n); len(missing) != 1 || missing[0] != poison {
		t.Errorf("missing: %v, want %d", missing, poison)
	}

	letter := relay.command("dead", "cat", "web")
	for _, want := range []string{`"data":4711`, `"Natsrelay-Reason":["refused"]`, `"Natsrelay-Status":["422"]`, `"Natsrelay-Attempts":["1"]`, `"Natsrelay-Route":["web"]`, `"subject":"` + subjectOf(poison)} {
		if !strings.Contains(letter, want) || strings.Count(letter, "\n") != 1 {
			t.Errorf("dead cat: no %s in %s", want, letter)
		}
	}
	web.set(func() { web.poison = "none" })
	web.tally.highest = map[string]int{} // it comes behind the others now, as it must
	if said := relay.command("dead", "replay", "web"); said != "1 message replayed\n" {
		t.Errorf("dead replay: %s", said)
	}
	relay.start()
	within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "the dead letter arrives")
	relay.stop()
	web.tally.check(t, "after the replay", n, 0)
	if left := relay.command("dead", "cat", "web"); left != "" {
		t.Errorf("still dead: %s", left)
	}
}

// kill -9 at any instant while one message in ten is refused: each of those is a dead letter, and no more of them twice than were under way.
func TestKillNineWithDeadLetters(t *testing.T) {
	t.Parallel()
	const rounds, inFlight = 10, 16
	k := newKiller(t, `persist = "always"`)
	poison := func(n int) bool { return n%10 == 0 }
	k.web.refuse = func(payload string) bool {
		time.Sleep(2 * time.Millisecond) // so that the kill finds something in flight
		n, _ := strconv.Atoi(payload)
		return poison(n)
	}
	for range rounds {
		k.round(100 * time.Millisecond)
	}
	refused := map[int]int{}
	for n := range k.owed {
		if poison(n) {
			refused[n] = 0
			delete(k.owed, n)
		}
	}
	k.finish(rounds * inFlight)

	letters := 0
	dir := filepath.Join(filepath.Dir(k.relay.config), "state", "dead", "web")
	err := spool.Walk(context.Background(), dir, 0, func(rec spool.Record) error {
		m, err := relay.DecodeRecord(rec)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(m.Data))
		if !poison(n) || m.Header.Get(relay.HeaderDeadReason) != relay.DeadRefused {
			t.Errorf("dead letter %d with the headers %q", n, m.Header)
		}
		refused[n]++
		letters++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, times := range refused {
		if times == 0 {
			lost++
		}
	}
	twice := letters - len(refused) + lost
	t.Logf("%d messages refused, %d dead letters", len(refused), letters)
	if lost > 0 || twice > rounds*inFlight || len(refused) == 0 {
		t.Errorf("of %d refused messages %d have no dead letter, and %d letters are duplicates", len(refused), lost, twice)
	}
}
