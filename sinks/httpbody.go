package sinks

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// keptBuffer is the largest buffer that is kept for another batch, so that one large batch does not cost its memory for ever.
const keptBuffer = 4 << 20

// A body is the content of one request, and of its repetitions. Its buffer is used again once nobody reads it any more: that may be
// after the response, for a server may answer before it has read everything.
type body struct {
	data []byte
	pool *sync.Pool   // nil: data is the message's own
	refs atomic.Int32 // its maker, and the readers that are open
}

// attach makes b the body of a request. Of an empty body net/http would try to read, to find out whether it is.
func (b *body) attach(req *http.Request) {
	if len(b.data) > 0 {
		req.ContentLength = int64(len(b.data))
		req.GetBody = b.open // to send it again, when a connection that was idle turns out to be dead
		req.Body, _ = b.open()
	}
}

// open returns a reader of the whole body. What is in memory for good is given to net/http in the form in which it sends headers and
// body in one write.
func (b *body) open() (io.ReadCloser, error) {
	if b.pool == nil {
		return io.NopCloser(bytes.NewReader(b.data)), nil
	}
	b.refs.Add(1)
	return &bodyReader{of: b}, nil
}

func (b *body) release() {
	if b.refs.Add(-1) == 0 && b.pool != nil && cap(b.data) <= keptBuffer {
		b.data = b.data[:0]
		b.pool.Put(b)
	}
}

// A bodyReader reads a body. Package net/http may close it while it reads, when a request is cut short, so it has a lock.
type bodyReader struct {
	mu  sync.Mutex
	of  *body // nil: closed
	off int
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.of == nil:
		return 0, http.ErrBodyReadAfterClose
	case r.off == len(r.of.data):
		return 0, io.EOF
	}
	n := copy(p, r.of.data[r.off:])
	r.off += n
	return n, nil
}

// Close implements io.Closer.
func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != nil {
		r.of.release()
		r.of = nil
	}
	return nil
}

// bodies builds bodies.
type bodies struct {
	encoding string // Content-Encoding; "": none
	pool     sync.Pool
	gzips    sync.Pool     // of *gzip.Writer
	zstd     *zstd.Encoder // for EncodeAll only, which is safe for concurrent use
}

func newBodies(compression string) (*bodies, error) {
	b := new(bodies)
	b.pool.New = func() any { return &body{pool: &b.pool} }
	switch compression {
	case "", "none":
		return b, nil
	case "gzip":
		b.gzips.New = func() any { return gzip.NewWriter(nil) }
	case "zstd":
		// A window of 8 MiB is what every receiver has to take (RFC 9659, section 3).
		enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		b.zstd = enc
	default:
		return nil, fmt.Errorf("no compression %q", compression)
	}
	b.encoding = compression
	return b, nil
}

// build returns the body of a request for the run, compressed, and notes in the header how. The caller releases it.
// What is said to be encoded already, by its own header, is sent as it is.
func (b *bodies) build(f *format, run []piece, header http.Header) (*body, error) {
	compress := b.encoding != "" && header["Content-Encoding"] == nil
	if f.isPlain() && !compress {
		own := &body{data: run[0].data}
		own.refs.Store(1)
		return own, nil
	}
	plain := b.get()
	plain.data = f.join(plain.data, run)
	if !compress {
		return plain, nil
	}
	defer plain.release()
	header["Content-Encoding"] = []string{b.encoding}
	packed := b.get()
	var err error
	if packed.data, err = b.compress(packed.data, plain.data); err != nil {
		packed.release()
		return nil, fmt.Errorf("%s: %w", b.encoding, err)
	}
	return packed, nil
}

func (b *bodies) get() *body {
	x := b.pool.Get().(*body)
	x.refs.Store(1)
	return x
}

// compress appends src, compressed, to dst.
func (b *bodies) compress(dst, src []byte) ([]byte, error) {
	if b.zstd != nil {
		return b.zstd.EncodeAll(src, dst), nil
	}
	out := bytes.NewBuffer(dst)
	w := b.gzips.Get().(*gzip.Writer)
	defer b.gzips.Put(w)
	w.Reset(out)
	if _, err := w.Write(src); err != nil {
		return dst, err
	}
	err := w.Close()
	return out.Bytes(), err
}
