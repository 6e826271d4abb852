package netbench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/probe"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// quickSockmaps measure for a moment each.
func quickSockmaps() SockmapOptions {
	o := DefaultSockmapOptions()
	o.Rounds, o.Duration, o.Warmup, o.MaxQueued, o.Tool = 1, 20*time.Millisecond, 0, 1<<20, "test"
	return o
}

// Every mode moves the stream whole and the way that it is named after, or says
// that this kernel can't consume it so.
func TestSockmapModes(t *testing.T) {
	testnet.Need(t, "bpf")
	testnet.Leaks(t)
	o := quickSockmaps()
	o.Rounds = 2
	var shown []Progress
	o.OnProgress = func(p Progress) { shown = append(shown, p) }
	file, err := RunSockmap(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if failures := file.Failures(); len(failures) > 0 {
		t.Errorf("failed: %v", failures)
	}
	if want := len(SockmapModes()) * len(SockmapConsumers()); len(file.Results) != want {
		t.Errorf("%d results, want %d", len(file.Results), want)
	}
	for i := range file.Results {
		r := &file.Results[i]
		name := r.Path + ", " + r.Workload
		if r.Missing != "" {
			// Only splice(2) is blind, and only for a socket whose receiving a
			// program has to do with.
			toProgram := r.Path == "rx-pass" || strings.HasSuffix(r.Path, "-ingress")
			if r.Workload != WorkloadSockmapSplice || !toProgram || !strings.Contains(r.Missing, "recv(2) then got all of the") {
				t.Errorf("%s: missing: %s", name, r.Missing)
			}
			continue
		}
		if r.Throughput == nil || r.Throughput.Min <= 0 || r.Rounds != 2 || r.MachineCPU == nil || r.ReceiverCPU == nil {
			t.Errorf("%s: %+v", name, r)
			continue
		}
		if r.Queued == nil || r.Queued.Min <= 0 || r.Queued.Max > float64(o.MaxQueued) || r.QueueMemory == nil {
			t.Errorf("%s: queued %+v of at most %d, memory %+v", name, r.Queued, o.MaxQueued, r.QueueMemory)
		}
		if isNormalMode(r.Path) != (r.RatioToNormal == nil) {
			t.Errorf("%s: ratio to normal %+v", name, r.RatioToNormal)
		}
		if (r.Workload == WorkloadSockmapSplice) != (r.RatioToRead != nil) {
			t.Errorf("%s: ratio to read %+v", name, r.RatioToRead)
		}
	}
	// The probe, which is another way to find that out, agrees.
	blind, err := probeBlind(t)
	if err != nil {
		t.Fatal(err)
	}
	for i := range file.Results {
		if r := &file.Results[i]; r.Path == "rx-pass" && r.Workload == WorkloadSockmapSplice && (r.Missing != "") != blind {
			t.Errorf("%s, %s: missing %q; splice(2) is blind: %v", r.Path, r.Workload, r.Missing, blind)
		}
	}
	if last := shown[len(shown)-1]; last.Done != last.Total || !last.Finished {
		t.Errorf("progress ended at %+v", last)
	}
}

// probeBlind tells whether splice(2) sees nothing of a socket in a sockmap.
func probeBlind(t *testing.T) (bool, error) {
	t.Helper()
	report := probe.Run(t.Context())
	c, ok := report.Find("sockmap.splice-read")
	if !ok || c.Answer == probe.Inconclusive {
		return false, fmt.Errorf("probe: %+v", c)
	}
	return c.Answer == probe.No, nil
}

// A consumer that is late finds all bytes, however many are queued.
func TestSockmapDelay(t *testing.T) {
	testnet.Need(t, "bpf")
	testnet.Leaks(t)
	o := quickSockmaps()
	o.Modes, o.Consumers, o.MaxQueued = []string{"rx-normal", "rx-verdict-egress"}, []string{"read"}, 32<<20
	o.Delay = 500 * time.Millisecond
	file, err := RunSockmap(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if failures := file.Failures(); len(failures) > 0 {
		t.Fatalf("failed: %v", failures)
	}
	normal, redirected := file.Results[0].Queued, file.Results[1].Queued
	if file.Results[1].Missing != "" || normal == nil || redirected == nil {
		t.Fatalf("%+v", file.Results)
	}
	t.Logf("queued: %.0f bytes by user space, %.0f redirected", normal.Max, redirected.Max)
	if file.Config.DelayS != 0.5 || file.Config.MaxQueuedBytes != o.MaxQueued {
		t.Errorf("configuration %+v", file.Config)
	}
}

func TestSockmapEndsWithContext(t *testing.T) {
	testnet.Leaks(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := quickSockmaps()
	o.Modes, o.Duration = []string{"tx-normal"}, time.Hour
	o.OnProgress = func(Progress) { cancel() }
	file, err := RunSockmap(ctx, o)
	var ended *interrupted
	if file != nil || !errors.As(err, &ended) || !errors.Is(err, context.Canceled) {
		t.Errorf("file %v, error %v", file, err)
	}
}

// The parser is loaded, and attached to nothing: to run one is a danger to the
// machine.
func TestSockmapParserLoads(t *testing.T) {
	testnet.Need(t, "bpf")
	testnet.Leaks(t)
	for _, name := range []string{"rx-pass", "rx-verdict-egress", "rx-verdict-ingress"} {
		mode, _ := sockmapModeOf(name)
		programs, err := loadSockmapPrograms(mode, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if len(programs.Programs) != 2 || programs.Programs[skbParse] == nil || programs.Programs[mode.program] == nil {
			t.Errorf("%s: programs %v", name, programs.Programs)
		}
		programs.Close()
	}
}

// consumed has a consumer take what is sent to it by hand.
func consumed(t *testing.T, account int64, stream ...[]byte) error {
	t.Helper()
	near, far, err := loopbackPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close(near); sys.Close(far) })
	f := newFlight(1 << 20)
	f.send(int(account))
	close(f.landed)
	for _, part := range stream {
		if n, err := sys.Send(near, part); err != nil || n != len(part) {
			t.Fatalf("sent %d of %d bytes: %v", n, len(part), err)
		}
	}
	const patience = 100 * time.Millisecond // for bytes that never come
	c := &sockmapConsumer{
		flight: f, pattern: newPattern(), fd: far, buf: make([]byte, 1000), limit: 1 << 20, patience: patience,
		times: windowTimes{0, time.Nanosecond},
	}
	// All of it has arrived before it is looked at.
	if ready, err := sys.WaitReadable(far, 30_000); err != nil || !ready {
		t.Fatalf("nothing arrived: %v", err)
	}
	return c.run(t.Context(), receiver(far))
}

// What a way does to the stream is found out.
func TestSockmapConsumerVerifies(t *testing.T) {
	testnet.Leaks(t)
	p := newPattern()
	changed := []byte{p.at(0, 2000, 1)[0] ^ 1}
	for _, test := range []struct {
		name    string
		account int64
		stream  [][]byte
		want    string // in the error; "": none
	}{
		{"whole", 5000, [][]byte{p.at(0, 0, 5000)}, ""},
		{"one byte changed", 5000, [][]byte{p.at(0, 0, 2000), changed, p.at(0, 2001, 2999)}, "byte 2000 of the stream"},
		{"bytes left out", 5000, [][]byte{p.at(0, 0, 2000), p.at(0, 2500, 2500)}, "of the stream is"},
		{"bytes twice", 5000, [][]byte{p.at(0, 0, 2000), p.at(0, 1000, 4000)}, "of the stream is"},
		{"the end is missing", 5000, [][]byte{p.at(0, 0, 4999)}, "4999 of 5000 bytes"},
		{"more than was sent", 5000, [][]byte{p.at(0, 0, 5001)}, "more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := consumed(t, test.account, test.stream...)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// A program that sees nothing of the stream is no measurement of it.
func TestSockmapProgramHasToSee(t *testing.T) {
	testnet.Need(t, "bpf")
	testnet.Leaks(t)
	r := &sockmapRunner{o: &SockmapOptions{}}
	for _, name := range SockmapModes() {
		mode, _ := sockmapModeOf(name)
		rig, err := newSockmapRig(mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.saw(rig, 1<<20); (err == nil) != isNormalMode(name) {
			t.Errorf("%s: error %v", name, err)
		}
		rig.close()
	}
}

// The sender is never further ahead of the consumer than it may be.
func TestFlightIsBounded(t *testing.T) {
	testnet.Leaks(t)
	f := newFlight(10)
	var sender sync.WaitGroup
	sender.Go(func() {
		for f.maySend(3) {
			f.send(3)
		}
	})
	for range 1000 {
		for {
			if sent, consumed := f.account(); sent > consumed {
				break
			}
		}
		f.consume(1)
	}
	f.finish()
	sender.Wait()
	if sent, _ := f.account(); f.peak > 10 || sent < 1000 || sent > 1010 {
		t.Errorf("%d bytes at once, %d sent", f.peak, sent)
	}
}
