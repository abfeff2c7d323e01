package sinks

import (
	"context"
	"errors"
	"slices"

	"github.com/natsrelay/natsrelay/internal/subject"
	"github.com/natsrelay/natsrelay/natsconn"
)

// Check looks at the stream as the first delivery would, but creates and publishes nothing. patterns are what the subjects of the messages
// will match, permissions those of the connection's user. Warnings go to the log; an error says what keeps messages from being delivered.
func (s *JetStream) Check(ctx context.Context, patterns []string, permissions *natsconn.Permissions) error {
	s.failing.Store(true) // so that it waits for the connection
	epoch, err := s.epoch(ctx)
	if err != nil {
		return err
	}
	create := s.js.Create
	look := *s.js
	look.Create = nil
	s.js = &look
	stream, err := s.lookAt(ctx, epoch)
	if create != nil && errors.Is(err, errMissing) {
		s.opts.Log.Info().Msg("the stream does not exist; it will be created")
		return permissions.Denied(s.conn.APISubject("STREAM.CREATE." + s.js.Stream))
	}
	if err != nil {
		return err
	}
	for _, p := range patterns {
		if err := s.checkPattern(stream.info.Config.Subjects, p); err != nil {
			return err
		}
	}
	if limit := stream.info.Config.MaxMsgSize; limit > 0 && limit < epoch.Conn().MaxPayload() {
		s.opts.Log.Warn().Int64("max_msg_size", limit).Msg("larger messages than the stream's max_msg_size become dead letters")
	}
	if s.js.ExactlyOnce { // what the stream holds is read with a consumer
		return permissions.Denied(s.conn.APISubject("CONSUMER.CREATE."+s.js.Stream+".>"), s.conn.APISubject("CONSUMER.MSG.NEXT."+s.js.Stream+".>"))
	}
	return nil
}

// checkPattern compares the subjects of the stream with what those of the messages match. A part may be all that there will be.
func (s *JetStream) checkPattern(subjects []string, pattern string) error {
	overlaps := func(taken string) bool { return subject.Overlap(taken, pattern) }
	switch {
	case !slices.ContainsFunc(subjects, overlaps):
		return blocked("stream %q: it takes nothing of %q; its subjects are %q", s.js.Stream, pattern, subjects)
	case pattern != ">" && !takes(subjects, pattern):
		s.opts.Log.Warn().Msgf("stream %q: it takes a part of %q only, its subjects are %q: the route is blocked while it has another message", s.js.Stream, pattern, subjects)
	}
	return nil
}
