package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/config"
)

// A binding is the consumer as it was found at the beginning of a round.
type binding struct {
	nc     *nats.Conn
	stream jetstream.Stream
	info   *jetstream.ConsumerInfo
	joined bool // this relay comes to the consumer for the first time
}

// ackWait returns when the consumer first delivers a message again that is not acknowledged.
func (b *binding) ackWait() time.Duration {
	if backoff := b.info.Config.BackOff; len(backoff) > 0 {
		return backoff[0]
	}
	return b.info.Config.AckWait
}

// bind looks the consumer up, and creates or changes it if that is wanted and needed.
func (s *JetStream) bind(ctx context.Context, nc *nats.Conn) (*binding, error) {
	js, err := s.conn.JetStream(nc)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	stream, err := js.Stream(ctx, s.cfg.Stream)
	if err != nil {
		return nil, apiError("look up stream "+s.cfg.Stream, err)
	}
	b := &binding{nc: nc, stream: stream}
	fresh := s.sameStream(stream.CachedInfo())
	b.info, err = s.look(ctx, b)
	switch {
	case err == nil:
		err = s.agree(ctx, b, fresh)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		err = apiError("look up consumer "+s.cfg.Durable, err)
	case s.cfg.Consumer == "bind":
		err = noConsumer(s.cfg)
	default:
		err = s.create(ctx, b)
	}
	if err != nil {
		return nil, err
	}
	s.adopt(b)
	return b, nil
}

// noConsumer is the error of a consumer that is not the relay's to make.
func noConsumer(cfg *config.JetStreamSource) error {
	return blocked(`there is no consumer %s in stream %s: create it, or set consumer = "ensure"`, cfg.Durable, cfg.Stream)
}

// look asks for the state of the consumer.
func (s *JetStream) look(ctx context.Context, b *binding) (*jetstream.ConsumerInfo, error) {
	consumer, err := b.stream.Consumer(ctx, s.cfg.Durable)
	if errors.Is(err, jetstream.ErrNotPullConsumer) {
		return nil, blocked("consumer %s pushes: natsrelay needs one that is pulled from, without deliver_subject", s.cfg.Durable)
	}
	if err != nil {
		return nil, err
	}
	return consumer.CachedInfo(), nil
}

// sameStream compares the stream with the one that the position is in, and reports whether it was created anew, or its end moved back.
func (s *JetStream) sameStream(info *jetstream.StreamInfo) (fresh bool) {
	was := s.mark.now
	same := was.Created.Equal(info.Created)
	switch {
	case was.Next == 0 && was.Created.IsZero():
	case !same:
		s.log.Error().Time("created", info.Created).Time("was_created", was.Created).Uint64("position", was.Next).Str("deliver", s.cfg.Deliver.From).
			Msg("the stream was deleted and created anew: the position in the old one means nothing, starting as deliver says")
	case info.State.LastSeq+1 < was.Next:
		s.log.Error().Uint64("last", info.State.LastSeq).Uint64("position", was.Next).Str("deliver", s.cfg.Deliver.From).
			Msg("the stream ends before the position in it, so it was restored from an older copy: starting as deliver says")
		same = false
	}
	if !same {
		s.mark.now = position{Stream: s.cfg.Stream, Created: info.Created}
		if !was.Created.IsZero() {
			s.ledger.mu.Lock()
			s.reuse()
			s.ledger.newStream(0)
			s.ledger.mu.Unlock()
			return true
		}
	}
	return false
}

// create makes the consumer, where the route was in the stream if that is known.
func (s *JetStream) create(ctx context.Context, b *binding) error {
	cfg := s.wanted()
	next := s.mark.now.Next
	if next > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, next
	} else {
		s.start(&cfg)
	}
	consumer, err := b.stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return apiError("create consumer "+s.cfg.Durable, err)
	}
	b.info = consumer.CachedInfo()
	line := s.log.Info()
	if next > 0 {
		line = s.log.Warn().Uint64("position", next)
	}
	line.Str("deliver", s.cfg.Deliver.From).Bool("resumed", next > 0).Msg("there was no consumer, it is created")
	return s.check(b.info.Config)
}

// start sets where a consumer begins that has no predecessor.
func (s *JetStream) start(cfg *jetstream.ConsumerConfig) {
	d := s.cfg.Deliver
	switch d.From {
	case "all":
		cfg.DeliverPolicy = jetstream.DeliverAllPolicy
	case "new":
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	case "last":
		cfg.DeliverPolicy = jetstream.DeliverLastPolicy
	case "last_per_subject":
		cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
		if len(s.cfg.Subjects) == 0 {
			cfg.FilterSubject = ">" // the server asks for a filter here
		}
	case "sequence":
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, d.Sequence
	case "time":
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &d.Time
	}
}

// wanted returns the consumer that the configuration describes, but for where it starts.
func (s *JetStream) wanted() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:       s.cfg.Durable,
		AckPolicy:     s.ackPolicy(),
		AckWait:       s.cfg.AckWait,
		MaxAckPending: s.cfg.MaxAckPending,
		MaxDeliver:    -1, // what the server gives up is lost (nats-server #6538); the route has dead letters of its own
	}
	setFilter(&cfg, s.cfg.Subjects)
	if s.cfg.Standby != "" {
		cfg.PriorityPolicy, cfg.PriorityGroups, cfg.PinnedTTL = jetstream.PriorityPolicyPinned, []string{s.cfg.Standby}, s.times.pinned
	}
	return cfg
}

func (s *JetStream) ackPolicy() jetstream.AckPolicy {
	if s.cfg.AckPolicy == "all" {
		return jetstream.AckAllPolicy
	}
	return jetstream.AckExplicitPolicy
}

var ackWords = map[jetstream.AckPolicy]string{jetstream.AckExplicitPolicy: `"explicit"`, jetstream.AckAllPolicy: `"all"`, jetstream.AckNonePolicy: "none"}

func setFilter(cfg *jetstream.ConsumerConfig, subjects []string) {
	cfg.FilterSubject, cfg.FilterSubjects = "", nil
	if len(subjects) == 1 {
		cfg.FilterSubject = subjects[0]
	} else {
		cfg.FilterSubjects = subjects
	}
}

func filterOf(cfg jetstream.ConsumerConfig) []string {
	all := cfg.FilterSubjects
	if cfg.FilterSubject != "" && cfg.FilterSubject != ">" {
		all = []string{cfg.FilterSubject}
	}
	return slices.Sorted(slices.Values(all))
}

// agree makes an existing consumer one that the route can work with, or says why it is none.
func (s *JetStream) agree(ctx context.Context, b *binding, freshStream bool) error {
	s.compare(b, freshStream)
	if s.cfg.Consumer == "ensure" {
		if err := s.update(ctx, b); err != nil {
			return err
		}
	}
	return s.check(b.info.Config)
}

// compare tells of a consumer that somebody else has put in the place of the known one.
func (s *JetStream) compare(b *binding, freshStream bool) {
	was := s.mark.now
	if freshStream || was.Consumer.IsZero() || was.Consumer.Equal(b.info.Created) {
		return
	}
	next := b.info.AckFloor.Stream + 1
	line := s.log.Warn()
	if was.Next > 0 && next > was.Next {
		line = s.log.Error().Uint64("not_delivered_from", was.Next).Uint64("not_delivered_to", next-1)
	}
	line.Time("created", b.info.Created).Uint64("position", was.Next).Uint64("starts_at", next).
		Msg("somebody has deleted the consumer and created another one of its name: going on where that one is")
}

// update changes what differs between the consumer and the configuration. A change that is refused leaves the consumer as it is: a consumer is
// never created again, for that would lose its place (nats-server #8491).
func (s *JetStream) update(ctx context.Context, b *binding) error {
	next, what := s.changed(b.info.Config)
	if what == "" {
		return nil
	}
	consumer, err := b.stream.UpdateConsumer(ctx, next)
	if err != nil {
		return apiError(fmt.Sprintf("change consumer %s (%s)", s.cfg.Durable, what), err)
	}
	b.info = consumer.CachedInfo()
	s.log.Info().Str("changed", what).Msg("the consumer is changed to what the configuration says")
	return nil
}

// changed returns what a consumer becomes that the configuration describes, and in words what that changes; "": nothing.
func (s *JetStream) changed(have jetstream.ConsumerConfig) (next jetstream.ConsumerConfig, what string) {
	want := s.wanted()
	var changes []string
	note := func(differs bool, format string, args ...any) bool {
		if differs {
			changes = append(changes, fmt.Sprintf(format, args...))
		}
		return differs
	}
	if note(!slices.Equal(filterOf(have), filterOf(want)), "filter %q to %q", filterOf(have), filterOf(want)) {
		setFilter(&have, s.cfg.Subjects)
	}
	if note(have.AckWait != want.AckWait, "ack_wait %v to %v", have.AckWait, want.AckWait) {
		have.AckWait, have.BackOff = want.AckWait, nil
	}
	if note(have.MaxAckPending != want.MaxAckPending, "max_ack_pending %d to %d", have.MaxAckPending, want.MaxAckPending) {
		have.MaxAckPending = want.MaxAckPending
	}
	if note(have.MaxDeliver != want.MaxDeliver, "max_deliver %d to %d", have.MaxDeliver, want.MaxDeliver) {
		have.MaxDeliver = want.MaxDeliver
	}
	if note(have.InactiveThreshold != 0, "inactive_threshold %v to none", have.InactiveThreshold) {
		have.InactiveThreshold = 0
	}
	if note(have.PriorityPolicy != want.PriorityPolicy || !slices.Equal(have.PriorityGroups, want.PriorityGroups) || have.PinnedTTL != want.PinnedTTL,
		"priority groups %q to %q", have.PriorityGroups, want.PriorityGroups) {
		have.PriorityPolicy, have.PriorityGroups, have.PinnedTTL = want.PriorityPolicy, want.PriorityGroups, want.PinnedTTL
	}
	return have, strings.Join(changes, ", ")
}

// check says what of a consumer's settings the route cannot work with, and how to mend it.
func (s *JetStream) check(c jetstream.ConsumerConfig) error {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(c.AckPolicy != s.ackPolicy(), "its ack_policy is %v: set source.ack_policy to that if it is one of its words, or delete the consumer, since the server cannot change it", ackWords[c.AckPolicy])
	add(c.MaxDeliver != -1, "its max_deliver is %d, after which the server gives a message up: set it to -1", c.MaxDeliver)
	add(c.HeadersOnly, "it delivers headers only: unset headers_only")
	add(len(s.cfg.Subjects) > 0 && !slices.Equal(filterOf(c), filterOf(s.wanted())), "its filter is %q: set it to source.subjects, or remove those", filterOf(c))
	add(s.cfg.Standby == "" && c.PriorityPolicy != jetstream.PriorityPolicyNone, "it has the priority groups %q: set source.standby, or remove them", c.PriorityGroups)
	add(s.cfg.Standby != "" && (c.PriorityPolicy != jetstream.PriorityPolicyPinned || !slices.Contains(c.PriorityGroups, s.cfg.Standby)),
		"it is not pinned for the group %q, which standby needs: set priority_policy to pinned_client and priority_groups to that (server 2.11 or newer)", s.cfg.Standby)
	if len(wrong) > 0 {
		return blocked("consumer %s cannot be used: %s", s.cfg.Durable, strings.Join(wrong, "; "))
	}
	return nil
}

// adopt makes the consumer the one that the source works with.
func (s *JetStream) adopt(b *binding) {
	was := s.mark.now.Consumer
	if s.bound != nil && !was.IsZero() && !was.Equal(b.info.Created) {
		s.ledger.newConsumer()
	}
	b.joined = !was.Equal(b.info.Created)
	s.mark.now.Consumer = b.info.Created
	s.bound = b
	s.note(b.info)
	s.mark.save()

	most := s.cfg.MaxAckPending
	if n := b.info.Config.MaxAckPending; n > 0 {
		most = min(most, n)
	}
	if !s.mark.now.Shared.IsZero() {
		s.ledger.doubt(b.info.Delivered.Stream)
	}
	s.ledger.mu.Lock()
	s.ledger.window.adapt(most, b.ackWait())
	s.ledger.mu.Unlock()
	s.acks.adapt(b.ackWait())
}

// note remembers what a look at the consumer has shown.
func (s *JetStream) note(info *jetstream.ConsumerInfo) {
	s.pending.Store(int64(info.NumPending))
	if info.Created.Equal(s.mark.now.Consumer) {
		s.mark.now.Next = info.AckFloor.Stream + 1
	}
	s.noteShared(info)
	s.noteSeen()
}

// noteSeen remembers what has been delivered.
func (s *JetStream) noteSeen() {
	s.mark.now.Last, s.mark.now.Newest = s.ledger.seen()
	if since := s.reused.Load(); since != 0 { // read last, so that nothing that is seen of new messages is stored without it
		s.mark.now.Reused = time.Unix(0, since).UTC()
	}
}

func (s *JetStream) lookSoon(ctx context.Context, b *binding) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.times.request)
	defer cancel()
	return s.look(ctx, b)
}
