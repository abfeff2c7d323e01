package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
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
	if kind == "http" {
		err = bareHTTP(variant, src, dst)
	} else {
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
