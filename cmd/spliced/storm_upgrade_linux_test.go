package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// A storm in which the daemon is upgraded again and again: the processes together have one log,
// in which each client has one line of each kind, and it says what clients and servers say. The
// last process has nobody and nothing left.
//
// SPLICED_STORM and SPLICED_STORM_SEED are as for [TestStorm].
func TestUpgradesInAStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	testnet.Need(t, "root", "bpf")
	t.Run("wire", func(t *testing.T) { upgradesInAStorm(t, false) })
	t.Run("instance", func(t *testing.T) { upgradesInAStorm(t, true) })
}

func upgradesInAStorm(t *testing.T, instance bool) {
	testnet.Leaks(t)
	seed := stormSeed(t)
	more := ""
	if instance {
		root := testnet.BPFFS(t)
		t.Cleanup(func() { // all of its processes have ended
			if _, stderr, code := execute(t, "flows", "--root", root, "--purge"); code != exitOK {
				t.Errorf("flows --purge: %s", stderr)
			}
		})
		more = fmt.Sprintf("instance: storm\ninstance_root: %q\n", root)
	}
	s := newStorm(t, "wire", more)
	t.Cleanup(func() {
		for _, pid := range s.generations()[1:] { // the first is the test's own
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	s.blow(seed, 300*time.Millisecond)
	var upgrades atomic.Int64
	client := &adminapi.Client{Address: "unix:" + s.socket}
	s.upgrade = func() {
		s.d.write(t, s.config(0)) // what was last refused may be there
		if answer, err := askUpgrade(t.Context(), client); err != nil {
			t.Errorf("an upgrade: %v", err)
		} else if answer.PID > 0 {
			upgrades.Add(1)
		}
	}
	s.blow(seed+1, stormTime(t))
	s.upgrade()
	eventually(t, func() error {
		var alive []int
		for _, pid := range s.generations() {
			if running(pid) {
				alive = append(alive, pid)
			}
		}
		if len(alive) != 1 {
			time.Sleep(10 * time.Millisecond)
			return fmt.Errorf("processes %v", alive)
		}
		return nil
	})
	s.expectClientsForgotten()
	s.expectNobodyThere(client)
	s.drainLast(func(t *testing.T) {
		pids := s.generations()
		if err := syscall.Kill(pids[len(pids)-1], syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		s.d.wait() // the output is closed when the last of them has ended
	})
	eventually(t, func() error {
		for _, pid := range s.generations() {
			if running(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
		}
		return nil
	})
	s.expectOneLog()
	if n := len(s.generations()); n != int(upgrades.Load())+1 {
		t.Errorf("%d processes, %d upgrades", n, upgrades.Load())
	}
	if _, err := os.Stat(s.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket: %v", err)
	}
	t.Logf("%d upgrades", upgrades.Load())
}

// generations are the processes that the daemon was, the last one last.
func (s *storm) generations() (pids []int) {
	for _, m := range regexp.MustCompile(`"msg":"started".*"pid":(\d+)`).FindAllStringSubmatch(s.d.stderr.all(), -1) {
		pid, _ := strconv.Atoi(m[1])
		pids = append(pids, pid)
	}
	return pids
}

// expectNobodyThere asks the last process.
func (s *storm) expectNobodyThere(client *adminapi.Client) {
	t := s.t
	t.Helper()
	eventually(t, func() error {
		text := get(t, &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}, s.page)
		metrics := counts(text)
		for _, gauge := range []string{"spliced_connections_open", "spliced_connections_joined", "spliced_listener_open", "spliced_listener_joined", "spliced_upstream_queued", "spliced_server_active", "spliced_wire_flows"} {
			for series, n := range metrics {
				if strings.HasPrefix(series, gauge) && n != 0 {
					time.Sleep(10 * time.Millisecond)
					return fmt.Errorf("%s is %v in the end", series, n)
				}
			}
		}
		return nil
	})
	var sessions adminapi.Sessions
	if err := client.Get(t.Context(), "/v1/sessions", nil, &sessions); err != nil || len(sessions.Sessions) > 0 {
		t.Errorf("sessions in the end: %v, %v", sessions.Sessions, err)
	}
}

// expectOneLog compares the log of all processes with what clients and servers say.
func (s *storm) expectOneLog() {
	t := s.t
	t.Helper()
	l := s.readLog()
	l.expectPairs(t)
	accepted := make(map[string]float64)
	for _, line := range l.accepted {
		accepted[line["listener"].(string)]++
	}
	for _, name := range slices.Sorted(maps.Keys(s.opened)) {
		if have, n := accepted[name], float64(s.opened[name].Load()); have != n {
			t.Errorf("%s: %v were accepted, %v have connected", name, have, n)
		}
	}
	s.expectServed(l)
	for line := range strings.Lines(s.d.stderr.all()) {
		for _, bad := range []string{`"lost":`, `upgrade refused`, `"level":"ERROR"`, "panic", "goroutine"} {
			if strings.Contains(line, bad) && !strings.Contains(line, `"lost":0`) && !strings.Contains(line, "reload refused") {
				t.Errorf("%s", line)
			}
		}
	}
}
