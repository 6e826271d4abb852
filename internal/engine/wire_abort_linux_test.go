package engine_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An aborted session leaves no socket behind and tells both peers, whether the program has its
// packets alone or the sockets are still there.
func TestWireAbort(t *testing.T) {
	c := wireChain(t)
	for _, tc := range []struct {
		name    string
		settle  time.Duration
		sockets int // that the session has
	}{{"with its sockets", time.Hour, 2}, {"without", 0, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			s := spliceOneFor(t, c, relaySpec{Settle: tc.settle})
			within(t, wirePatience, "the sockets to go", func() bool { return sockets(t, c.B) == tc.sockets })
			held := s.relay.sockets(t)
			if _, err := io.WriteString(s.relay.stdin, "abort\n"); err != nil {
				t.Fatal(err)
			}
			if res := s.relay.result(t); res.ReasonA != "stopped" || res.ReasonB != "stopped" || res.Engine != "wire" {
				t.Errorf("%+v, want a spliced one, stopped", res)
			}
			s.wantEnd(t, syscall.ECONNRESET)
			if n, err := s.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client has got %d bytes and %v, want a reset", n, err)
			}
			if res := s.relay.result(t); res.Failed != nothingBack {
				t.Errorf("%+v: an aborted session has given something back", res)
			}
			if now := s.relay.sockets(t); now != held-tc.sockets {
				t.Errorf("the relay has %d sockets, want %d less than %d", now, tc.sockets, held)
			}
		})
	}
}

// sockets is how many the relay's process has, connected or not.
func (r *relay) sockets(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	if n == 0 {
		t.Fatal("the relay has no socket: it should listen")
	}
	return n
}
