package netbench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/netbench"
	"github.com/spliced-io/spliced/internal/testnet"
)

// TestBulkAgreesWithIperf3 sends through the same relay (gocopy) in the same
// topology with this instrument and with iperf3, in turn, and prints both. It
// only fails when they are so far apart that one of them must count wrongly:
// bits for bytes, one direction twice.
func TestBulkAgreesWithIperf3(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	testnet.Need(t, "root", "netns", "peers")
	testnet.Leaks(t)
	chain, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	})
	o := quickOptions(t)
	o.Topology = netbench.TopologyNetns
	o.Paths, o.Workloads = []string{netbench.PathGoCopy}, []string{netbench.WorkloadBulk}
	o.Warmup, o.Duration = time.Second, time.Second
	var ours, theirs []float64
	for range 3 {
		file := run(t, o)
		if failures := file.Failures(); len(failures) > 0 {
			t.Fatal(failures)
		}
		ours = append(ours, file.Results[0].Throughput.Median)
		theirs = append(theirs, iperf3(t, chain, o.Self))
	}
	a, b := netbench.NewFigure(ours), netbench.NewFigure(theirs)
	const giga = 1e9
	for name, f := range map[string]*netbench.Figure{"bench net": a, "iperf3": b} {
		t.Logf("%s: %.2f [%.2f–%.2f] GB/s", name, f.Median/giga, f.Min/giga, f.Max/giga)
	}
	const suspicious = 3
	if ratio := a.Median / b.Median; ratio > suspicious || ratio < 1./suspicious {
		t.Errorf("the medians differ by a factor of %.2f", ratio)
	}
}

// iperf3 returns what its server received, in bytes per second.
func iperf3(t *testing.T, chain *testnet.Chain, self []string) float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const port = "5201" // in namespaces of our own
	server := exec.CommandContext(ctx, "iperf3", "--server", "--one-off", "--bind", testnet.AddrC, "--port", port, "--forceflush")
	serving, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.C.Start(server); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill() // has ended by itself if all went well
		_ = server.Wait()
	}()
	waitFor(t, serving, "Server listening")

	relay := exec.CommandContext(ctx, self[0], append(self[1:], netbench.RoleGoCopy)...)
	relay.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	instructions, err := relay.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	listening, err := relay.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.B.Start(relay); err != nil {
		t.Fatal(err)
	}
	defer func() {
		instructions.Close()
		_ = relay.Wait()
	}()
	fmt.Fprintf(instructions, "{\"listen\":%q,\"target\":%q}\n",
		net.JoinHostPort(testnet.AddrBA, port), net.JoinHostPort(testnet.AddrC, port))
	waitFor(t, listening, "address")

	var out bytes.Buffer
	client := exec.CommandContext(ctx, "iperf3", "--client", testnet.AddrBA, "--port", port,
		"--omit", "1", "--time", "1", "--len", "128K", "--json")
	client.Stdout = &out
	if err := chain.A.Start(client); err != nil {
		t.Fatal(err)
	}
	if err := client.Wait(); err != nil {
		t.Fatalf("iperf3: %v: %s", err, out.String())
	}
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	const bitsPerByte = 8
	return report.End.Received.BitsPerSecond / bitsPerByte
}

// waitFor reads until the text has come.
func waitFor(t *testing.T, r io.Reader, text string) {
	t.Helper()
	var got strings.Builder
	for buf := make([]byte, 1024); !strings.Contains(got.String(), text); {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", text, err, got.String())
		}
	}
}
