package sinks

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// The answers are as nats-server 2.15 writes them.
func TestReadAck(t *testing.T) {
	full := &apiError{503, 10077, "maximum messages exceeded"}
	for data, want := range map[string]ack{
		`{"stream":"T","seq":22}`:                         {kind: ackStored, stream: "T", seq: 22},
		`{"stream":"T","domain":"hub","seq":22}`:          {kind: ackStored, stream: "T", seq: 22},
		`{"stream":"T","domain":"h\"b","seq":22}`:         {kind: ackStored, stream: "T", seq: 22},
		`{"stream":"T","seq":22,"duplicate": true}`:       {kind: ackStored, stream: "T", seq: 22, duplicate: true},
		`{"stream":"T","seq":22,"batch":"x","count":500}`: {kind: ackStored, stream: "T", seq: 22, count: 500},
		`{"stream":"T","seq":0,"batch":"x","count":500}`:  {kind: ackStored, stream: "T", count: 500},
		`{"stream":"T","seq":18446744073709551615}`:       {kind: ackStored, stream: "T", seq: 1<<64 - 1},
		`{"type":"ack","seq":500,"msgs":250}`:             {kind: ackFlow, seq: 500},
		`{"type":"gap","last_seq":3,"seq":5}`:             {kind: ackGap, seq: 5},
		`{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"T","seq":0}`: {kind: ackError, stream: "T", err: full},
		`{"type":"err","seq":7,"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`: {kind: ackError, seq: 7, err: full},
		`{"stream":"U","seq":22}`: {kind: ackError, err: &apiError{400, 0, `the subject is stream "U"'s, and not "T"'s`}},
		`{"stream":"T"}`:          {kind: ackError, err: &apiError{Description: `the answer is not an acknowledgement: "{\"stream\":\"T\"}"`}},
		`{"stream":"T","seq":0}`:  {kind: ackError, err: &apiError{Description: `the answer is not an acknowledgement: "{\"stream\":\"T\",\"seq\":0}"`}},
		`+OK`:                     {kind: ackError, err: &apiError{Description: `the answer is not an acknowledgement: "+OK"`}},
		``:                        {kind: ackError, err: &apiError{Description: `the answer is not an acknowledgement: ""`}},
	} {
		got := readAck(&nats.Msg{Data: []byte(data)}, "T")
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(ack{})); diff != "" {
			t.Errorf("%s (-want +got)\n%s", data, diff)
		}
	}
	got := readAck(&nats.Msg{Header: nats.Header{"Status": {"503"}}}, "T")
	if got.kind != ackError || judge(got.err) != verdictNobody {
		t.Errorf("no responders: %+v", got)
	}
}

// FuzzParsePlainAck: what it reads, package json reads as the same.
func FuzzParsePlainAck(f *testing.F) {
	for _, seed := range []string{
		`{"stream":"T","seq":22}`, `{"stream":"T","domain":"hub","seq":22}`, `{"stream":"T","seq":022}`, `{"stream":"T","seq":9999999999999999999}`,
		`{"stream":"T","domain":"h\u0062","seq":1}`, `{"stream":"T","seq":22,"duplicate": true}`, `{"stream":"T","seq":1}}`, `{"stream":"T","domain":"`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := parsePlainAck(data, "T")
		if !ok {
			return
		}
		var want ackJSON
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("%q is read as %+v, and is not JSON: %v", data, got, err)
		}
		if got.kind != ackStored || got.stream != want.Stream || got.seq != want.Seq || want.Duplicate || want.Error != nil || want.Count != 0 {
			t.Errorf("%q is read as %+v, and means %+v", data, got, want)
		}
	})
}

// FuzzParseAck: whatever comes in is one kind of answer, and an error has its reason.
func FuzzParseAck(f *testing.F) {
	f.Add([]byte(`{"type":"err","seq":7,"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}`))
	f.Add([]byte(`{"type":"gap","last_seq":3,"seq":5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := parseAck(data, "T")
		if a.kind == ackNone || a.kind == ackError && a.err == nil {
			t.Errorf("%q is read as %+v", data, a)
		}
		if a.kind == ackError {
			judge(a.err)
		}
	})
}

// Every code in the table is one of nats-server's, and every code that a publish can be answered with, by its sources, is in the table.
func TestVerdicts(t *testing.T) {
	codes := map[int]string{}
	for _, e := range server.ApiErrors {
		codes[int(e.ErrCode)] = e.Description
	}
	for code := range verdicts {
		if codes[code] == "" {
			t.Errorf("nats-server has no error %d", code)
		}
	}
	for _, id := range []server.ErrorIdentifier{
		server.JSAccountResourcesExceededErr, server.JSInsufficientResourcesErr, server.JSStreamMessageExceedsMaximumErr, server.JSStreamHeaderExceedsMaximumErr,
		server.JSStreamSealedErr, server.JSStreamNotMatchErr, server.JSStreamWrongLastMsgIDErrF, server.JSStreamDuplicateMessageConflict,
		server.JSStreamTooManyRequests, server.JSStreamSequenceNotMatchErr, server.JSMessageTTLDisabledErr, server.JSMessageTTLInvalidErr,
		server.JSMessageIncrDisabledErr, server.JSMessageIncrInvalidErr, server.JSMessageIncrMissingErr, server.JSMessageIncrPayloadErr,
		server.JSMessageCounterBrokenErr, server.JSMessageSchedulesDisabledErr, server.JSMessageSchedulesPatternInvalidErr,
		server.JSMessageSchedulesRollupInvalidErr, server.JSMessageSchedulesSchedulerInvalidErr, server.JSMessageSchedulesSourceInvalidErr,
		server.JSMessageSchedulesTTLInvalidErr, server.JSMessageSchedulesTargetInvalidErr, server.JSMessageSchedulesTimeZoneInvalidErr,
		server.JSMessageSourceHdrNotAllowedErr, server.JSRequiredApiLevelErr, server.JSStreamRollupFailedF,
		server.JSBatchPublishDisabledErr, server.JSBatchPublishInvalidBatchIDErr, server.JSBatchPublishInvalidPatternErr,
		server.JSBatchPublishTooManyInflight, server.JSBatchPublishUnknownBatchIDErr,
	} {
		if _, ok := verdicts[int(server.ApiErrors[id].ErrCode)]; !ok {
			t.Errorf("%d (%s) has no verdict", server.ApiErrors[id].ErrCode, server.ApiErrors[id].Description)
		}
	}
	for _, c := range []struct {
		err  error // of the server's storage
		want verdict
	}{
		{server.ErrMaxMsgs, verdictRetry}, {server.ErrMaxBytes, verdictRetry}, {server.ErrMaxMsgsPerSubject, verdictRetry},
		{server.ErrMsgTooLarge, verdictRefused}, {errors.New("disk on fire"), verdictRetry},
	} {
		if got := judge(&apiError{503, storeFailed, c.err.Error()}); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
	for _, e := range []apiError{{Code: 400, ErrCode: 19999}, {Code: 404, ErrCode: 19998}} {
		if judge(&e) != verdictBlocked {
			t.Errorf("an unknown %d does not block", e.Code)
		}
	}
	if judge(&apiError{Code: 500, ErrCode: 19999}) != verdictRetry {
		t.Error("an unknown 500 is not tried again")
	}
}
