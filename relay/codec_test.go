package relay

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/natsrelay/natsrelay/relay/spool"
)

var compareMessages = cmp.Options{cmpopts.IgnoreUnexported(Message{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Stored{}, "Seq")}

func TestRecordRoundTrip(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	for name, m := range map[string]*Message{
		"bare":    {Subject: "a", ID: "1", Time: at},
		"payload": {Subject: "orders.eu.42", ID: "x-1", Time: at, Data: []byte("{\"n\":1}\x00\xff")},
		"headers": {Subject: "a.b", ID: "2", Time: at, Data: []byte("x"), Header: Header{"B": {"2", "1", ""}, "a": {"é"}, "Status": {"503"}}},
		"stream":  {Subject: "a.b", ID: "ORDERS:9", Time: at, Data: []byte("x"), Stream: "ORDERS", Sequence: 9},
		"late":    {Subject: "a.b", ID: "ORDERS:9", Time: at, Data: []byte("x"), Stream: "ORDERS", Sequence: 9, Late: true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := spool.Record{Seq: 7, Time: at.UnixNano(), Data: appendRecord(nil, m)}
			got, err := DecodeRecord(rec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*m, got.Message, compareMessages); diff != "" {
				t.Errorf("message changed on disk (-want +got):\n%s", diff)
			}
			for cut := range len(rec.Data) - len(m.Data) {
				if _, err := DecodeRecord(spool.Record{Data: rec.Data[:cut]}); err == nil {
					t.Errorf("cut to %d bytes: no error", cut)
				}
			}
		})
	}
}

// FuzzDecodeRecord: no bytes make the decoder panic or take more memory than they are worth,
// and what it accepts is a message that encodes to something equal.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(appendRecord(nil, &Message{Subject: "a.b", ID: "1", Header: Header{"K": {"v", "w"}}, Data: []byte("x")}))
	f.Add(appendRecord(nil, &Message{Subject: "a.b", ID: "1", Stream: "S", Sequence: 300}))
	f.Add([]byte{recordVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeRecord(spool.Record{Data: data})
		if err != nil {
			return
		}
		again, err := DecodeRecord(spool.Record{Data: appendRecord(nil, &m.Message)})
		if err != nil {
			t.Fatalf("encoded again it cannot be read: %v", err)
		}
		if diff := cmp.Diff(m, again, compareMessages); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
