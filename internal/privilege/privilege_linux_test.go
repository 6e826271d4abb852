package privilege

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// What a process that has given up its privileges tells of itself.
type told struct {
	Kept     []string
	Err      string
	Threads  map[string]string // what differs from the first thread
	Status   map[string]string // of the first
	Low      string            // the error of a listener on a low port
	Inside   string            // of a file where it may be written, and elsewhere
	Outside  string
	Null     string // of a device that it may write to, and another one
	Zero     string
	Read     string
	Landlock string
}

// TestMain is that process too: a test can't give up its own.
func TestMain(m *testing.M) {
	if spec := os.Getenv("PRIVILEGE_TEST"); spec != "" {
		_ = json.NewEncoder(os.Stdout).Encode(give(strings.Split(spec, ";")))
		return
	}
	os.Exit(m.Run())
}

func give(spec []string) (t told) {
	user, keep, dir := spec[0], spec[1], spec[2]
	// Threads that are there before.
	var ready, stop sync.WaitGroup
	stop.Add(1)
	for range 8 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			stop.Wait()
		}()
	}
	ready.Wait()
	defer stop.Done()
	var u *User
	if user != "" {
		u = &User{}
		fmt.Sscanf(user, "%d:%d", &u.UID, &u.GID)
	}
	var err error
	t.Kept, err = Drop(strings.Fields(keep), u)
	if err != nil {
		t.Err = err.Error()
		return t
	}
	if _, err := WriteOnly(filepath.Join(dir, "in"), filepath.Join(dir, "missing"), filepath.Join(dir, "locked"), filepath.Join(dir, "locked", "within"), "/dev/null"); err != nil {
		t.Landlock = err.Error()
	}
	t.Status, t.Threads = status("/proc/self/status"), map[string]string{}
	tasks, _ := filepath.Glob("/proc/self/task/*/status")
	for _, path := range tasks {
		for key, value := range status(path) {
			if value != t.Status[key] {
				t.Threads[path+" "+key] = value
			}
		}
	}
	say := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:81")
	if err == nil {
		ln.Close()
	}
	t.Low = say(err)
	t.Inside = say(os.WriteFile(filepath.Join(dir, "in", "a"), nil, 0o600))
	t.Outside = say(os.WriteFile(filepath.Join(dir, "out", "a"), nil, 0o600))
	t.Null, t.Zero = say(os.WriteFile("/dev/null", []byte("x"), 0)), say(os.WriteFile("/dev/zero", []byte("x"), 0))
	_, err = os.ReadFile(filepath.Join(dir, "readable"))
	t.Read = say(err)
	return t
}

func status(path string) map[string]string {
	m := map[string]string{}
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd", "NoNewPrivs", "Uid", "Gid", "Groups":
			m[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	return m
}

// build makes a test binary without cgo.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "privilege.test")
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func TestDrop(t *testing.T) {
	testnet.Need(t, "root")
	binary := build(t)
	for name, tt := range map[string]struct {
		user, keep string
		kept       []string
		bits       string
		low        bool
	}{
		"nothing kept":        {"", "", nil, "0000000000000000", false},
		"ports":               {"", "CAP_NET_BIND_SERVICE", []string{"CAP_NET_BIND_SERVICE"}, "0000000000000400", true},
		"another user":        {"65534:65534", "", nil, "0000000000000000", false},
		"another user, ports": {"65534:65534", "CAP_NET_BIND_SERVICE", []string{"CAP_NET_BIND_SERVICE"}, "0000000000000400", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{dir, filepath.Dir(dir), filepath.Join(dir, "in"), filepath.Join(dir, "out")} {
				_ = os.Mkdir(d, 0o777)
				_ = os.Chmod(d, 0o777)
			}
			// Root's alone, as a BPF file system is.
			if err := os.MkdirAll(filepath.Join(dir, "locked", "within"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "readable"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary)
			cmd.Env = append(os.Environ(), "PRIVILEGE_TEST="+tt.user+";"+tt.keep+";"+dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var got told
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got.Err != "" || !slices.Equal(got.Kept, tt.kept) {
				t.Fatalf("kept %v, want %v; error %q", got.Kept, tt.kept, got.Err)
			}
			if len(got.Threads) != 0 {
				t.Errorf("threads differ: %v", got.Threads)
			}
			for key, want := range map[string]string{"CapEff": tt.bits, "CapPrm": tt.bits, "CapBnd": tt.bits, "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1"} {
				if got.Status[key] != want {
					t.Errorf("%s is %s, want %s", key, got.Status[key], want)
				}
			}
			if tt.user != "" && (got.Status["Uid"] != "65534 65534 65534 65534" || got.Status["Gid"] != "65534 65534 65534 65534" || got.Status["Groups"] != "65534") {
				t.Errorf("user %s, group %s, groups %s", got.Status["Uid"], got.Status["Gid"], got.Status["Groups"])
			}
			if limit, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); strings.TrimSpace(string(limit)) == "1024" && (got.Low == "") != tt.low && !strings.Contains(got.Low, "in use") {
				t.Errorf("a low port: %q", got.Low)
			}
			if got.Inside != "" || got.Read != "" {
				t.Errorf("written inside: %q; read: %q", got.Inside, got.Read)
			}
			if got.Landlock == "" && (!strings.Contains(got.Outside, "permission denied") || !strings.Contains(got.Zero, "permission denied")) {
				t.Errorf("written outside: %q; to another device: %q", got.Outside, got.Zero)
			}
			if got.Null != "" {
				t.Errorf("written to a device that it may write to: %q", got.Null)
			}
			if got.Landlock != "" && got.Landlock != ErrNoLandlock.Error() {
				t.Errorf("landlock: %s", got.Landlock)
			}
		})
	}
}

func TestUnknownCapability(t *testing.T) {
	if _, err := Drop([]string{"CAP_FLY"}, nil); err == nil || !strings.Contains(err.Error(), "CAP_FLY") || errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v", err)
	}
}
