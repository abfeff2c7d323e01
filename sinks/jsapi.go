package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/natsconn"
)

// streamInfo is what the JetStream API tells of a stream, as far as it matters here. nats.go (1.55) does not know allow_batched.
type streamInfo struct {
	Config  streamConfig `json:"config"`
	Created time.Time    `json:"created"`
	State   struct {
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
	} `json:"state"`
	Error *apiError `json:"error"`
}

type streamConfig struct {
	Name            string          `json:"name"`
	Subjects        []string        `json:"subjects,omitempty"`
	Retention       string          `json:"retention"`
	Discard         string          `json:"discard"`
	Storage         string          `json:"storage"`
	Replicas        int             `json:"num_replicas"`
	MaxMsgs         int64           `json:"max_msgs"`
	MaxBytes        int64           `json:"max_bytes"`
	MaxAge          time.Duration   `json:"max_age"`
	MaxMsgSize      int64           `json:"max_msg_size,omitempty"`
	DuplicateWindow time.Duration   `json:"duplicate_window,omitempty"`
	Compression     string          `json:"compression,omitempty"`
	AllowDirect     bool            `json:"allow_direct"`
	AllowBatched    bool            `json:"allow_batched,omitempty"`
	AllowRollup     bool            `json:"allow_rollup_hdrs,omitempty"`
	AllowMsgTTL     bool            `json:"allow_msg_ttl,omitempty"`
	AllowMsgCounter bool            `json:"allow_msg_counter,omitempty"`
	Sealed          bool            `json:"sealed,omitempty"`
	NoAck           bool            `json:"no_ack,omitempty"`
	Mirror          json.RawMessage `json:"mirror,omitempty"`
}

// apiTimeout is how long one request to the JetStream API may take.
const apiTimeout = 5 * time.Second

// streamAPI asks the JetStream API about a stream: STREAM.INFO, STREAM.CREATE. An error of the API is an *apiError.
func streamAPI(ctx context.Context, conn *natsconn.Conn, nc *nats.Conn, what, stream string, request any) (*streamInfo, error) {
	subject := conn.APISubject(what + "." + stream)
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	ctx, stop := conn.UntilDenied(ctx, "$JS.")
	defer stop()
	m, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, natsconn.BecauseDenied(ctx, err))
	}
	info := new(streamInfo)
	if err := json.Unmarshal(m.Data, info); err != nil {
		return nil, fmt.Errorf("%s: the answer cannot be read: %w", subject, err)
	}
	if info.Error != nil {
		return nil, info.Error
	}
	return info, nil
}

// untilCut returns a context that ends, too, when the epoch does: whoever has been asked then answers on a connection that is gone.
func untilCut(ctx context.Context, epoch natsconn.Epoch) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-epoch.Done():
			cancel(errNATSCut)
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(nil); watching.Wait() }
}

// becauseCut returns errNATSCut if that is what ended a context of untilCut, and else the error.
func becauseCut(ctx context.Context, err error) error {
	if context.Cause(ctx) == errNATSCut {
		return errNATSCut
	}
	return err
}
