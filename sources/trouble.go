package sources

import (
	"errors"
	"sync"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/relay"
)

// trouble is why nothing can arrive at present. Each change is logged, once.
type trouble struct {
	log zerolog.Logger

	mu  sync.Mutex
	err error
	up  bool // it was well once
}

func (t *trouble) get() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil && !t.up {
		return relay.ErrStarting
	}
	return t.err
}

// set takes note of how things are; nil: well.
func (t *trouble) set(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.err
	t.err, t.up = err, t.up || err == nil
	fault, ok := errors.AsType[*relay.Fault](err)
	switch {
	case err == nil && was == nil, err != nil && was != nil && err.Error() == was.Error():
	case err == nil:
		t.log.Info().Msg("receiving again")
	case ok && fault.Blocked:
		t.log.Error().Err(err).Msg("nothing can be received until somebody mends it; trying again")
	default:
		t.log.Warn().Err(err).Msg("nothing can be received at present; trying again")
	}
}
