package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/splice"
)

func TestFailReason(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want FailReason
	}{
		{errNoRoute, NoRoute},
		{errRejected, RejectedByRoute},
		{errDenied, ClientDenied},
		{errTooMany, ClientTooMany},
		{errTooOften, ClientTooOften},
		{fmt.Errorf("%w: 5 bytes", errHandshake), HandshakeTimeout},
		{fmt.Errorf("%w: alert", errClientTLS), HandshakeFailed},
		{fmt.Errorf("%w s: reset", errServerTLS), ConnectTLS},
		{errLeftBefore, ClientLeft},
		{errors.Join(syscall.ECONNREFUSED, splice.ErrClientLeft), ClientLeft},
		{errors.Join(syscall.ECONNREFUSED, splice.ErrLifetime), LifetimeOver},
		{fmt.Errorf("%w: all are down", errNoServer), NoServerUp},
		{errQueueFull, QueueFull},
		{errQueueLate, QueueTimeout},
		{ErrServerClosed, ServerStopped},
		{splice.ErrStopped, ServerStopped},
		{fmt.Errorf("connect to b: %w", splice.ErrRaced), ConnectRaced},
		{os.NewSyscallError("connect", syscall.ECONNREFUSED), ConnectRefused},
		{os.NewSyscallError("connect", syscall.ENOENT), ConnectRefused},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, ConnectTimeout},
		{syscall.ETIMEDOUT, ConnectTimeout},
		{syscall.EHOSTUNREACH, ConnectUnreachable},
		{syscall.ENETUNREACH, ConnectUnreachable},
		{syscall.ECONNRESET, ConnectReset},
		{fmt.Errorf("send a PROXY header to s: %w", syscall.EPIPE), ConnectReset},
		{fmt.Errorf("join s: %w", &splice.Error{Op: "relay", Side: "b", Err: syscall.ENOTCONN}), ConnectReset},
		{fmt.Errorf("%w: %w", splice.ErrClientLeft, syscall.ENOTCONN), ClientLeft},
		{syscall.EMFILE, NoDescriptors},
		{syscall.EADDRNOTAVAIL, NoDescriptors},
		{errors.New("something else"), OtherFailure},
		{errors.Join(syscall.ETIMEDOUT, syscall.ECONNREFUSED), ConnectRefused},
	} {
		if got := failReason(tc.err); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.err, got, tc.want)
		}
	}
}

// The table of docs/reasons.md has every code, once, and no other; what comes first
// of several tries comes first there.
func TestReasonTable(t *testing.T) {
	t.Parallel()
	docs, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	var table []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(string(docs), -1) {
		if slices.Contains(table, m[1]) {
			t.Errorf("%s is there twice", m[1])
		}
		table = append(table, m[1])
	}
	code := make(map[string]bool)
	for _, name := range []string{"failure.go", "hooks.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\t(?:\w+ +FailReason|Cut\w+) += "([a-z-]+)"`).FindAllStringSubmatch(string(text), -1) {
			code[m[1]] = true
		}
	}
	for r := splice.Running; r <= splice.Failed; r++ {
		code[r.String()] = true
	}
	if len(code) < 30 {
		t.Fatalf("only %d codes were found: %v", len(code), code)
	}
	for _, name := range table {
		if !code[name] {
			t.Errorf("%s is no code", name)
		}
		delete(code, name)
	}
	for name := range code {
		t.Errorf("%s is not in the table", name)
	}
	last := -1
	for _, r := range failReasons {
		if i := slices.Index(table, string(r.reason)); i < last && r.reason != NoDescriptors {
			t.Errorf("%s stands before what it yields to", r.reason)
		} else if r.reason != NoDescriptors {
			last = i
		}
	}
}

func TestSteerNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	s := &Server{Config: Config{
		Listeners: map[string]Listener{"l": {Address: []string{"127.0.0.1:0"}, Upstream: "u"}},
		Upstreams: map[string]Upstream{"u": {Servers: Targets("127.0.0.1:1", "127.0.0.1:2")}},
	}}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for _, tc := range []struct{ upstream, server, want string }{
		{"x", "127.0.0.1:1", "want u"},
		{"u", "", "want one of 127.0.0.1:1, 127.0.0.1:2"},
		{"u", "127.0.0.1:22", `did you mean "127.0.0.1:2"?`},
	} {
		if err := s.SetDraining(tc.upstream, tc.server, true); !errors.Is(err, ErrUnknown) || !strings.HasSuffix(err.Error(), tc.want) {
			t.Errorf("%v, want it to end in %q", err, tc.want)
		}
	}
	if err := s.SetWeight("u", "127.0.0.1:1", maxWeight+1); err == nil {
		t.Error("too large a weight was taken")
	}
	weight := func() int { return s.Upstreams()[0].Servers[0].Weight }
	for _, set := range []struct{ weight, want int }{{7, 7}, {0, 1}} {
		if err := s.SetWeight("u", "127.0.0.1:1", set.weight); err != nil || weight() != set.want {
			t.Errorf("weight %d, %v, want %d", weight(), err, set.want)
		}
	}
	if err := s.SetDraining("u", "127.0.0.1:2", true); err != nil || s.Upstreams()[0].Servers[1].State != ServerDraining {
		t.Errorf("%v: %+v, want it draining", err, s.Upstreams()[0].Servers[1])
	}
}

func TestCopiedNeverFalls(t *testing.T) {
	t.Parallel()
	var c Carried
	for _, step := range []struct{ seen, want Carried }{
		{Carried{-5, 3}, Carried{0, 3}},
		{Carried{7, 1}, Carried{7, 3}},
		{Carried{6, 9}, Carried{7, 9}},
	} {
		if got := c.rise(step.seen); got != step.want {
			t.Errorf("seen %v: %v, want %v", step.seen, got, step.want)
		}
	}
}
