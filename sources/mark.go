package sources

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
)

// A position is how far a route is in its stream. It outlives the consumer: when somebody has deleted that, the next one begins there.
type position struct {
	Stream   string    `json:"stream"`
	Created  time.Time `json:"created"`  // the stream: of another one of the same name, the sequences mean nothing
	Consumer time.Time `json:"consumer"` // when that was created
	Next     uint64    `json:"next"`     // all of the consumer's messages before it are acknowledged; 0: nothing is known

	Last   uint64    `json:"last,omitempty"`  // the highest sequence that was ever delivered
	Newest time.Time `json:"newest,omitzero"` // when the stream stored the newest message that was ever delivered
	Reused time.Time `json:"reused,omitzero"` // messages that were stored later may have sequences that others had before: see JetStream.id; zero: none have

	// When somebody else last pulled from the consumer, as far as it was seen, and the highest sequence that may have been delivered out of order by that.
	Shared   time.Time `json:"shared,omitzero"`
	SharedTo uint64    `json:"shared_to,omitempty"`
}

// A mark keeps a position in a file: one line of JSON, and one with its CRC32C in hexadecimal.
type mark struct {
	dir string
	log zerolog.Logger

	now    position
	stored position
	failed bool // to write, the last time
}

const markFile = "position"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openMark reads the position that was left in dir, which need not exist. One that is damaged is set aside: the worst that comes of it
// is that a consumer that is gone, too, begins anew.
func openMark(dir string, log zerolog.Logger) (*mark, error) {
	m := &mark{dir: dir, log: log}
	path := filepath.Join(dir, markFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the position in the stream: %w", err)
	}
	if m.now, err = parsePosition(data); err != nil {
		aside := fmt.Sprintf("%s.damaged-%d", path, time.Now().UnixNano())
		if err := os.Rename(path, aside); err != nil {
			return nil, fmt.Errorf("set the damaged position in the stream aside: %w", err)
		}
		log.Error().Err(err).Str("file", aside).Msg("the position in the stream is damaged and set aside; the consumer on the server knows it, too")
		m.now = position{}
	}
	m.stored = m.now
	return m, nil
}

func parsePosition(data []byte) (position, error) {
	const crcLine = len("\n01234567\n")
	if len(data) <= crcLine {
		return position{}, errors.New("it is cut short")
	}
	line, sum := data[:len(data)-crcLine], string(data[len(data)-crcLine:])
	if sum != crcOf(line) {
		return position{}, errors.New("its checksum is wrong")
	}
	var p position
	err := json.Unmarshal(line, &p)
	return p, err
}

func crcOf(line []byte) string { return fmt.Sprintf("\n%08x\n", crc32.Checksum(line, castagnoli)) }

// save writes the position if it has changed. A failure is logged, once: it costs duplicates at worst, and the next call tries again.
func (m *mark) save() {
	if m.now == m.stored {
		return
	}
	if err := m.write(); err != nil {
		if !m.failed {
			m.log.Error().Err(err).Str("dir", m.dir).Msg("cannot store the position in the stream; trying again")
		}
		m.failed = true
		return
	}
	m.stored, m.failed = m.now, false
}

// write replaces the file. It is whole at any instant of a crash: the new one is forced down before it gets its name, and then the name is.
func (m *mark) write() (err error) {
	line, err := json.Marshal(m.now)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(m.dir, markFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, crcOf(line)...))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(m.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
