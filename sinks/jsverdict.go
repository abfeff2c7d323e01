package sinks

import "strings"

// A verdict is what an error of a stream means for the message that it was given for, and for those behind it.
type verdict uint8

const (
	verdictRetry   verdict = iota // the stream cannot at present: send again
	verdictBlocked                // somebody has to mend the stream, or the configuration
	verdictRefused                // the stream will never take this message, others it will
	verdictAgain                  // a condition of ours does not hold: another one writes to the stream, or a message was lost
	verdictNobody                 // no stream listens: it has no leader at present, or there is none for the subject
	verdictNoBatch                // fast ingest is not to be had
)

// noResponders is the code of an answer that says that there is nobody to answer.
const noResponders = 503

// verdicts are by nats-server's err_code (server/errors.json). Codes that no publish is answered with are left out.
var verdicts = map[int]verdict{
	// The stream's state, or the cluster's.
	10002: verdictRetry,   // resource limits exceeded for account
	10008: verdictRetry,   // JetStream system temporarily unavailable
	10009: verdictRetry,   // not the leader
	10023: verdictRetry,   // insufficient resources
	10028: verdictRetry,   // insufficient memory
	10047: verdictRetry,   // insufficient storage
	10063: verdictRetry,   // a replica is out of step
	10118: verdictRetry,   // stream is offline
	10158: verdictRetry,   // the same id is on its way into the stream: whether it gets there is to be seen
	10167: verdictRetry,   // too many requests
	10194: verdictRetry,   // stream is offline, with the reason
	10039: verdictBlocked, // JetStream not enabled for account
	10059: verdictBlocked, // stream not found
	10060: verdictBlocked, // expected stream does not match
	10076: verdictBlocked, // JetStream not enabled
	10109: verdictBlocked, // sealed
	10169: verdictBlocked, // the stream is for counters only

	// The message.
	10054: verdictRefused, // message size exceeds maximum
	10097: verdictRefused, // header size exceeds maximum
	10111: verdictRefused, // Nats-Rollup not permitted, or not valid
	10165: verdictRefused, // Nats-TTL not valid
	10166: verdictRefused, // Nats-TTL not permitted
	10168: verdictRefused, // Nats-Incr not permitted
	10170: verdictRefused, // Nats-Incr with a payload
	10171: verdictRefused, // Nats-Incr not valid
	10172: verdictRefused, // the counter on this subject is broken
	10185: verdictRefused, // Nats-Required-Api-Level is above the server's
	10188: verdictRefused, // Nats-Schedule not permitted, or not valid
	10189: verdictRefused,
	10190: verdictRefused,
	10191: verdictRefused,
	10192: verdictRefused,
	10203: verdictRefused,
	10212: verdictRefused,
	10223: verdictRefused,
	10227: verdictRefused, // Nats-Stream-Source

	// Our own doing.
	10070: verdictAgain,   // wrong last msg ID
	10208: verdictAgain,   // fast ingest: the batch is gone
	10205: verdictNoBatch, // fast ingest: disabled
	10206: verdictNoBatch, // fast ingest: the reply subject is not understood
	10207: verdictNoBatch, // fast ingest: the id is not understood
	10211: verdictNoBatch, // fast ingest: too many batches at a time
}

// storeFailed is for several reasons, which only its text tells apart.
const storeFailed = 10077

// judge says what an error of a publish means. Of an unknown one only this is certain, that nothing must be dropped for it.
func judge(e *apiError) verdict {
	if v, ok := verdicts[e.ErrCode]; ok {
		return v
	}
	switch {
	case e.ErrCode == 0 && e.Code == noResponders:
		return verdictNobody
	case e.ErrCode == storeFailed && strings.Contains(e.Description, "message too large"):
		return verdictRefused
	case e.ErrCode == storeFailed: // maximum messages, bytes, or messages per subject exceeded
		return verdictRetry
	case e.Code >= 400 && e.Code < 500:
		return verdictBlocked
	}
	return verdictRetry
}
