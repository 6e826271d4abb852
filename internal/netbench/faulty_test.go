package netbench_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

// forwarder carries one direction of a connection, in its own way.
type forwarder func(dst, src *net.TCPConn)

// plain hides how to splice: Go may keep the pipes of its splices for longer than
// [testnet.Leaks] waits.
type plain struct{ io.Writer }

// faithful forwards everything, and the end.
func faithful(dst, src *net.TCPConn) {
	if _, err := io.Copy(plain{dst}, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	dst.CloseWrite()
}

// changed passes every block through change, which says whether to go on.
func changed(change func(offset int64, block []byte) (out []byte, more bool)) forwarder {
	return func(dst, src *net.TCPConn) {
		buf := make([]byte, 32<<10)
		for offset := int64(0); ; {
			n, err := src.Read(buf)
			out, more := change(offset, buf[:n])
			offset += int64(n)
			if _, writeErr := dst.Write(out); writeErr != nil || !more {
				break
			}
			if errors.Is(err, io.EOF) {
				dst.CloseWrite()
				return
			}
			if err != nil {
				break
			}
		}
		dst.Close()
		src.Close()
	}
}

// faultAt is where the stream is spoilt: behind the header, within what every
// workload sends.
const faultAt = 100

// flipBit spoils one byte.
func flipBit(offset int64, block []byte) ([]byte, bool) {
	if at := faultAt - offset; at >= 0 && at < int64(len(block)) {
		block[at] ^= 1
	}
	return block, true
}

// flipEarly spoils one byte of the first that come back.
func flipEarly(offset int64, block []byte) ([]byte, bool) {
	const early = 10
	if at := early - offset; at >= 0 && at < int64(len(block)) {
		block[at] ^= 1
	}
	return block, true
}

// flipLate spoils one byte of a stream, far from its start.
func flipLate(offset int64, block []byte) ([]byte, bool) {
	const late = 5_000_000
	if at := late - offset; at >= 0 && at < int64(len(block)) {
		block[at] ^= 0x80
	}
	return block, true
}

// swallow leaves a block out.
func swallow(offset int64, block []byte) ([]byte, bool) {
	if offset > faultAt && offset < faultAt+100_000 {
		return nil, true
	}
	return block, true
}

// repeat sends a block twice.
func repeat(offset int64, block []byte) ([]byte, bool) {
	if offset > faultAt && offset < faultAt+100_000 {
		return append(block[:len(block):len(block)], block...), true
	}
	return block, true
}

// stutter sends a byte twice, in the first block.
func stutter(offset int64, block []byte) ([]byte, bool) {
	if offset == 0 && len(block) > 0 {
		return append(block[:len(block):len(block)], block[len(block)-1]), true
	}
	return block, true
}

// repeatLast sends the last byte of the stream twice.
func repeatLast(dst, src *net.TCPConn) {
	var last []byte
	_, err := io.Copy(dst, io.TeeReader(src, writerFunc(func(block []byte) {
		last = append(last[:0], block[len(block)-1])
	})))
	if err != nil {
		dst.Close()
		src.Close()
		return
	}
	_, _ = dst.Write(last) // the end is what is looked at
	dst.CloseWrite()
}

type writerFunc func(block []byte)

func (f writerFunc) Write(block []byte) (int, error) {
	if len(block) > 0 {
		f(block)
	}
	return len(block), nil
}

// flipInVerdict spoils a byte of what the sink says in the end to a source that
// it sends nothing else: one that is only there to fill the block.
func flipInVerdict(offset int64, block []byte) ([]byte, bool) {
	const padding = 1000
	if at := padding - offset; at >= 0 && at < int64(len(block)) {
		block[at] ^= 1
	}
	return block, true
}

// truncate ends the stream, cleanly.
func truncate(offset int64, block []byte) ([]byte, bool) {
	return block, offset+int64(len(block)) < 3_000_000
}

// deaf does not forward the end.
func deaf(dst, src *net.TCPConn) { _, _ = io.Copy(plain{dst}, src) }

// hasty takes the end of one direction for that of both.
func hasty(dst, src *net.TCPConn) {
	_, _ = io.Copy(plain{dst}, src)
	dst.Close()
	src.Close()
}

// startRelay serves until the test ends.
func startRelay(t *testing.T, target string, toSink, toSource forwarder) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, server)
			mu.Unlock()
			wg.Go(func() {
				defer client.Close()
				defer server.Close()
				var back sync.WaitGroup
				back.Go(func() { toSource(client.(*net.TCPConn), server.(*net.TCPConn)) })
				toSink(server.(*net.TCPConn), client.(*net.TCPConn))
				back.Wait()
			})
		}
	})
	return ln.Addr().String()
}

// startSink serves until the test ends.
func startSink(t *testing.T) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := netbench.ListenSink(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- netbench.NewSink().Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func testLoad(workload, target string) netbench.Load {
	load := netbench.Load{
		Workload: workload, Target: target, Streams: 2, Size: 64, Pairs: 20, Rate: 1000,
		Warmup: 20 * time.Millisecond, Duration: 100 * time.Millisecond,
	}
	switch workload {
	case netbench.WorkloadBulk, netbench.WorkloadBulkBoth, netbench.WorkloadMixed:
		load.Size = 64 << 10
	}
	return load
}

func runLoad(t *testing.T, load netbench.Load, patience time.Duration) (*netbench.Outcome, error) {
	t.Helper()
	source := netbench.NewSource(func(netbench.Phase) {})
	source.SetPatience(patience)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return source.Run(ctx, load)
}

func TestFaithfulRelayPasses(t *testing.T) {
	for _, workload := range netbench.Workloads() {
		t.Run(workload, func(t *testing.T) {
			testnet.Leaks(t)
			target := startRelay(t, startSink(t), faithful, faithful)
			outcome, err := runLoad(t, testLoad(workload, target), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			switch workload {
			case netbench.WorkloadBulk, netbench.WorkloadBulkBoth:
				if outcome.BytesPerS <= 0 || outcome.Sent == 0 || outcome.Sent != outcome.Received {
					t.Errorf("implausible: %+v", outcome)
				}
			case netbench.WorkloadRR, netbench.WorkloadRROpen, netbench.WorkloadConn:
				if outcome.OpsPerS <= 0 || outcome.Latency == "" {
					t.Errorf("implausible: %+v", outcome)
				}
			case netbench.WorkloadMixed:
				if outcome.BytesPerS <= 0 || outcome.AloneBytesS <= 0 {
					t.Errorf("implausible: %+v", outcome)
				}
			}
		})
	}
}

func TestFaultyRelayIsCaught(t *testing.T) {
	all := netbench.Workloads()
	streams := []string{netbench.WorkloadBulk, netbench.WorkloadBulkBoth, netbench.WorkloadMixed}
	for _, fault := range []struct {
		name             string
		toSink, toSource forwarder
		workloads        []string
		want             string // in the error, if it is always the same
	}{
		{"flips a bit to the sink", changed(flipBit), faithful, all, ""},
		{"flips a bit to the source", faithful, changed(flipBit), []string{
			netbench.WorkloadBulkBoth, netbench.WorkloadRR, netbench.WorkloadRROpen, netbench.WorkloadIdle,
		}, ""},
		{"flips an early bit to the source", faithful, changed(flipEarly), all, ""},
		{"flips a late bit to the sink", changed(flipLate), faithful, streams, "byte 4999936 of the stream"},
		{"leaves out a block", changed(swallow), faithful, streams, "of the stream is"},
		{"repeats a block", changed(repeat), faithful, streams, "of the stream is"},
		{"repeats a byte to the sink", changed(stutter), faithful, all, ""},
		{"repeats a byte to the source", faithful, changed(stutter), all, ""},
		{"repeats the last byte to the sink", repeatLast, faithful, all, ""},
		{"repeats the last byte to the source", faithful, repeatLast, all, ""},
		{"flips a bit of the verdict", faithful, changed(flipInVerdict), []string{
			netbench.WorkloadBulk, netbench.WorkloadMixed,
		}, "verdict is damaged"},
		{"truncates to the sink", changed(truncate), faithful, streams, ""},
		{"truncates to the source", faithful, changed(truncate), []string{netbench.WorkloadBulkBoth}, ""},
		{"drops the half-close", deaf, faithful, all, "the half-close was not forwarded"},
		{"closes both at a half-close", hasty, faithful, all, ""},
	} {
		for _, workload := range fault.workloads {
			t.Run(fault.name+"/"+workload, func(t *testing.T) {
				testnet.Leaks(t)
				target := startRelay(t, startSink(t), fault.toSink, fault.toSource)
				outcome, err := runLoad(t, testLoad(workload, target), 500*time.Millisecond)
				if err == nil {
					t.Fatalf("not caught: %+v", outcome)
				}
				t.Log(err)
				if !strings.Contains(err.Error(), fault.want) {
					t.Errorf("error %q does not say %q", err, fault.want)
				}
			})
		}
	}
}

// TestStreamsThatTakeTurns has a relay carry one stream after the other: as
// much as has arrived in all is the most that can have arrived within the
// window.
func TestStreamsThatTakeTurns(t *testing.T) {
	testnet.Leaks(t)
	var turn sync.Mutex
	patient := func(dst, src *net.TCPConn) {
		turn.Lock()
		defer turn.Unlock()
		faithful(dst, src)
	}
	load := testLoad(netbench.WorkloadBulk, startRelay(t, startSink(t), patient, faithful))
	load.Streams, load.Warmup = 3, 0
	outcome, err := runLoad(t, load, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if counted := outcome.BytesPerS * load.Duration.Seconds(); counted > float64(outcome.Received) {
		t.Errorf("%.0f bytes within the window, of %d received in all", counted, outcome.Received)
	}
	if want := "2 of 3 streams had moved nothing yet when the load's time began"; len(outcome.Notes) != 1 || outcome.Notes[0] != want {
		t.Errorf("notes %q, want %q", outcome.Notes, want)
	}
}

// TestSlowConnect has a relay take its time before the first byte: the load
// goes on for all of its time after that.
func TestSlowConnect(t *testing.T) {
	const slow = 400 * time.Millisecond
	for _, workload := range []string{netbench.WorkloadBulk, netbench.WorkloadBulkBoth, netbench.WorkloadMixed} {
		t.Run(workload, func(t *testing.T) {
			testnet.Leaks(t)
			load := testLoad(workload, "")
			var flowed atomic.Int64
			dither := func(dst, src *net.TCPConn) {
				time.Sleep(slow) // far more than the load's own time
				began := time.Now()
				faithful(dst, src)
				flowed.Store(max(flowed.Load(), int64(time.Since(began))))
			}
			load.Target = startRelay(t, startSink(t), dither, faithful)
			load.Streams = 1
			if workload == netbench.WorkloadMixed {
				load.Duration *= 2 // each half
			}
			outcome, err := runLoad(t, load, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			least := load.Warmup + load.Duration
			if workload == netbench.WorkloadMixed {
				least = load.Warmup + load.Duration/2
			}
			if got := time.Duration(flowed.Load()); got < least {
				t.Errorf("bytes flowed for %v, want %v or more: %+v", got, least, outcome)
			}
		})
	}
}

// TestExchangeUnderWayCounts has a relay hold back what is under way when the
// measured time begins: everybody waits for it, so it must not be left out.
func TestExchangeUnderWayCounts(t *testing.T) {
	const held = 500 * time.Millisecond
	for _, workload := range []string{netbench.WorkloadRR, netbench.WorkloadConn} {
		t.Run(workload, func(t *testing.T) {
			testnet.Leaks(t)
			const first = 64 + 64 // the header and one message
			var passed atomic.Int64
			open := make(chan struct{})
			hold := changed(func(_ int64, block []byte) ([]byte, bool) {
				if len(block) > 0 && passed.Add(int64(len(block))) > first {
					select {
					case <-open:
					case <-t.Context().Done():
					}
				}
				return block, true
			})
			load := testLoad(workload, startRelay(t, startSink(t), hold, faithful))
			load.Streams = 1
			source := netbench.NewSource(func(p netbench.Phase) {
				if p == netbench.PhaseMeasure {
					time.AfterFunc(held, func() { close(open) })
				}
			})
			outcome, err := source.Run(t.Context(), load)
			if err != nil {
				t.Fatal(err)
			}
			latency, err := hdrhistogram.Decode([]byte(outcome.Latency))
			if err != nil {
				t.Fatal(err)
			}
			// The histogram rounds to three digits.
			if slowest := time.Duration(latency.Max()); slowest < held*99/100 {
				t.Errorf("the slowest exchange took %v, and none was answered for %v", slowest, held)
			}
		})
	}
}

// TestLateResponsesCount has a relay answer only when the measured time is
// long over: each exchange that was due within it was slower than that.
func TestLateResponsesCount(t *testing.T) {
	testnet.Leaks(t)
	const late = 200 * time.Millisecond
	load := testLoad(netbench.WorkloadRROpen, "")
	stopped := make(chan time.Time, 1)
	answer := func(dst, src *net.TCPConn) {
		if _, err := io.CopyN(plain{dst}, src, int64(load.Size)); err != nil { // the first is not measured
			dst.Close()
			return
		}
		select {
		case end := <-stopped:
			stopped <- end
			time.Sleep(time.Until(end.Add(late)))
		case <-t.Context().Done():
		}
		faithful(dst, src)
	}
	load.Target = startRelay(t, startSink(t), faithful, answer)
	source := netbench.NewSource(func(p netbench.Phase) {
		if p == netbench.PhaseStop {
			stopped <- time.Now()
		}
	})
	outcome, err := source.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	latency, err := hdrhistogram.Decode([]byte(outcome.Latency))
	if err != nil {
		t.Fatal(err)
	}
	planned := int64(load.Rate * load.Duration.Seconds())
	if n := latency.TotalCount(); n < planned-int64(load.Streams) || n > planned+int64(load.Streams) {
		t.Errorf("%d exchanges are counted, %d were planned", n, planned)
	}
	// The histogram rounds to three digits.
	if least := time.Duration(latency.Min()); least < late*99/100 {
		t.Errorf("the fastest exchange took %v, and none was answered for %v", least, late)
	}
}

// A sender that waits for the next request ends with the context all the same.
func TestOpenLoopEndsWithItsContext(t *testing.T) {
	testnet.Leaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	load := testLoad(netbench.WorkloadRROpen, startSink(t))
	load.Rate, load.Duration = 1.0/3600, time.Hour // the next one is due in half an hour or so
	source := netbench.NewSource(func(p netbench.Phase) {
		if p == netbench.PhaseMeasure {
			cancel()
		}
	})
	ended := make(chan error, 1)
	go func() {
		_, err := source.Run(ctx, load)
		ended <- err
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the source waits for what is planned")
	}
}

// TestOpenLoopKeepsToItsPlan has a relay that takes nothing for a while: what
// was due meanwhile is sent all the same, and counts from when it was due.
func TestOpenLoopKeepsToItsPlan(t *testing.T) {
	testnet.Leaks(t)
	load := testLoad(netbench.WorkloadRROpen, "")
	load.Size, load.Rate, load.Streams = 1<<20, 200, 1 // more than buffers take
	stopped := make(chan struct{})
	take := func(dst, src *net.TCPConn) {
		const header = 64
		if _, err := io.CopyN(plain{dst}, src, header+int64(load.Size)); err != nil { // the first is not measured
			dst.Close()
			return
		}
		select {
		case <-stopped:
		case <-t.Context().Done():
		}
		faithful(dst, src)
	}
	load.Target = startRelay(t, startSink(t), take, faithful)
	source := netbench.NewSource(func(p netbench.Phase) {
		if p == netbench.PhaseStop {
			close(stopped)
		}
	})
	outcome, err := source.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	latency, err := hdrhistogram.Decode([]byte(outcome.Latency))
	if err != nil {
		t.Fatal(err)
	}
	planned := int64(load.Rate * load.Duration.Seconds())
	if n := latency.TotalCount(); n < planned-1 || n > planned+1 {
		t.Errorf("%d exchanges are counted, %d were planned", n, planned)
	}
}

// TestStallsOutlastTheMeasurement has the observer take its time, as it does
// on a busy machine: no stalled stream ends before the busy ones are measured.
func TestStallsOutlastTheMeasurement(t *testing.T) {
	testnet.Leaks(t)
	var stalls, ended atomic.Int64
	watch := func(dst, src *net.TCPConn) {
		var header [64]byte
		if _, err := io.ReadFull(src, header[:]); err != nil {
			dst.Close()
			return
		}
		_, _ = dst.Write(header[:])
		faithful(dst, src)
		if header[8] == netbench.KindStall {
			ended.Add(1)
		}
	}
	load := testLoad(netbench.WorkloadMixed, startRelay(t, startSink(t), watch, faithful))
	load.Streams = 1
	source := netbench.NewSource(func(p netbench.Phase) {
		switch p {
		case netbench.PhaseMeasure:
			time.Sleep(700 * time.Millisecond)
		case netbench.PhaseStop:
			stalls.Store(ended.Load())
		}
	})
	outcome, err := source.Run(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	if n := stalls.Load(); n != 0 || ended.Load() == 0 {
		t.Errorf("%d stalled streams of %d ended while the busy one was measured", n, ended.Load())
	}
	if outcome.HeldPerStalled <= 0 {
		t.Errorf("nothing was held: %+v", outcome)
	}
}

func TestSourceEndsWithItsContext(t *testing.T) {
	for _, workload := range netbench.Workloads() {
		t.Run(workload, func(t *testing.T) {
			testnet.Leaks(t)
			load := testLoad(workload, startSink(t))
			load.Duration = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			source := netbench.NewSource(func(netbench.Phase) { cancel() })
			if workload == netbench.WorkloadMixed {
				// Its first phase is far away.
				load.Duration = time.Second
				time.AfterFunc(50*time.Millisecond, cancel)
			}
			outcome, err := source.Run(ctx, load)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %+v, %v", outcome, err)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	for _, workload := range netbench.Workloads() {
		if _, err := runLoad(t, testLoad(workload, ln.Addr().String()), time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, want a refused connection", workload, err)
		}
	}
}
