package sinks

import (
	"context"
	"errors"
	"strings"
)

// Check looks at the stream as the first delivery would, but creates and publishes nothing. patterns are what the subjects of the messages
// will match, nil if that is not known. Warnings go to the log; an error says what keeps messages from being delivered.
func (s *JetStream) Check(ctx context.Context, patterns []string) error {
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
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range patterns {
		if p != ">" && !coveredBy(stream.info.Config.Subjects, p) {
			return blocked("stream %q: it does not take all of %q; its subjects are %q", s.js.Stream, p, stream.info.Config.Subjects)
		}
	}
	if limit := stream.info.Config.MaxMsgSize; limit > 0 && limit < epoch.Conn().MaxPayload() {
		s.opts.Log.Warn().Int64("max_msg_size", limit).Msg("larger messages than the stream's max_msg_size become dead letters")
	}
	return nil
}

// coveredBy reports whether one of the subjects, with wildcards, matches all that the pattern matches.
func coveredBy(subjects []string, pattern string) bool {
	for _, s := range subjects {
		if covers(strings.Split(s, "."), strings.Split(pattern, ".")) {
			return true
		}
	}
	return false
}

func covers(subject, pattern []string) bool {
	for i, s := range subject {
		switch {
		case s == ">":
			return len(pattern) > i
		case i >= len(pattern) || pattern[i] == ">" || s != "*" && s != pattern[i]:
			return false
		}
	}
	return len(subject) == len(pattern)
}
