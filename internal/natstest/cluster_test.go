package natstest

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) { Main(m) }

// A replicated stream survives the kill of its leader, and goes on when the node is back.
func TestCluster(t *testing.T) {
	c := StartCluster(t, 3)
	js, err := jetstream.New(c.Client())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	publish := func() bool {
		_, err := js.Publish(context.Background(), "s", nil)
		return err == nil
	}
	Eventually(t, "the stream takes messages", publish)
	c.StepDown("S")
	leader := c.Leader("S")
	leader.Kill()
	Eventually(t, "the stream takes messages without its leader", publish)
	leader.Start()
	c.AwaitReady()
	Eventually(t, "the stream takes messages again", publish)
}
