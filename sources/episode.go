package sources

import (
	"time"

	"github.com/rs/zerolog"
)

const (
	episodeEnd    = 5 * time.Second // without a drop: the episode is over
	episodeRepeat = time.Minute     // an episode that goes on gets a line this often
)

// An episode is a time in which the client dropped messages because the route took them too slowly.
// nats.go reports one whenever its full queue had room for a single message in between; this one ends
// only when no message was dropped for a while, so that an overload is two lines in the log, not thousands.
type episode struct {
	log    zerolog.Logger
	total  int       // dropped in this episode; 0 = there is none
	begun  time.Time // first drop
	last   time.Time // latest drop
	logged time.Time
}

// observe takes note of n messages dropped since the last call.
func (e *episode) observe(n int, now time.Time) {
	switch {
	case n > 0 && e.total == 0:
		e.begun, e.logged = now, now
		e.log.Warn().Int("dropped", n).Msg("slow consumer: messages arrive faster than the route takes them and are dropped")
	case e.total > 0 && n == 0 && now.Sub(e.last) >= episodeEnd:
		e.finish()
		return
	case e.total > 0 && now.Sub(e.logged) >= episodeRepeat:
		e.logged = now
		e.log.Warn().Int("dropped", e.total+n).Dur("lasted", now.Sub(e.begun).Round(time.Millisecond)).Msg("slow consumer: messages are still being dropped")
	}
	if n > 0 {
		e.total += n
		e.last = now
	}
}

// finish ends an episode, if there is one.
func (e *episode) finish() {
	if e.total == 0 {
		return
	}
	e.log.Warn().Int("dropped", e.total).Dur("lasted", e.last.Sub(e.begun).Round(time.Millisecond)).Msg("slow consumer: over")
	e.total = 0
}
