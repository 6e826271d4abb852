package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startForeign starts somebody else's server, which ends with the test, and
// returns its process.
func startForeign(t *testing.T, as *syscall.Credential, name string, args ...string) int {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // for what a child of it holds open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// PostgreSQL leaves shared memory behind if it is killed.
		_ = syscall.Kill(cmd.Process.Pid, syscall.SIGINT)
		late := time.AfterFunc(patience, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		late.Stop()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
	return cmd.Process.Pid
}

// client runs somebody else's client to its end.
func client(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// vacantAddr returns an address for a program that can't be told to let the
// kernel choose a port: on a loopback address that nobody else uses.
func vacantAddr(t *testing.T) string {
	t.Helper()
	ip := net.IPv4(127, byte(1+mathrand.N(254)), byte(mathrand.N(256)), byte(1+mathrand.N(254)))
	ln, err := net.Listen("tcp", net.JoinHostPort(ip.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func hostPort(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// awaitListener waits until somebody listens, without a connection that would be
// one of the test's.
func awaitListener(t *testing.T, addr string) {
	t.Helper()
	eventually(t, func() error {
		_, err := waiting(addr)
		return err
	})
}

// waiting returns how many connections wait to be accepted at an address (IPv4),
// an error if nobody listens there.
func waiting(addr string) (n int, err error) {
	a := netip.MustParseAddrPort(addr)
	ip := a.Addr().As4()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	_, entry, found := strings.Cut(string(b), fmt.Sprintf(": %08X:%04X 00000000:0000 0A ", binary.NativeEndian.Uint32(ip[:]), a.Port()))
	if !found {
		return 0, fmt.Errorf("nobody listens at %s", addr)
	}
	_, err = fmt.Sscanf(entry, "00000000:%08X", &n) // the send and the receive queue
	return n, err
}

// writeCertificate writes a certificate of name and its key.
func writeCertificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := selfSigned(t, name, k)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// credential is that of a system user.
func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, errU := strconv.Atoi(u.Uid)
	gid, errG := strconv.Atoi(u.Gid)
	if errU != nil || errG != nil {
		t.Fatal(errU, errG)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// ends returns the lines about ended connections of a daemon that logs JSON,
// after it has ended.
func (d *daemonProcess) ends(t *testing.T) []map[string]any {
	t.Helper()
	var list []map[string]any
	for line := range strings.Lines(d.stderr.all()) {
		if strings.Contains(line, `"msg":"connection ended"`) {
			list = append(list, parse(t, line))
		}
	}
	return list
}

// expectEnds asserts that there were at least n connections, that each ended by
// one of these reasons in each direction, and that one of those that moved size
// bytes or more was carried by page references or packet by packet.
func (d *daemonProcess) expectEnds(t *testing.T, n int, size float64, reasons ...string) {
	t.Helper()
	ends := d.ends(t)
	if len(ends) < n {
		t.Errorf("%d connections have ended, want %d at least", len(ends), n)
	}
	large, fast := 0, 0
	for _, end := range ends {
		for _, key := range []string{"end_to_target", "end_to_client"} {
			if reason, _ := end[key].(string); !slices.Contains(reasons, reason) {
				t.Errorf("%s is %q, want one of %q: %v", key, reason, reasons, end)
			}
		}
		if end["bytes_to_target"].(float64)+end["bytes_to_client"].(float64) < size {
			continue
		}
		large++
		if end["engine"] == "splice" || end["engine"] == "wire" {
			fast++
		}
	}
	if large == 0 || fast == 0 {
		t.Errorf("of %d connections of %g bytes %d went a fast way: %v", large, size, fast, ends)
	}
	for _, bad := range []string{`"level":"ERROR"`, "no target reached"} {
		if strings.Contains(d.stderr.all(), bad) {
			t.Errorf("the log has %q", bad)
		}
	}
}
