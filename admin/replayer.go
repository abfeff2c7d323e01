package admin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/natsrelay/natsrelay/relay"
)

// Bounds of what is read of a replay before it is passed on, and of one line of it.
const (
	replayMessages = 1000
	replayBytes    = 256 << 10
	replayLine     = 128 << 20 // a payload of 64 MiB in base64, and headers
)

// A replayer reads messages as JSON lines, and passes them on in batches.
type replayer struct {
	lines *bufio.Reader
	put   func([]*relay.Stored) (int, error)

	batch []*relay.Stored
	bytes int
	safe  int
}

func (p *replayer) run() error {
	for n := 1; ; n++ {
		line, err := readLine(p.lines)
		if err == io.EOF {
			return p.pass()
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		m, err := relay.ParseJSONLine(line)
		if err != nil {
			return errors.Join(&Refusal{http.StatusBadRequest, fmt.Errorf("line %d: %w", n, err)}, p.pass())
		}
		p.batch = append(p.batch, m)
		if p.bytes += len(line); p.bytes >= replayBytes || len(p.batch) == replayMessages {
			if err := p.pass(); err != nil {
				return err
			}
		}
	}
}

func (p *replayer) pass() error {
	if len(p.batch) == 0 {
		return nil
	}
	n, err := p.put(p.batch)
	p.safe += n
	p.batch, p.bytes = nil, 0
	return err
}

// readLine returns the next line, which may be long, but not endless. io.EOF: there is none.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > replayLine:
			return nil, &Refusal{http.StatusRequestEntityTooLarge, fmt.Errorf("it is longer than %d bytes", replayLine)}
		case err == io.EOF && len(line) > 0, err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
