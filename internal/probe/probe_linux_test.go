package probe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spliced-io/spliced/internal/probe"
	"github.com/spliced-io/spliced/internal/testnet"
)

// asNobody has the test binary print a report instead of testing.
const asNobody = "SPLICED_TEST_PROBE"

func TestMain(m *testing.M) {
	if os.Getenv(asNobody) != "" {
		if err := json.NewEncoder(os.Stdout).Encode(probe.Run(context.Background())); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// What every kernel that Go runs on does, by splice(2) or by the manual.
func TestRun(t *testing.T) {
	testnet.Leaks(t)
	r := probe.Run(t.Context())
	if r.OS != "linux" || r.Kernel == "" || r.Arch == "" || r.UID != os.Getuid() {
		t.Errorf("report of %+v", r)
	}
	var names []string
	for _, c := range r.Capabilities {
		if c.Name == "" || c.Reason == "" || strings.Contains(c.Reason, "\n") {
			t.Errorf("capability %+v", c)
		}
		if slices.Contains(names, c.Name) {
			t.Errorf("%s is there twice", c.Name)
		}
		names = append(names, c.Name)
	}
	for name, want := range map[string]probe.Answer{
		"splice-from.tcp4":        probe.Yes,
		"splice-from.unix-stream": probe.Yes,
		"splice-from.pipe":        probe.Yes,
		"splice-to.tcp4":          probe.Yes,
		"splice-to.unix-stream":   probe.Yes,
		"splice-to.pipe":          probe.Yes,
		"splice-to.dev-null":      probe.Yes,
		"splice-to.file-append":   probe.No, // EINVAL: splice(2)
	} {
		if c, ok := r.Find(name); !ok || c.Answer != want {
			t.Errorf("%s: %+v, %v; want %v", name, c, ok, want)
		}
	}
	if c, ok := r.Find("pipe.default-size"); !ok || c.Value < int64(os.Getpagesize()) {
		t.Errorf("pipe.default-size: %+v, %v", c, ok)
	}
	if _, ok := r.Find("nonsense"); ok {
		t.Error("nonsense was found")
	}
}

// A page that reaches the other end changed was handed on; one that does not
// was copied. Both are answers.
func TestPages(t *testing.T) {
	testnet.Leaks(t)
	r := probe.Run(t.Context())
	for _, name := range []string{
		"pages-shared.file-to-tcp", "pages-shared.tmpfs-to-tcp", "pages-shared.sendfile-to-tcp",
		"pages-shared.tcp-to-tcp", "pages-shared.user-to-tcp",
	} {
		c, ok := r.Find(name)
		if !ok {
			t.Errorf("%s was not measured", name)
		}
		t.Logf("%s: %v: %s", name, c.Answer, c.Reason)
	}
	// The two ways of a file to a socket are one inside the kernel.
	a, _ := r.Find("pages-shared.file-to-tcp")
	b, _ := r.Find("pages-shared.sendfile-to-tcp")
	if a.Answer != b.Answer {
		t.Errorf("splice: %+v; sendfile: %+v", a, b)
	}
}

// The answer does not depend on the moment.
func TestSocketPages(t *testing.T) {
	testnet.Leaks(t)
	first := probe.SocketPages()
	for range 10 {
		if again := probe.SocketPages(); again != first {
			t.Errorf("%+v, then %+v", first, again)
		}
	}
}

// An unprivileged user has an allowance of pipes, and no TCP_REPAIR.
func TestUnprivileged(t *testing.T) {
	testnet.Need(t, "root")
	testnet.Leaks(t)
	// An id that nobody else has: its allowance is whole.
	const user = 3<<16 + 4711
	cmd := testnet.AsUser(t, user)
	cmd.Env = []string{asNobody + "=1"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var r probe.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	if r.UID != user {
		t.Errorf("uid %d, want %d", r.UID, user)
	}
	if c, _ := r.Find("tcp-repair"); c.Answer != probe.No || !strings.Contains(c.Reason, "CAP_NET_ADMIN") {
		t.Errorf("tcp-repair: %+v, want no for want of CAP_NET_ADMIN", c)
	}
	if c, _ := r.Find("splice-from.tcp4"); c.Answer != probe.Yes {
		t.Errorf("splice-from.tcp4: %+v", c)
	}
	// Maps and programs of some types may be allowed to everybody; these never.
	for _, name := range []string{"bpf-program.sk_skb", "bpf-map.sockmap", "sockmap.redirect", "sockmap.splice-read", "sockmap.fionread-member"} {
		if c, _ := r.Find(name); c.Answer != probe.No || !strings.Contains(c.Reason, "CAP_") {
			t.Errorf("%s: %+v, want no for want of a capability", name, c)
		}
	}
	soft, err := os.ReadFile("/proc/sys/fs/pipe-user-pages-soft")
	if err != nil {
		t.Fatal(err)
	}
	if string(soft) != "16384\n" {
		t.Skipf("fs.pipe-user-pages-soft is %s, not the kernel's default", bytes.TrimSpace(soft))
	}
	if c, _ := r.Find("pipe.many-mebibytes"); c.Answer != probe.No || c.Value < 60 || c.Value > 64 {
		t.Errorf("pipe.many-mebibytes: %+v, want some 63", c)
	}
	if c, _ := r.Find("pipe.size-beyond-allowance"); c.Answer != probe.No || c.Value != int64(2*os.Getpagesize()) {
		t.Errorf("pipe.size-beyond-allowance: %+v, want two pages", c)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := probe.Run(ctx); len(r.Capabilities) != 0 {
		t.Errorf("measured %d capabilities after the end", len(r.Capabilities))
	}
}

func TestAnswerText(t *testing.T) {
	for _, a := range []probe.Answer{probe.Yes, probe.No, probe.Inconclusive} {
		b, err := a.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back probe.Answer
		if err := back.UnmarshalText(b); err != nil || back != a {
			t.Errorf("%v comes back from %q as %v, %v", a, b, back, err)
		}
	}
	var a probe.Answer
	if err := a.UnmarshalText([]byte("maybe")); err == nil {
		t.Error("maybe is an answer")
	}
}

// No descriptors are no answer about splice(2).
func TestShortageIsInconclusive(t *testing.T) {
	testnet.Leaks(t)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil && !errors.Is(err, syscall.EPERM) {
			t.Error(err)
		}
	})
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	report := probe.Run(t.Context())
	for _, name := range []string{"bpf-map.sockmap", "bpf-program.sk_skb", "sockmap.redirect"} {
		if c, ok := report.Find(name); !ok || c.Answer == probe.Yes || os.Getuid() == 0 && c.Answer != probe.Inconclusive {
			t.Errorf("%s: %+v, %v; want inconclusive", name, c, ok)
		}
	}
	if c := probe.SocketPages(); c.Answer != probe.Inconclusive || !strings.Contains(c.Reason, "too many open files") {
		t.Errorf("%+v, want inconclusive for want of descriptors", c)
	}
}

// What root may do with BPF on a kernel that has it; whether splice(2) and
// FIONREAD see what is in a sockmap, kernels differ in.
func TestSockmapProbes(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	r := probe.Run(t.Context())
	for _, name := range []string{
		"bpf-program.sk_skb", "bpf-program.sk_msg", "bpf-program.sched_cls", "bpf-program.socket_filter",
		"bpf-map.array", "bpf-map.hash", "bpf-map.ringbuf", "bpf-map.sockmap", "bpf-map.sockhash",
		"sockmap.redirect",
	} {
		if c, ok := r.Find(name); !ok || c.Answer != probe.Yes {
			t.Errorf("%s: %+v, %v; want yes", name, c, ok)
		}
	}
	for _, name := range []string{"sockmap.splice-read", "sockmap.fionread-member", "sockmap.fionread-program"} {
		c, ok := r.Find(name)
		if !ok || c.Answer == probe.Inconclusive || !strings.Contains(c.Reason, "bytes") {
			t.Errorf("%s: %+v, %v; want a measurement", name, c, ok)
		}
		t.Logf("%s: %v: %s", name, c.Answer, c.Reason)
	}
}
