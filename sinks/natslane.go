package sinks

import (
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// A natsLane is what one Deliver needs while it publishes; kept for the next one.
type natsLane struct {
	sink  *NATS
	watch *natsconn.PublishWatch
	msg   natsMessage
}

func newNATSLane(s *NATS) *natsLane {
	return &natsLane{sink: s, watch: s.conn.WatchPublish(), msg: newNATSMessage(s.dedupe)}
}

// publish writes the batch, and marks what the server would never take as refused. It returns how
// many bytes it wrote, counted in the sink's inFlight; an error means that the connection no longer takes any.
func (l *natsLane) publish(epoch natsconn.Epoch, batch []*relay.Message, out []relay.Outcome) (written int64, err error) {
	nc := epoch.Conn()
	maxPayload := nc.MaxPayload()
	for i, m := range batch {
		if l.sink.midBatch != nil {
			l.sink.midBatch(i)
		}
		size, err := l.msg.prepare(m, maxPayload)
		if err == nil {
			err = nc.PublishMsg(&l.msg.Msg)
		}
		switch {
		case err == nil:
			written += size
			l.sink.inFlight.Add(size)
		case isRefusal(err):
			out[i] = relay.Outcome{Status: relay.Refused, Err: err}
		default:
			return written, publishError(err)
		}
	}
	return written, nil
}
