package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Whose sockets are in somebody's sockmap is found by process and by connection.
func TestProbeSockmaps(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	conn := near.LocalAddr().String() + "-" + near.RemoteAddr().String()
	pid := fmt.Sprint(os.Getpid())
	if stdout, stderr, code := execute(t, "probe", "--conn", conn); code != exitOK || !strings.HasPrefix(stdout, "0 ends of "+conn) {
		t.Errorf("before: exit code %d, %q, %q", code, stdout, stderr)
	}

	m := testnet.NewSockmap(t, ebpf.SockHash, "skb-pass")
	m.Put(1, far.(syscall.Conn))
	for _, args := range [][]string{{"--pid", pid}, {"--conn", conn}} {
		stdout, stderr, code := execute(t, append([]string{"probe", "--json"}, args...)...)
		var view membershipView
		if err := json.Unmarshal([]byte(stdout), &view); code != exitOK || err != nil {
			t.Fatalf("%v: exit code %d, %v, %q, %q", args, code, err, stdout, stderr)
		}
		if len(view.Sockets) != 1 || view.Maps < 1 || view.Sockets[0].Local.String() != far.LocalAddr().String() {
			t.Fatalf("%v: %+v", args, view)
		}
		s := view.Sockets[0]
		if (s.FD != nil) != (view.PID != 0) || len(s.In) != 1 || len(s.In[0].Programs) != 1 || s.In[0].Programs[0].Attach != "skb-verdict" {
			t.Errorf("%v: %+v", args, s)
		}
		stdout, stderr, code = execute(t, append([]string{"probe"}, args...)...)
		for _, want := range []string{far.LocalAddr().String() + " to " + far.RemoteAddr().String(), "in sockhash", "skb-verdict", "looked into"} {
			if code != exitOK || !strings.Contains(stdout, want) {
				t.Errorf("%v: exit code %d, %q has no %q; %q", args, code, stdout, want, stderr)
			}
		}
	}
	if _, stderr, code := execute(t, "probe", "--pid", "1073741824"); code != exitFailed || !strings.Contains(stderr, "no process 1073741824") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
