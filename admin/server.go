package admin

import (
	"context"
	"errors"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/rs/zerolog"
)

// Options are what a Server needs.
type Options struct {
	Token    string // bearer token that clients have to show; "" = none
	Build    Build
	Instance string
	StateDir string
	Log      zerolog.Logger

	Relay        Relay
	Connections  func() []Connection             // those of all routes, in any order
	Spool        SpoolStorage                    // what waits to be delivered on disk
	Dead         DeadStorage                     // what was given up
	Reload       func(ctx context.Context) error // nil: not offered
	ReloadFailed func() bool                     // the last one has, whoever asked for it
}

// Build says what the program was built from.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}

// A Relay is what a Server asks and tells; *relay.Relay is one.
type Relay interface {
	Status() []relay.RouteStatus
	Route(name string) *relay.Route // nil: there is none, or it is not open
	Stopping() bool
}

// A Connection is one connection to a NATS cluster. Several may have one name.
type Connection struct {
	Name       string
	Connected  bool
	Reconnects uint64
	Errors     map[string]uint64 // by kind; every kind is present
	Failure    error             // why it is not connected; nil if it is, or has not been tried yet
}

// Bounds of what a client may ask for. Streams (events, export, replay, verify) have the time-outs for each read and each write instead.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 15 * time.Second
	idleTimeout    = time.Minute
	headerBytes    = 16 << 10
	bodyBytes      = 64 << 10
	maxConnections = 128
)

// A Server serves the admin endpoints on one listener.
type Server struct {
	opts    Options
	began   time.Time
	http    *http.Server
	life    context.Context // of the requests
	end     context.CancelFunc
	streams chan struct{} // one for each stream that is open
}

// NewServer returns a server that does not run yet.
func NewServer(o Options) *Server {
	s := &Server{opts: o, began: time.Now(), streams: make(chan struct{}, maxStreams)}
	s.life, s.end = context.WithCancel(context.Background())
	crowd := newCrowd(maxConnections)
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ConnState:         crowd.changed,
		BaseContext:       func(net.Listener) context.Context { return s.life },
		ErrorLog:          stdlog.New(debugWriter{o.Log}, "", 0),
	}
	return s
}

// Serve answers on l until Close. It owns l. An error says that it cannot go on.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends the server: what is under way gets a moment to finish.
func (s *Server) Close() {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // what would not end in time
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.protected(s.metrics()))
	mux.Handle("GET /{$}", s.protected(http.HandlerFunc(s.index)))
	for _, api := range []map[string]http.HandlerFunc{s.api(), s.storageAPI()} {
		for pattern, handle := range api {
			mux.Handle(pattern, s.protected(handle))
		}
	}
	return s.guard(mux)
}

// api returns what answers in JSON.
func (s *Server) api() map[string]http.HandlerFunc {
	api := map[string]http.HandlerFunc{
		"GET /api/v1/status":                 s.status,
		"GET /api/v1/events":                 s.events,
		"POST /api/v1/routes/{route}/pause":  s.pause,
		"POST /api/v1/routes/{route}/resume": s.resume,
	}
	if s.opts.Reload != nil {
		api["POST /api/v1/reload"] = s.reload
	}
	return api
}

// index lists the endpoints.
func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	const text = `natsrelay

GET  /livez                              the process answers
GET  /readyz                             200 if all routes do their work, else 503 and why not
GET  /metrics                            for Prometheus
GET  /api/v1/status                      how everything stands, as JSON
GET  /api/v1/events                      the same as server-sent events, and each change of a route's state
POST /api/v1/routes/NAME/pause, resume   stop and start the deliveries of a route
GET  /api/v1/spool, /api/v1/dead         what waits on disk, and dead letters: see docs/admin.md
POST /api/v1/reload                      read the configuration again
`
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(text))
}

// debugWriter logs what net/http has to say of clients that misbehave: it is theirs, not the relay's.
type debugWriter struct{ log zerolog.Logger }

func (d debugWriter) Write(p []byte) (int, error) {
	d.log.Debug().Str("said", string(p)).Msg("admin server")
	return len(p), nil
}
