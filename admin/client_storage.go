package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// The kinds of storage, as a Client names them.
const (
	KindSpool = "spool"
	KindDead  = "dead"
)

// List describes what there is of a kind.
func (c *Client) List(ctx context.Context, kind string) (all []Holding, err error) {
	return all, c.call(ctx, "GET", "/api/v1/"+kind, &all)
}

// Messages writes the messages of a route as JSON lines, and returns how many. seen is called with the number so far.
func (c *Client) Messages(ctx context.Context, kind, route string, which relay.Selection, out io.Writer, seen func(n int)) (n int, err error) {
	err = c.lines(ctx, "GET", routePath(route, kind)+query(which), func(line []byte) error {
		n++
		seen(n)
		_, err := out.Write(line)
		return err
	})
	return n, err
}

// Verify reads every byte of what waits on a route's disk.
func (c *Client) Verify(ctx context.Context, route string, progress func(done, total int64)) (Report, error) {
	last, err := c.progress(ctx, "GET", routePath(route, KindSpool)+"/verify", progress)
	if err != nil {
		return Report{}, err
	}
	if last.Report == nil {
		return Report{}, &NoRelayError{c.addr, errors.New("the answer is not complete")}
	}
	return *last.Report, nil
}

// ReplayDead puts dead letters back into their route.
func (c *Client) ReplayDead(ctx context.Context, route string, which relay.Selection, progress func(done, total int64)) (int, error) {
	last, err := c.progress(ctx, "POST", routePath(route, KindDead)+"/replay"+query(which), progress)
	if err != nil {
		return 0, err
	}
	if last.Moved == nil {
		return 0, &NoRelayError{c.addr, errors.New("the answer is not complete")}
	}
	return *last.Moved, nil
}

// ReplaySpool puts the messages of in, which are JSON lines, into a route, and returns how many.
func (c *Client) ReplaySpool(ctx context.Context, route string, in io.Reader) (int, error) {
	return c.moved(ctx, routePath(route, KindSpool)+"/replay", in)
}

// Drop deletes all that a route has of a kind, and returns how many messages that was.
func (c *Client) Drop(ctx context.Context, kind, route string) (int, error) {
	return c.moved(ctx, routePath(route, kind)+"/drop", strings.NewReader(`{"yes": true}`))
}

func (c *Client) moved(ctx context.Context, path string, body io.Reader) (int, error) {
	res, err := c.doSlow(ctx, "POST", path, body)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var p Progress
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Moved == nil {
		return 0, &NoRelayError{c.addr, fmt.Errorf("the answer is not complete: %w", err)}
	}
	return *p.Moved, nil
}

func routePath(route, kind string) string {
	return "/api/v1/routes/" + url.PathEscape(route) + "/" + kind
}

func query(which relay.Selection) string {
	q := url.Values{}
	if which.Subject != "" {
		q.Set("subject", which.Subject)
	}
	if !which.After.IsZero() {
		q.Set("since", which.After.UTC().Format(time.RFC3339Nano))
	}
	if which.Limit > 0 {
		q.Set("limit", strconv.Itoa(which.Limit))
	}
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
}

// progress makes a request that takes long, and returns the last line of its answer.
func (c *Client) progress(ctx context.Context, method, path string, progress func(done, total int64)) (last Progress, err error) {
	err = c.lines(ctx, method, path, func(line []byte) error {
		last = Progress{}
		if err := json.Unmarshal(line, &last); err != nil {
			return err
		}
		if last.Total > 0 {
			progress(last.Done, last.Total)
		}
		return nil
	})
	return last, err
}

// lines calls fn with each line of the answer. A line that says what went wrong is an error.
func (c *Client) lines(ctx context.Context, method, path string, fn func(line []byte) error) error {
	res, err := c.doSlow(ctx, method, path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	in := bufio.NewReaderSize(res.Body, lineBuffer)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err != nil {
			return &NoRelayError{c.addr, err}
		}
		if bytes.HasPrefix(line, []byte(`{"error":`)) {
			var f failure
			if err := json.Unmarshal(line, &f); err != nil {
				return &NoRelayError{c.addr, err}
			}
			return &AnswerError{http.StatusOK, f.Error}
		}
		if err := fn(line); err != nil {
			return err
		}
	}
}
