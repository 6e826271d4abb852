package netbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Load is one round of one workload, as the source drives it.
type Load struct {
	Workload string        `json:"workload"`
	Target   string        `json:"target"`            // host:port
	Sources  string        `json:"sources,omitempty"` // a network; connections start from addresses in it
	Streams  int           `json:"streams"`
	Size     int           `json:"size"`
	Pairs    int           `json:"pairs,omitempty"`
	Rate     float64       `json:"rate,omitempty"` // exchanges per second over all streams
	Warmup   time.Duration `json:"warmup"`
	Duration time.Duration `json:"duration"`
	MaxConns int           `json:"max_conns,omitempty"` // of conn: what ports allow; 0 is no limit
}

// Outcome is what the source found out in one round.
type Outcome struct {
	BytesPerS   float64 `json:"bytes_per_s,omitempty"`
	OpsPerS     float64 `json:"ops_per_s,omitempty"` // exchanges or connections
	AloneBytesS float64 `json:"alone_bytes_per_s,omitempty"`
	// HeldPerStalled is how many bytes a stream of mixed had taken whose reader
	// had stalled.
	HeldPerStalled float64 `json:"held_per_stalled,omitempty"`

	Sent     int64 `json:"sent,omitempty"`     // payload, by the source
	Received int64 `json:"received,omitempty"` // payload, by the sink

	TCP    transport `json:"tcp"`
	Sndbuf int       `json:"sndbuf,omitempty"`
	Rcvbuf int       `json:"rcvbuf,omitempty"`

	Latency     string   `json:"latency,omitempty"` // HdrHistogram, nanoseconds
	ScheduleLag string   `json:"schedule_lag,omitempty"`
	Notes       []string `json:"notes,omitempty"`
}

// A Phase is a moment of a round at which the observer may want to look at the
// machine.
type Phase string

// The phases, in their order. The later ones are missing when the round fails.
const (
	PhaseBegin   Phase = "begin"   // idle: no pair is there yet
	PhaseMeasure Phase = "measure" // the warm-up is over
	PhaseStop    Phase = "stop"    // the load is about to end
	PhaseJoined  Phase = "joined"  // idle: all pairs are there
	PhaseRelease Phase = "release" // idle: they are about to close
)

// A Source is the near end: it drives one [Load] after the other.
type Source struct {
	// OnPhase is called at each phase; the load goes on when it has returned.
	OnPhase func(Phase)
	// Moved counts bytes (bulk) or operations while the load runs.
	Moved atomic.Int64

	pattern *pattern
	// patience is how long a connection may be silent that should be moving.
	patience time.Duration
}

// NewSource makes a source.
func NewSource(onPhase func(Phase)) *Source {
	return &Source{OnPhase: onPhase, pattern: newPattern(), patience: answerTimeout}
}

// settle is how long a load waits for the last of its streams to begin, after
// the first.
func (s *Source) settle() time.Duration { return min(longestSettle, s.patience) }

// noteLate says that a load was measured with less streams than it has.
func (o *Outcome) noteLate(late, streams int) {
	if late > 0 {
		o.Notes = append(o.Notes, fmt.Sprintf("%d of %d streams had moved nothing yet when the load's time began", late, streams))
	}
}

// longestSettle is the usual settling time.
const longestSettle = 2 * time.Second

// answerTimeout is the usual patience.
const answerTimeout = 10 * time.Second

// Run drives the load. An error means that the path did not do what a relay
// must do; there are no figures then.
func (s *Source) Run(ctx context.Context, load Load) (*Outcome, error) {
	s.Moved.Store(0)
	switch load.Workload {
	case WorkloadBulk:
		return s.bulk(ctx, load, false)
	case WorkloadBulkBoth:
		return s.bulk(ctx, load, true)
	case WorkloadRR:
		return s.rr(ctx, load)
	case WorkloadRROpen:
		return s.rrOpen(ctx, load)
	case WorkloadConn:
		return s.conn(ctx, load)
	case WorkloadIdle:
		return s.idle(ctx, load)
	case WorkloadMixed:
		return s.mixed(ctx, load)
	default:
		return nil, fmt.Errorf("unknown workload %q", load.Workload)
	}
}

// stream is one connection of the source.
type stream struct {
	*net.TCPConn
	header header
	sent   int64
}

// connect only connects. n chooses the source address.
func (s *Source) connect(ctx context.Context, load Load, n int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: s.patience, KeepAlive: -1}
	if load.Sources != "" {
		from, err := nthAddress(load.Sources, n)
		if err != nil {
			return nil, err
		}
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
		dialer.Control = lateBind
	}
	conn, err := dialer.DialContext(ctx, "tcp", load.Target)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// dial connects and sends the header.
func (s *Source) dial(ctx context.Context, load Load, n int, h header) (*stream, error) {
	conn, err := s.connect(ctx, load, n)
	if err != nil {
		return nil, err
	}
	h.stream = rand.Uint64() &^ responseBit
	st := &stream{TCPConn: conn, header: h}
	if err = st.SetDeadline(time.Now().Add(s.patience)); err == nil {
		_, err = st.Write(h.marshal())
	}
	if err == nil {
		err = st.SetDeadline(time.Time{})
	}
	if err != nil {
		st.Close()
		return nil, fmt.Errorf("send header: %w", err)
	}
	return st, nil
}

// dialAll makes n streams.
func (s *Source) dialAll(ctx context.Context, load Load, n int, h header) (streams []*stream, err error) {
	for i := range n {
		st, err := s.dial(ctx, load, i, h)
		if err != nil {
			closeStreams(streams)
			return nil, err
		}
		streams = append(streams, st)
	}
	return streams, nil
}

func closeStreams(streams []*stream) {
	for _, st := range streams {
		st.Close()
	}
}

// finish sends the FIN and has the sink's word on the whole connection. If the
// sink sends a stream of its own, received is what was verified of it.
func (s *Source) finish(st *stream, r io.Reader, received int64) (verdict, error) {
	if err := st.CloseWrite(); err != nil {
		return verdict{}, fmt.Errorf("close one direction: %w", err)
	}
	tail := newTail(s.pattern, st.header.stream|responseBit, received)
	for {
		_, err := tail.readFrom(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return verdict{}, s.explain(err)
		}
	}
	return s.judge(st, tail)
}

// judge compares the sink's verdict with what this side knows.
func (s *Source) judge(st *stream, tail *tail) (verdict, error) {
	if tail.held < verdictSize {
		return verdict{}, errors.New("the connection ended without the sink's answer: the half-close was not kept, or bytes were lost")
	}
	v, err := parseVerdict(tail.buf[:verdictSize])
	switch {
	case err != nil:
		return v, err
	case v.Error != "":
		return v, fmt.Errorf("sink: %s", v.Error)
	case v.Received != st.sent:
		return v, fmt.Errorf("the sink received %d bytes of %d", v.Received, st.sent)
	case v.Sent != tail.verified:
		return v, fmt.Errorf("the source received %d bytes of %d", tail.verified, v.Sent)
	}
	return v, nil
}

// checkResponse verifies a response. A sink that found the request to be wrong
// answers with its verdict instead, the rest of which is read from r.
func (s *Source) checkResponse(r io.Reader, st *stream, offset int64, response []byte) error {
	mismatch := s.pattern.check(st.header.stream|responseBit, offset, response)
	if mismatch == nil {
		return nil
	}
	if n := min(len(response), len(verdictMagic)); string(response[:n]) == verdictMagic[:n] {
		b := make([]byte, verdictSize)
		n := copy(b, response)
		if _, err := io.ReadFull(r, b[n:]); err == nil {
			if v, err := parseVerdict(b); err == nil && v.Error != "" {
				return fmt.Errorf("sink: %s", v.Error)
			}
		}
	}
	return fmt.Errorf("source: %w", mismatch)
}

// explain says what a silence after the FIN means.
func (s *Source) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("no answer for %v after the end of the stream: the half-close was not forwarded, or bytes are stuck", s.patience)
	}
	return fmt.Errorf("after the end of the stream: %w", err)
}

// tail verifies a stream whose last verdictSize bytes are not part of it.
type tail struct {
	pattern  *pattern
	stream   uint64
	verified int64
	buf      []byte
	held     int // bytes at the front of buf that may be the verdict
}

func newTail(p *pattern, stream uint64, verified int64) *tail {
	return &tail{pattern: p, stream: stream, verified: verified, buf: make([]byte, verdictSize+readSize)}
}

// readFrom reads once, and verifies what can't be the verdict any more. It
// returns how much that was.
func (t *tail) readFrom(r io.Reader) (int, error) {
	n, err := r.Read(t.buf[t.held:])
	t.held += n
	sure := max(t.held-verdictSize, 0)
	if mismatch := t.pattern.check(t.stream, t.verified, t.buf[:sure]); mismatch != nil {
		return 0, mismatch
	}
	t.verified += int64(sure)
	copy(t.buf, t.buf[sure:t.held])
	t.held -= sure
	return sure, err
}

// nthAddress returns one of the addresses of a network.
func nthAddress(network string, n int) (netip.Addr, error) {
	const most = 1 << 10 // enough: each has its own tens of thousands of ports
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("source addresses: %w", err)
	}
	b := prefix.Masked().Addr().As4()
	n = n%most + 1
	b[2], b[3] = b[2]+byte(n>>8), byte(n)
	return netip.AddrFrom4(b), nil
}

const (
	shortestLatency = 1           // ns
	longestLatency  = int64(60e9) // ns
	latencyDigits   = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(shortestLatency, longestLatency, latencyDigits)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), shortestLatency), longestLatency)) // it is in range
}

// encode returns it compressed, in base64.
func encode(h *hdrhistogram.Histogram) (string, error) {
	b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return "", fmt.Errorf("encode histogram: %w", err)
	}
	return string(b), nil
}
