package natstest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream is the configuration of a single server with JetStream, which keeps its files in a directory of the test's.
func JetStream(t testing.TB) string {
	return fmt.Sprintf("jetstream: {store_dir: %q, max_mem: 64MB, max_file: 1GB}", filepath.Join(t.TempDir(), "js"))
}

// A Cluster is several nats-servers with JetStream, each in a process of its own, that hold streams of several replicas.
type Cluster struct {
	Nodes []*Process
	t     testing.TB
}

// StartCluster runs n servers until the test ends, and returns when they have a leader. Main must be the package's TestMain.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	ports, routes := make([]int, n), make([]string, n)
	for i := range n {
		ports[i] = FreePort(t)
		routes[i] = fmt.Sprintf("%q", "nats://"+addr(ports[i]))
	}
	c := &Cluster{t: t}
	for i := range n {
		c.Nodes = append(c.Nodes, StartProcess(t, fmt.Sprintf(`
			server_name: n%d
			%s
			cluster: {name: test, listen: %q, routes: [%s], no_advertise: true}`,
			i, JetStream(t), addr(ports[i]), strings.Join(routes, ", "))))
	}
	c.AwaitReady()
	return c
}

// URLs returns the URL of each node.
func (c *Cluster) URLs() (urls []string) {
	for _, n := range c.Nodes {
		urls = append(urls, n.URL())
	}
	return urls
}

// Client connects straight to whichever node is there, and closes with the test.
func (c *Cluster) Client(opts ...nats.Option) *nats.Conn {
	c.t.Helper()
	return client(c.t, strings.Join(c.URLs(), ","), opts)
}

// AwaitReady waits until the cluster takes a stream with as many replicas as it has nodes.
func (c *Cluster) AwaitReady() {
	c.t.Helper()
	nc := c.Client()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	Eventually(c.t, "the cluster holds a replicated stream", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		cfg := jetstream.StreamConfig{Name: "natstest_ready", Subjects: []string{"natstest.ready"}, Replicas: len(c.Nodes), Storage: jetstream.MemoryStorage}
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return false
		}
		return js.DeleteStream(ctx, cfg.Name) == nil
	})
}

// Leader returns the node that leads a stream, once there is one.
func (c *Cluster) Leader(stream string) *Process {
	c.t.Helper()
	return c.await(stream, func() *Process { return c.leader(stream) })
}

// ConsumerLeader returns the node that leads a consumer, once there is one.
func (c *Cluster) ConsumerLeader(stream, consumer string) *Process {
	c.t.Helper()
	return c.await(consumer, func() *Process { return c.consumerLeader(stream, consumer) })
}

func (c *Cluster) await(what string, leader func() *Process) (node *Process) {
	c.t.Helper()
	Eventually(c.t, what+" has a leader", func() bool { node = leader(); return node != nil })
	return node
}

// leader returns the node that leads a stream, nil if there is none at present.
func (c *Cluster) leader(stream string) *Process {
	info := c.streamInfo(stream)
	if info == nil || info.Cluster == nil {
		return nil
	}
	return c.node(info.Cluster.Leader)
}

// consumerLeader returns the node that leads a consumer, nil if there is none at present.
func (c *Cluster) consumerLeader(stream, consumer string) *Process {
	var leader string
	c.withJetStream(func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) {
		if o, err := js.Consumer(ctx, stream, consumer); err == nil && o.CachedInfo().Cluster != nil {
			leader = o.CachedInfo().Cluster.Leader
		}
	})
	return c.node(leader)
}

// StepDown makes the leader of a stream give way to another node, and waits for that.
func (c *Cluster) StepDown(stream string) {
	c.t.Helper()
	c.stepDown(stream, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, func() *Process { return c.leader(stream) })
}

// StepDownConsumer does the same to the leader of a consumer.
func (c *Cluster) StepDownConsumer(stream, consumer string) {
	c.t.Helper()
	c.stepDown(consumer, "$JS.API.CONSUMER.LEADER.STEPDOWN."+stream+"."+consumer, func() *Process { return c.consumerLeader(stream, consumer) })
}

func (c *Cluster) stepDown(what, subject string, leader func() *Process) {
	c.t.Helper()
	before := c.await(what, leader)
	var asked time.Time
	Eventually(c.t, what+" has another leader", func() bool {
		now := leader()
		if now == before && time.Since(asked) > 3*time.Second { // the others may have chosen it again, since they are behind
			asked = time.Now()
			c.withJetStream(func(ctx context.Context, nc *nats.Conn, _ jetstream.JetStream) {
				_, _ = nc.RequestWithContext(ctx, subject, nil) // without an answer, it is asked again
			})
		}
		return now != nil && now != before
	})
}

func (c *Cluster) streamInfo(stream string) (info *jetstream.StreamInfo) {
	c.withJetStream(func(ctx context.Context, _ *nats.Conn, js jetstream.JetStream) {
		if s, err := js.Stream(ctx, stream); err == nil {
			info = s.CachedInfo()
		}
	})
	return info
}

func (c *Cluster) withJetStream(do func(context.Context, *nats.Conn, jetstream.JetStream)) {
	c.t.Helper()
	nc := c.Client()
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	do(ctx, nc, js)
}

// node returns the one of that name, nil if there is none.
func (c *Cluster) node(name string) *Process {
	for i, n := range c.Nodes {
		if name == fmt.Sprintf("n%d", i) {
			return n
		}
	}
	return nil
}
