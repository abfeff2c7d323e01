package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// bareArg makes the test binary a bare loop: bareArg KIND VARIANT SRC DST.
const bareArg = "bare-loop"

func bareLoop(kind, variant string) mover {
	return func(b *testing.B, src, dst string) *process {
		return startProcess(b, os.Args[0], bareArg, kind, variant, src, dst)
	}
}

func bareMain(args []string) {
	kind, variant, src, dst := args[0], args[1], args[2], args[3]
	var err error
	switch kind {
	case "http":
		err = bareHTTP(variant, src, dst)
	case "stream":
		err = bareStream(variant == "ids", src, dst)
	case "stream-http":
		err = bareStreamHTTP(variant, src, dst)
	default:
		err = bareCore(variant == "headers", src, dst)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bare loop:", err)
		os.Exit(1)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
}

// bareCore publishes what it receives; with headers, it adds the two that the relay adds.
func bareCore(headers bool, src, dst string) error {
	out, err := nats.Connect(dst, nats.SkipSubjectValidation())
	if err != nil {
		return err
	}
	ids := nuid.New()
	id := []string{""}
	header := nats.Header{"Natsrelay-Via": {"bench/bench"}, "Nats-Msg-Id": id}
	return subscribe(src, func(m *nats.Msg) {
		if !headers {
			out.Publish(m.Subject, m.Data)
			return
		}
		id[0] = ids.Next()
		out.PublishMsg(&nats.Msg{Subject: m.Subject, Data: m.Data, Header: header})
	})
}

// bareHTTP posts what it receives. shape is "LANESxBATCH": how many goroutines post, and how many messages, with newlines between them, at most.
func bareHTTP(shape, src, url string) error {
	var lanes, batch int
	if _, err := fmt.Sscanf(shape, "%dx%d", &lanes, &batch); err != nil {
		return err
	}
	work := make(chan *nats.Msg, 2*ahead)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: lanes}}
	for range lanes {
		go func() {
			for m := range work {
				body := m.Data
				if batch > 1 {
					body = joinMore(m, work, batch-1)
				}
				res, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
				if err := finish(res, err); err != nil {
					fmt.Fprintln(os.Stderr, "bare loop:", err)
					os.Exit(1)
				}
			}
		}()
	}
	return subscribe(src, func(m *nats.Msg) { work <- m })
}

// bareStream pulls from a stream, publishes to the other server's, and acknowledges what that one has acknowledged. With ids, it sends one
// with each message, as the relay does.
func bareStream(ids bool, src, dst string) error {
	out, err := nats.Connect(dst)
	if err != nil {
		return err
	}
	js, err := jetstream.New(out, jetstream.WithPublishAsyncMaxPending(pulled))
	if err != nil {
		return err
	}
	type published struct {
		m    jetstream.Msg
		done jetstream.PubAckFuture
	}
	futures := make(chan published, pulled)
	go func() {
		for p := range futures {
			select {
			case <-p.done.Ok():
				p.m.Ack()
			case err := <-p.done.Err():
				fmt.Fprintln(os.Stderr, "bare loop:", err)
				os.Exit(1)
			}
		}
	}()
	return consume(src, func(m jetstream.Msg) {
		msg := &nats.Msg{Subject: m.Subject(), Data: m.Data()}
		if ids {
			meta, err := m.Metadata()
			if err != nil {
				fmt.Fprintln(os.Stderr, "bare loop:", err)
				os.Exit(1)
			}
			msg.Header = nats.Header{"Nats-Msg-Id": {meta.Stream + ":" + strconv.FormatUint(meta.Sequence.Stream, 10)}}
		}
		done, err := js.PublishMsgAsync(msg, jetstream.WithStallWait(time.Minute))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bare loop:", err)
			os.Exit(1)
		}
		futures <- published{m, done}
	})
}

// bareStreamHTTP pulls from a stream, posts, and acknowledges. shape is as for bareHTTP.
func bareStreamHTTP(shape, src, url string) error {
	var lanes, batch int
	if _, err := fmt.Sscanf(shape, "%dx%d", &lanes, &batch); err != nil {
		return err
	}
	work := make(chan jetstream.Msg, pulled)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: lanes}}
	for range lanes {
		go func() {
			for m := range work {
				msgs, body := []jetstream.Msg{m}, slices.Clone(m.Data())
			more:
				for len(msgs) < batch {
					select {
					case m := <-work:
						msgs, body = append(msgs, m), append(append(body, '\n'), m.Data()...)
					default:
						break more
					}
				}
				res, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
				if err := finish(res, err); err != nil {
					fmt.Fprintln(os.Stderr, "bare loop:", err)
					os.Exit(1)
				}
				for _, m := range msgs {
					m.Ack()
				}
			}
		}()
	}
	return consume(src, func(m jetstream.Msg) { work <- m })
}

// pulled is how many messages a bare loop may have under way: what the relay has by default.
const pulled = 4096

func consume(src string, handle func(jetstream.Msg)) error {
	in, err := nats.Connect(src)
	if err != nil {
		return err
	}
	js, err := jetstream.New(in)
	if err != nil {
		return err
	}
	c, err := js.CreateConsumer(context.Background(), "SRC", jetstream.ConsumerConfig{Durable: "bare", MaxAckPending: pulled})
	if err != nil {
		return err
	}
	_, err = c.Consume(handle, jetstream.PullMaxMessages(pulled))
	return err
}

// joinMore appends to the payload of m those of up to n more messages that are there.
func joinMore(m *nats.Msg, work <-chan *nats.Msg, n int) []byte {
	body := slices.Clone(m.Data)
	for range n {
		select {
		case m := <-work:
			body = append(append(body, '\n'), m.Data...)
		default:
			return body
		}
	}
	return body
}

func subscribe(src string, handle nats.MsgHandler) error {
	in, err := nats.Connect(src)
	if err != nil {
		return err
	}
	sub, err := in.QueueSubscribe("bench.>", "bench", handle)
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	return in.Flush()
}
