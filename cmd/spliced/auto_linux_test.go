package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// The privileges of the engine wire, by their bits in linux/capability.h.
var wirePrivileges = map[string]uint64{"CAP_NET_ADMIN": 1 << 12, "CAP_NET_RAW": 1 << 13, "CAP_PERFMON": 1 << 38, "CAP_BPF": 1 << 39}

// A daemon that is told nothing about engines hands over what lasts, by the privileges that it
// has at the start; without one of them, with another user or another engine it does not,
// says so, and keeps none. binary drops privileges, as the test's own can't.
func autoHandsOver(t *testing.T, binary string) {
	testnet.Need(t, "netns", "bpf")
	chain, err := testnet.NewChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = chain.Close() })
	mirror(t, chain.C, testnet.AddrC+":9001")
	const web = "listeners:\n  web: {address: \"" + testnet.AddrBA + ":9000\", upstream: web%s}\n" +
		"upstreams:\n  web: {servers: [\"" + testnet.AddrC + ":9001\"]}\n"
	const soon = "wire: {after_age: 20ms}\n"
	const byName = "  named: {address: \"" + testnet.AddrBA + ":9002\", upstream: web, engine: wire}\n"
	var all uint64
	for _, bit := range wirePrivileges {
		all |= bit
	}
	const handsOver, stays = "engine auto hands over to wire", "engine auto stays with splice and copy"
	type test struct {
		name, config string
		user         int               // who starts it
		has          map[string]uint64 // what that one is given, if it is not root
		keeps        uint64            // of the privileges of wire
		refused      string            // why the connection is not handed over; "": it is
		says         string            // of the engine auto; "" nothing
		unit         []string          // files of dist/ that the service manager starts it by
	}
	plain := soon + fmt.Sprintf(web, "")
	tests := []test{
		{name: "root", config: fmt.Sprintf(web, ""), keeps: all, says: handsOver},
		{name: "as the service manager starts it", config: plain, user: 65534, has: wirePrivileges, keeps: all, says: handsOver},
		{name: "and the same user configured", config: "user: \"65534\"\n" + plain, user: 65534, has: wirePrivileges, keeps: all, says: handsOver},
		{name: "another user", config: "user: \"65534\"\n" + plain, refused: "wire-denied", says: stays + `","error":"user 65534 `},
		{name: "another user, and wire by name", config: "user: \"65534\"\n" + strings.Replace(plain, "upstreams:", byName+"upstreams:", 1), keeps: all, says: handsOver},
		{name: "in the unit's sandbox", config: plain, user: 65534, unit: []string{"spliced.service", "spliced-wire.conf"}, keeps: all, says: handsOver},
		{name: "in the sandbox without bpf", config: plain, user: 65534, unit: []string{"spliced.service"}, has: wirePrivileges, keeps: all, refused: "wire-denied", says: stays + `","error":"wire: `},
		{name: "no privileges", config: plain, user: 65534, refused: "wire-denied", says: stays},
		{name: "another engine", config: fmt.Sprintf(web, ", engine: splice"), refused: "another engine"},
		{name: "nothing for wire", config: fmt.Sprintf(web, ", bandwidth: {to_client: 1GB}"), refused: "wire-bandwidth", says: stays + `","error":"no listener with it `},
	}
	for missing, bit := range wirePrivileges {
		has := maps.Clone(wirePrivileges)
		delete(has, missing)
		tests = append(tests, test{
			name: "without " + missing, config: plain, user: 65534, has: has, keeps: all &^ bit, refused: "wire-denied", says: missing + " missing",
		})
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: chain.B.Dial}}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := dirForAll(t)
			d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
			if err := os.WriteFile(d.config, []byte("log: {format: json}\nmetrics: 127.0.0.1:9464\n"+tc.config), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "run", "-c", d.config)
			if tc.user != 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(tc.user), Gid: uint32(tc.user)}}
				for _, bit := range tc.has {
					cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(bits.TrailingZeros64(bit)))
				}
			}
			if tc.unit != nil {
				testnet.Need(t, "systemd")
				u := readUnit(t, tc.unit...)
				if !slices.Equal(u["AmbientCapabilities"], u["CapabilityBoundingSet"]) {
					t.Errorf("it is given %q of %q", u["AmbientCapabilities"], u["CapabilityBoundingSet"])
				}
				for _, name := range u["AmbientCapabilities"] {
					if bit := wirePrivileges[name]; bit != 0 {
						cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, uintptr(bits.TrailingZeros64(bit)))
					}
				}
				u.confine(t, cmd)
			}
			d.process = startIn(t, cmd, chain.B.Start)
			d.stderr.await(t, `"msg":"started"`)
			if tc.says != "" {
				d.stderr.await(t, tc.says)
			}
			if has := permitted(t, fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)) & all; has != tc.keeps {
				t.Errorf("it has %#x of the privileges of wire, want %#x", has, tc.keeps)
			}
			c := call(t, chain.A, testnet.AddrBA+":9000")
			sent := 0.0
			until := func(want string) {
				t.Helper()
				eventually(t, func() error {
					echo1(t, c, "12345678")
					sent += 8
					if page := get(t, client, "http://127.0.0.1:9464/metrics"); !strings.Contains(page, want) {
						return fmt.Errorf("no %q in\n%s", want, page)
					}
					return nil
				})
			}
			pid := cmd.Process.Pid
			switch tc.refused {
			case "wire-denied":
				until("spliced_wire_refused_total{reason=\"wire-denied\"} 1\n")
			case "":
				until("spliced_wire_flows 1\n")
				// It is the next process's to hand over again.
				d.signal(syscall.SIGUSR2)
				pid = int(parse(t, d.stderr.awaitNth(t, `"msg":"started"`, 2))["pid"].(float64))
				t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
				d.stderr.await(t, `"msg":"connections handed over","connections":1,`)
				until("spliced_wire_flows 1\n")
				d.stderr.awaitNth(t, tc.says, 2)
			}
			echo1(t, c, "12345678")
			sent += 8
			_ = c.Conn.(*net.TCPConn).CloseWrite()
			if _, err := io.ReadAll(c); err != nil {
				t.Error(err)
			}
			line := parse(t, d.stderr.await(t, `"msg":"connection ended"`))
			if line["bytes_to_target"] != sent || line["bytes_to_client"] != sent+float64(len(c.told)+1) || (line["engine"] == "wire") != (tc.refused == "") {
				t.Errorf("%v, want %v bytes", line, sent)
			}
			if why, ok := line["wire_refused"]; ok && why != tc.refused {
				t.Errorf("refused: %v", line)
			}
			if n, _ := line["wire_bytes_to_client"].(float64); (n >= 8) != (tc.refused == "") {
				t.Errorf("wire has carried %v bytes: %v", n, line)
			}
			if said := strings.Contains(d.stderr.all(), "engine auto"); said != (tc.says != "") {
				t.Errorf("of the engine auto: %v\n%s", said, d.stderr.all())
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.wait() // the output is closed when the last process is
		})
	}
}

// A process that has become another user, and its successor, have the privileges of wire for as
// long as a listener has it by name, and not because they happen to be there.
func wireByNameNoMore(t *testing.T, binary string) {
	testnet.Need(t, "bpf")
	dir := dirForAll(t)
	d := &daemonProcess{config: filepath.Join(dir, "c.yaml")}
	write := func(engine string) {
		t.Helper()
		text := "user: \"65534\"\nlog: {format: json}\nlisteners:\n  web: {address: \"127.0.0.1:0\", engine: " + engine + ", upstream: web}\n" +
			"upstreams:\n  web: {servers: [\"127.0.0.1:1\"]}\n"
		if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("wire")
	d.process = start(t, exec.Command(binary, "run", "-c", d.config))
	d.stderr.await(t, `"msg":"started"`)
	all := uint64(0)
	for _, bit := range wirePrivileges {
		all |= bit
	}
	if has := permitted(t, fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid)); has&all != all {
		t.Errorf("by name it has %#x", has)
	}
	write("auto")
	d.signal(syscall.SIGUSR2)
	pid := int(parse(t, d.stderr.awaitNth(t, `"msg":"started"`, 2))["pid"].(float64))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	d.stderr.await(t, `engine auto stays with splice and copy","error":"user 65534 `)
	if has := permitted(t, fmt.Sprintf("/proc/%d/status", pid)); has&all != 0 {
		t.Errorf("after the upgrade it has %#x", has)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wait()
}

// The program is loaded for listeners that have wire by name too, before anybody connects, and is kept.
func TestWireByNameIsKept(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	text := func(engine string) string {
		return "log: {format: json}\nlisteners:\n  web: {address: \"127.0.0.1:0\", engine: " + engine + ", upstream: web}\n" +
			"upstreams:\n  web: {servers: [\"127.0.0.1:1\"]}\n"
	}
	d := runDaemon(t, text("wire"))
	d.stderr.await(t, `"msg":"started"`)
	outlastsOther := func() {
		t.Helper()
		eventually(t, func() error {
			if programs(d.cmd.Process.Pid) == 0 {
				return errors.New("the daemon has no program")
			}
			return nil
		})
		// This process lets one go that it has loaded later.
		release, err := splice.KeepWire(splice.WirePolicy{})
		if err != nil {
			t.Fatal(err)
		}
		release()
		eventually(t, func() error {
			if n := programs(os.Getpid()); n > 0 {
				return fmt.Errorf("%d programs are loaded here", n)
			}
			return nil
		})
		if programs(d.cmd.Process.Pid) == 0 {
			t.Error("the daemon has let its program go")
		}
	}
	outlastsOther()
	d.stop(t)
	// A reload that brings it is as good as a start.
	d = runDaemon(t, text("splice"))
	d.stderr.await(t, `"msg":"started"`)
	d.write(t, text("wire"))
	d.signal(syscall.SIGHUP)
	d.stderr.await(t, `"msg":"reloaded"`)
	outlastsOther()
	d.stop(t)
}

// The program is held once, however many reloads bring wire back, and not by one that comes too late.
func TestWireIsHeldOnce(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	var hold wireHold
	for range 3 {
		if err := hold.keep(splice.WirePolicy{}); err != nil {
			t.Fatal(err)
		}
	}
	if programs(os.Getpid()) == 0 {
		t.Fatal("no program is loaded")
	}
	hold.end()
	none := func() error {
		if n := programs(os.Getpid()); n > 0 {
			return fmt.Errorf("%d programs are loaded", n)
		}
		return nil
	}
	eventually(t, none)
	if err := errors.Join(hold.keep(splice.WirePolicy{}), none()); err != nil {
		t.Errorf("by one that has come too late: %v", err)
	}
	hold.end()
}

// programs is how many BPF programs a process has descriptors of.
func programs(pid int) (n int) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == "anon_inode:bpf-prog" {
			n++
		}
	}
	return n
}

// When a connection is handed over is the file's, and the next one's after a reload.
func TestWireThresholds(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	text := fmt.Sprintf("log: {format: json}\nmetrics: \"127.0.0.1:0\"\nlisteners:\n  web: {address: \"127.0.0.1:0\", upstream: web}\n"+
		"upstreams:\n  web: {servers: [%q]}\n", echoServer(t))
	d := runDaemon(t, text+"wire: {after_bytes: 1TB, after_age: 1h}\n")
	if line := parse(t, d.stderr.await(t, "engine auto hands over to wire")); line["after_bytes"] != 1e12 || line["after_age"] != "1h0m0s" {
		t.Errorf("%v", line)
	}
	url := parse(t, d.stderr.await(t, `"msg":"metrics"`))["url"].(string)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", d.addr(t, "web"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		return c
	}
	stays, piece := dial(), strings.Repeat("x", 64<<10)
	echo1(t, stays, piece)
	reload := func(n int, wire string) {
		t.Helper()
		d.write(t, text+wire)
		d.signal(syscall.SIGHUP)
		d.stderr.awaitNth(t, `"msg":"reloaded"`, n)
	}
	handed := func(c net.Conn, want int) {
		t.Helper()
		eventually(t, func() error {
			echo1(t, c, piece)
			if page := get(t, client, url); !strings.Contains(page, fmt.Sprintf("spliced_wire_handed_over_total %d\n", want)) {
				return fmt.Errorf("not handed over: %s", page)
			}
			return nil
		})
	}
	reload(1, "wire: {after_bytes: 64KiB, after_age: 1h}\n")
	byBytes := dial()
	handed(byBytes, 1)
	reload(2, "wire: {after_bytes: 1TB, after_age: 20ms}\n")
	byAge := dial()
	handed(byAge, 2)
	// More than the defaults, in bytes and in time.
	for began := time.Now(); time.Since(began) < 1100*time.Millisecond; {
		for range 8 {
			echo1(t, stays, piece)
		}
	}
	for i, c := range []net.Conn{stays, byBytes, byAge} {
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		line := parse(t, d.stderr.awaitNth(t, `"msg":"connection ended"`, i+1))
		if _, tried := line["wire_attempts"]; tried != (i > 0) || (line["engine"] == "wire") != (i > 0) {
			t.Errorf("connection %d: %v", i, line)
		}
	}
	d.stop(t)
}
