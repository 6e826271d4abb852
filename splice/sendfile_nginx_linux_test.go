package splice_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

const sendFileServer = "SPLICED_TEST_SENDFILE"

// TestHelperSendFile is no test of its own: the server of
// BenchmarkSendFileBesideNginx is this binary with this test. It listens on
// descriptor 3 and sends the file that the environment names.
func TestHelperSendFile(t *testing.T) {
	name := os.Getenv(sendFileServer)
	if name == "" {
		return
	}
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", info.Size())
	for {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 4096)) // the request, in one segment
		if _, err := splice.SendFile(context.Background(), conn, file, 0, 0, splice.HeaderTrailer{Headers: [][]byte{head}}); err != nil {
			t.Log(err)
		}
		conn.Close()
	}
}

// BenchmarkSendFileBesideNginx sends a file of 1 GiB over veth, by nginx with
// sendfile and by SendFile in turns (A B B A), the servers on processor 0 and the
// client on 1, and compares the medians of throughput and processor time. Single
// transfers of the same program differ by a factor of 2 on a virtual machine, so
// it takes many. It needs the machine for itself:
//
//	go test -run - -bench SendFileBesideNginx -benchtime 60x ./splice
func BenchmarkSendFileBesideNginx(b *testing.B) {
	testnet.Need(b, "root", "netns", "peers")
	chain, err := testnet.NewChain()
	if err != nil {
		b.Fatal(err)
	}
	defer chain.Close()
	name := filepath.Join(b.TempDir(), "file")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, zeros{}, 1<<30); err != nil {
		b.Fatal(err)
	}
	pin(b, os.Getpid(), "1")
	servers := []*fileServer{startNginx(b, chain.B, name), startSendFile(b, chain.B, name)}
	for _, s := range servers { // once for the caches
		pin(b, s.pid, "0")
		if _, err := s.fetch(b, chain.A); err != nil {
			b.Fatal(err)
		}
	}
	var took, cpu, both [2][]float64
	for round := 0; b.Loop(); round++ {
		for k := range servers {
			i := (k + round) % len(servers)
			got, err := servers[i].fetch(b, chain.A)
			if err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], got.took.Seconds())
			cpu[i] = append(cpu[i], got.server.Seconds())
			both[i] = append(both[i], (got.server + got.client).Seconds())
		}
	}
	report := func(name string, of, to []float64) {
		pairs := make([]float64, len(of))
		for i := range of {
			pairs[i] = of[i] / to[i]
		}
		b.ReportMetric(middle(of)/middle(to), "x-"+name)
		b.Logf("%s: median %.3f [%.3f-%.3f] of single pairs; s/GiB nginx %.4f, SendFile %.4f (server's processor time) ", name,
			middle(pairs), slices.Min(pairs), slices.Max(pairs), middle(cpu[0]), middle(cpu[1]))
	}
	report("throughput", took[0], took[1])
	report("cpu", cpu[1], cpu[0])
	report("cpu-of-both-ends", both[1], both[0])
	b.Logf("GB/s: nginx %.2f, SendFile %.2f", (1<<30)/1e9/middle(took[0]), (1<<30)/1e9/middle(took[1]))
	b.ReportMetric(0, "ns/op")
}

// middle is the median.
func middle(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return (list[len(list)/2] + list[(len(list)-1)/2]) / 2
}

// A fileServer sends a file of 1 GiB to whoever asks.
type fileServer struct {
	address string
	pid     int // whose processor time counts
}

type fetched struct{ took, server, client time.Duration }

func (s *fileServer) fetch(b *testing.B, from *testnet.Namespace) (got fetched, err error) {
	b.Helper()
	conn, err := from.Dial(b.Context(), "tcp", s.address)
	if err != nil {
		return got, err
	}
	defer conn.Close()
	server, client := processTime(b, s.pid), processTime(b, os.Getpid())
	began := time.Now()
	if _, err := io.WriteString(conn, "GET /file HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"); err != nil {
		return got, err
	}
	buf := make([]byte, 256<<10)
	n := 0
	for err == nil {
		var m int
		m, err = conn.Read(buf)
		n += m
	}
	if err != io.EOF || n < 1<<30 {
		return got, fmt.Errorf("received %d bytes: %w", n, err)
	}
	got.took = time.Since(began)
	got.server, got.client = processTime(b, s.pid)-server, processTime(b, os.Getpid())-client
	return got, nil
}

// processTime is what clock_gettime(2) says of another process's clock: to the
// nanosecond, unlike /proc.
func processTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	const sched = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	clock := uint32(^pid)<<3 | sched
	var ts syscall.Timespec
	if _, _, e := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0); e != 0 {
		t.Fatalf("processor time of %d: %v", pid, e)
	}
	return time.Duration(ts.Nano())
}

func startSendFile(b *testing.B, ns *testnet.Namespace, name string) *fileServer {
	b.Helper()
	ln, err := ns.Listen("tcp", testnet.AddrBA+":0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperSendFile$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), sendFileServer+"="+name)
	cmd.ExtraFiles = []*os.File{f}
	if err := ns.Start(cmd); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &fileServer{ln.Addr().String(), cmd.Process.Pid}
}

func startNginx(b *testing.B, ns *testnet.Namespace, name string) *fileServer {
	b.Helper()
	dir := b.TempDir()
	ln, err := ns.Listen("tcp", testnet.AddrBA+":0") // a free port
	if err != nil {
		b.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	conf := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr; worker_processes 1; user root;
events {} http { access_log off; sendfile on; tcp_nopush on; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b;
fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
server { listen %[2]s; root %[3]s; } }`, dir, address, filepath.Dir(name))
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("nginx", "-c", file)
	cmd.Stderr = os.Stderr
	if err := ns.Start(cmd); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	// The one worker is the master's only child, made after it listens.
	list := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", cmd.Process.Pid)
	for end := time.Now().Add(copyPatience); ; time.Sleep(5 * time.Millisecond) {
		children, err := os.ReadFile(list)
		if err != nil {
			b.Fatal(err)
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(children))); err == nil {
			return &fileServer{address, pid}
		}
		if time.Now().After(end) {
			b.Fatalf("nginx has %q for workers", children)
		}
	}
}

// pin keeps a process on a processor: where the scheduler puts server and
// client makes more of a difference than what they are.
func pin(b *testing.B, pid int, cpu string) {
	b.Helper()
	if out, err := exec.Command("taskset", "-a", "-c", "-p", cpu, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		b.Fatalf("pin: %v: %s", err, out)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
