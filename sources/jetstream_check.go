package sources

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/natsconn"
)

// CheckJetStream looks at the stream and the consumer of a source as Run would, but creates, changes and takes nothing. permissions are those of the
// user of nc, which is conn's. What Run would create or change goes to the log; the error says what keeps the source from working.
func CheckJetStream(ctx context.Context, conn *natsconn.Conn, nc *nats.Conn, cfg *config.JetStreamSource, permissions *natsconn.Permissions, log zerolog.Logger) error {
	s := &JetStream{conn: conn, cfg: cfg, log: log, times: defaultTimes()}
	next := conn.APISubject("CONSUMER.MSG.NEXT." + cfg.Stream + "." + cfg.Durable)
	if err := permissions.Denied(conn.APISubject("STREAM.INFO."+cfg.Stream), conn.APISubject("CONSUMER.INFO."+cfg.Stream+"."+cfg.Durable)); err != nil {
		// The questions below would not be answered. What else is needed whatever the answers, is said now, to be mended at once.
		return errors.Join(err, permissions.Denied(next), mayAcknowledge(permissions, cfg))
	}
	ctx, stop := conn.UntilDenied(ctx, "$JS.") // where the permissions are not known
	defer stop()
	js, err := conn.JetStream(nc)
	if err != nil {
		return err
	}
	stream, err := js.Stream(ctx, cfg.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("stream %q does not exist: create it, or mend source.stream", cfg.Stream)
	}
	if err != nil {
		return apiError("look up stream "+cfg.Stream, natsconn.BecauseDenied(ctx, err))
	}
	writes, err := s.checkConsumer(ctx, &binding{nc: nc, stream: stream})
	needs := []string{next}
	if writes {
		needs = append(needs, conn.APISubject(createOperation(cfg)))
	}
	return errors.Join(err, permissions.Denied(needs...), mayAcknowledge(permissions, cfg))
}

// checkConsumer says what of the consumer keeps the source from working, and whether Run would create or change it.
func (s *JetStream) checkConsumer(ctx context.Context, b *binding) (writes bool, err error) {
	info, err := s.look(ctx, b)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound) && s.cfg.Consumer == "bind":
		return false, noConsumer(s.cfg)
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		s.log.Info().Msgf("consumer %q does not exist; it will be created", s.cfg.Durable)
		return true, nil
	case err != nil:
		return false, apiError("look up consumer "+s.cfg.Durable, natsconn.BecauseDenied(ctx, err))
	case s.cfg.Consumer == "bind":
		return false, s.check(info.Config)
	}
	next, what := s.changed(info.Config)
	if what != "" {
		s.log.Info().Msgf("consumer %q will be changed: %s", s.cfg.Durable, what)
	}
	return what != "", s.check(next)
}

// mayAcknowledge says that acknowledgements are denied, in either form that a server may have them in (place.go).
func mayAcknowledge(p *natsconn.Permissions, cfg *config.JetStreamSource) error {
	consumer := cfg.Stream + "." + cfg.Durable + ".>"
	if p.MayPublish(ackPrefix+"*.*."+consumer) != natsconn.GrantNone {
		return nil
	}
	return p.Denied(ackPrefix + consumer)
}

// createOperation is the operation by which nats.go creates and changes the consumer: a filter that is one subject is part of it.
func createOperation(cfg *config.JetStreamSource) string {
	operation := []string{"CONSUMER.CREATE", cfg.Stream, cfg.Durable}
	if len(cfg.Subjects) == 1 {
		operation = append(operation, cfg.Subjects[0])
	}
	return strings.Join(operation, ".")
}
