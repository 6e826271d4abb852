package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// What the README says first, as written but for the port: make run, and the
// line that it prints. On a machine that is busy otherwise a download may be over before most of
// it could be handed over: then the next one is asked for.
func TestMakeRunSaysWire(t *testing.T) {
	testnet.Need(t, "root", "bpf", "peers")
	testnet.Leaks(t)
	cmd := exec.Command("make", "-s", "-C", "../..", "run", "LISTEN=127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // make does not pass signals on
	p := start(t, cmd)
	line := strings.TrimPrefix(p.stdout.await(t, "try: curl "), "try: ")
	eventually(t, func() error {
		page, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil || !strings.Contains(string(page), "carried by spliced") {
			t.Fatalf("%s: %v: %s", line, err, page)
		}
		return saysWire(string(page))
	})
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.wait()
}

// saysWire wants a page to say that wire has carried most of a download.
func saysWire(page string) error {
	for _, want := range []string{"by wire (handed-over)", "by a program in the kernel (wire)"} {
		if !strings.Contains(page, want) {
			return fmt.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	// Most of 256 MiB, in packets of 64 KiB at most.
	var bytes, packets, up, upPackets int64
	_, rest, ok := strings.Cut(page, "packet by packet ")
	if !ok {
		return fmt.Errorf("no packets:\n%s", page)
	}
	if _, err := fmt.Sscanf(rest, "%d bytes to the client in %d packets, %d bytes to the target in %d", &bytes, &packets, &up, &upPackets); err != nil ||
		bytes < 16<<20 || packets < bytes>>19 || upPackets == 0 {
		return fmt.Errorf("%d bytes in %d packets, %d acknowledging; %v:\n%s", bytes, packets, upPackets, err, page)
	}
	return nil
}

// flows lists those of all instances.
func flows(t *testing.T, root string) (list []flowView) {
	t.Helper()
	out, stderr, code := execute(t, "flows", "--root", root, "--json")
	if code != exitOK {
		t.Fatalf("flows: %d, %s", code, stderr)
	}
	for line := range strings.Lines(out) {
		var f flowView
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, f)
	}
	return list
}

// A connection outlives its relays, whether they are killed or told to end: the
// next one of the instance counts on, and says what became of it.
func TestInstance(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	root, target := testnet.BPFFS(t), echoServer(t)
	args := []string{"--instance", "test", "--instance-root", root, "--wire-after-age", "1ms", "--metrics", "127.0.0.1:0", "127.0.0.1:0", target}
	r := startRelay(t, nil, args...)
	conns := []net.Conn{r.dial(t), r.dial(t)}
	n := [2]int64{}
	eventually(t, func() error {
		for i, c := range conns {
			echo1(t, c, "12345678")
			n[i] += 8
		}
		if have := flows(t, root); len(have) != 2 {
			return fmt.Errorf("%d flows", len(have))
		}
		return nil
	})
	if _, stderr, code := execute(t, append([]string{"relay"}, args...)...); code != exitFailed || !strings.Contains(stderr, "instance test: ") || !strings.Contains(stderr, "in use by another process") {
		t.Errorf("a second relay of the instance: exit code %d, %s", code, stderr)
	}

	r.signal(syscall.SIGTERM) // what is spliced needs no relay
	if line := parse(t, r.stderr.awaitNth(t, `"msg":"connection left to the next of its instance"`, 2)); line["engine"] != "wire" {
		t.Errorf("%v", line)
	}
	if code := r.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	for i, c := range conns {
		echo1(t, c, "without a relay")
		n[i] += 15
	}
	if have := flows(t, root); len(have) != 2 || have[0].Instance != "test" || have[0].BytesToClient < 15 || have[0].Packets[0] == 0 {
		t.Errorf("flows: %+v", have)
	}

	r = startRelay(t, nil, args...)
	if line := parse(t, r.stderr.await(t, `"msg":"flows adopted"`)); line["flows"] != 2.0 || line["instance"] != "test" {
		t.Errorf("%v", line)
	}
	base := strings.TrimSuffix(parse(t, r.stderr.await(t, `"msg":"metrics"`))["url"].(string), "metrics")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	var live []struct {
		Client, Target, Engine string
		Wire                   adminapi.Wire
	}
	if err := json.Unmarshal([]byte(get(t, client, base+"connections")), &live); err != nil || len(live) != 2 {
		t.Fatalf("%+v, %v", live, err)
	}
	if c := live[0]; c.Target != target || c.Engine != "wire" || !c.Wire.HandedOver || c.Wire.BytesToTarget < 15 || c.Wire.PacketsToClient == 0 {
		t.Errorf("%+v", c)
	}
	page := get(t, client, base+"metrics")
	for _, want := range []string{"spliced_wire_flows 2\n", "spliced_wire_adopted_total 2\n", "spliced_wire_handed_over_total 2\n", "spliced_wire_attempts_failed_total{reason=\"wire-busy\"} 0\n", "spliced_wire_attempts_failed_total{reason=\"wire-packets-unseen\"} 0\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}

	r.signal(syscall.SIGKILL)
	r.wait()
	for i, c := range conns {
		echo1(t, c, "killed")
		n[i] += 6
	}
	r = startRelay(t, nil, args...)
	for i, c := range conns {
		echo1(t, c, "once more")
		n[i] += 9
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		line := r.ended(t, i+1)
		if line["bytes_to_target"] != float64(n[i]) || line["bytes_to_client"] != float64(n[i]) || line["end_to_target"] != "eof" ||
			line["end_to_client"] != "eof" || line["client"] != c.LocalAddr().String() || line["engine"] != "wire" || line["wire_packets_to_target"] == 0.0 {
			t.Errorf("%v, want %d bytes", line, n[i])
		}
	}

	// A flow is ended by hand, and everything taken away.
	c, ended := r.dial(t), 0
	eventually(t, func() error {
		echo1(t, c, "x")
		ended++
		if have := flows(t, root); len(have) != 1 {
			return fmt.Errorf("flows: %+v", have)
		}
		return nil
	})
	if _, stderr, code := execute(t, "flows", "--root", root, "--end", c.LocalAddr().String()); code != exitOK {
		t.Errorf("flows --end: %s", stderr)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("an ended connection goes on")
	}
	// The relay says so at once: nothing else would have it look for an hour.
	if line := r.ended(t, len(conns)+1); line["client"] != c.LocalAddr().String() || line["end_to_target"] != "stopped" ||
		line["end_to_client"] != "stopped" || line["engine"] != "wire" || line["wire_ended_by_hand"] != true || !most(line["bytes_to_target"], ended) || !most(line["bytes_to_client"], ended) {
		t.Errorf("%v, want %d bytes, ended by hand", line, ended)
	}
	if _, stderr, code := execute(t, "flows", "--root", root, "--end", c.LocalAddr().String()); code != exitFailed || !strings.Contains(stderr, "no such flow") {
		t.Errorf("flows --end of what has ended: %d, %s", code, stderr)
	}

	// Without a relay too: the next one says so.
	c = r.dial(t)
	eventually(t, func() error {
		echo1(t, c, "x")
		if have := flows(t, root); len(have) != 1 {
			return fmt.Errorf("flows: %+v", have)
		}
		return nil
	})
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	echo1(t, c, "x")
	if _, stderr, code := execute(t, "flows", "--root", root, "--end", c.LocalAddr().String()); code != exitOK {
		t.Errorf("flows --end: %s", stderr)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("an ended connection goes on")
	}
	if have := flows(t, root); len(have) != 0 {
		t.Errorf("flows: %+v", have)
	}
	r = startRelay(t, nil, args...)
	if line := r.ended(t, 1); line["client"] != c.LocalAddr().String() || line["end_to_client"] != "stopped" || line["wire_ended_by_hand"] != true {
		t.Errorf("%v, want ended by hand", line)
	}
	r.stop(t)
	if _, stderr, code := execute(t, "flows", "--root", root, "--purge"); code != exitOK {
		t.Errorf("flows --purge: %s", stderr)
	}
	if _, err := os.Stat(filepath.Join(root, "test")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after --purge: %v", err)
	}
}

// most says that n bytes were counted but for the last, whose acknowledgement may
// be delayed.
func most(bytes any, n int) bool { return bytes == float64(n) || bytes == float64(n-1) }

// A list that is watched goes on until it is interrupted, and tells what moves.
func TestFlowsWatch(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	root := testnet.BPFFS(t)
	r := startRelay(t, nil, "--engine", "wire", "--instance", "watched", "--instance-root", root, "127.0.0.1:0", echoServer(t))
	c := r.dial(t)
	eventually(t, func() error {
		echo1(t, c, "12345678")
		if have := flows(t, root); len(have) != 1 {
			return fmt.Errorf("%d flows", len(have))
		}
		return nil
	})
	w := start(t, command(t, "flows", "--root", root, "--watch", "20ms", "--json"))
	seen := func(what string, f func(*flowView) bool) {
		t.Helper()
		read := 0
		eventually(t, func() error {
			lines := strings.SplitAfter(w.stdout.all(), "\n")
			for ; read+1 < len(lines); read++ { // the last is not whole
				var v flowView
				if err := json.Unmarshal([]byte(lines[read]), &v); err != nil {
					t.Fatalf("%q: %v", lines[read], err)
				}
				if v.Client.String() == c.LocalAddr().String() && f(&v) {
					return nil
				}
			}
			return fmt.Errorf("no line that says %s", what)
		})
	}
	seen("that nothing has moved for a while", func(v *flowView) bool { return v.Idle > 100*time.Millisecond && v.LastSeen > 100*time.Millisecond })
	echo1(t, c, strings.Repeat("x", 1000))
	seen("that something has", func(v *flowView) bool {
		return v.Idle < 100*time.Millisecond && v.LastSeen <= v.Idle && v.BytesToTarget >= 1000 && v.Packets[0] > 0
	})
	w.signal(os.Interrupt)
	if code := w.wait(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if out, stderr, code := execute(t, "flows", "--root", root); code != exitOK || !strings.Contains(out, c.LocalAddr().String()) || !strings.Contains(out, "HELD") {
		t.Errorf("%d, %s%s", code, out, stderr)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
	r.ended(t, 1)
	r.stop(t)
	if _, stderr, code := execute(t, "flows", "--root", root, "--purge"); code != exitOK {
		t.Errorf("flows --purge: %s", stderr)
	}
}

// What is no BPF file system keeps nothing: a relay that is to outlive itself says so, and does not
// start.
func TestInstanceNeedsBPFFS(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	dir := t.TempDir()
	for _, engine := range []string{"auto", "wire"} {
		_, stderr, code := execute(t, "relay", "--engine", engine, "--instance", "x", "--instance-root", dir, "127.0.0.1:0")
		if code != exitFailed || !strings.Contains(stderr, "instance x: ") || !strings.Contains(stderr, "not a BPF file system") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit code %d, %s", engine, code, stderr)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestInstanceNeedsWire(t *testing.T) {
	_, stderr, code := execute(t, "relay", "--engine", "copy", "--instance", "x", "127.0.0.1:0")
	if code != exitUsage || !strings.Contains(stderr, "engine copy hands nothing over") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
