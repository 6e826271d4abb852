package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A daemon is killed in the middle of 50 transfers: all of them complete without one, and
// the next of the instance adopts them, counts on and says how they ended.
func TestRunInstance(t *testing.T) {
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	const conns, pieces, piece = 50, 64, 8 << 10
	root := testnet.BPFFS(t)
	text := fmt.Sprintf("log: {format: json}\nmetrics: \"127.0.0.1:0\"\ninstance: daemon\ninstance_root: %q\n"+
		"listeners:\n  web: {address: \"127.0.0.1:0\", engine: wire, upstream: web}\nupstreams:\n  web: {servers: [%q]}\n", root, echoServer(t))
	d := runDaemon(t, text)
	all := make([]net.Conn, conns)
	for i := range all {
		c, err := net.Dial("tcp", d.addr(t, "web"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		all[i] = c
	}
	sent := int64(0) // by each
	eventually(t, func() error {
		for _, c := range all {
			echo1(t, c, "12345678")
		}
		sent += 8
		if have := flows(t, root); len(have) != conns {
			return fmt.Errorf("%d flows", len(have))
		}
		return nil
	})

	var halfway, over sync.WaitGroup
	halfway.Add(conns)
	for i, c := range all {
		over.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(i)})
			is, was := make([]byte, piece), make([]byte, piece)
			for n := range pieces {
				if n == pieces/2 {
					halfway.Done()
				}
				_, _ = random.Read(was)
				if _, err := c.Write(was); err != nil {
					t.Errorf("connection %d, piece %d: %v", i, n, err)
					return
				}
				if _, err := io.ReadFull(c, is); err != nil || !bytes.Equal(is, was) {
					t.Errorf("connection %d, piece %d: other bytes, %v", i, n, err)
					return
				}
			}
		})
	}
	for _, f := range flows(t, root) {
		if f.Listener != "web" || f.Upstream != "web" || f.Server != f.Target.String() {
			t.Errorf("flows says %+v", f)
		}
	}
	halfway.Wait()
	d.signal(syscall.SIGKILL)
	d.wait()
	over.Wait()
	if t.Failed() {
		return
	}
	sent += pieces * piece

	d = runDaemon(t, text)
	if line := parse(t, d.stderr.await(t, `"msg":"flows adopted"`)); line["flows"] != float64(conns) || line["instance"] != "daemon" {
		t.Errorf("%v", line)
	}
	// It knows where they have come from, and counts them there.
	page := get(t, http.DefaultClient, parse(t, d.stderr.await(t, `"msg":"metrics"`))["url"].(string))
	server := page[strings.Index(page, "spliced_server_active{"):]
	server, _, _ = strings.Cut(server, "\n")
	for _, want := range []string{fmt.Sprintf("spliced_listener_open{listener=\"web\"} %d\n", conns), fmt.Sprintf("spliced_listener_joined{engine=\"wire\",listener=\"web\"} %d\n", conns)} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if !strings.HasSuffix(server, fmt.Sprintf(" %d", conns)) {
		t.Error(server)
	}
	// It has the capabilities for that, and no others.
	for _, want := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"} {
		line := d.stderr.await(t, `"msg":"privileges `)
		if !strings.Contains(line, want) && !strings.Contains(line, "privileges kept") { // built with cgo
			t.Errorf("%s lacks %s", line, want)
		}
	}
	for _, c := range all {
		echo1(t, c, "adopted?")
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	}
	sent += 8
	for i := range all {
		line := parse(t, d.stderr.awaitNth(t, `"msg":"connection ended"`, i+1))
		if line["bytes_to_target"] != float64(sent) || line["bytes_to_client"] != float64(sent) || line["end_to_target"] != "eof" ||
			line["end_to_client"] != "eof" || line["engine"] != "wire" || line["listener"] != "web" || line["upstream"] != "web" || line["server"] != line["target"] {
			t.Errorf("%v, want %d bytes", line, sent)
		}
	}
	d.stop(t)
	if _, stderr, code := execute(t, "flows", "--root", root, "--purge"); code != exitOK {
		t.Errorf("flows --purge: %s", stderr)
	}
	if _, err := os.Stat(filepath.Join(root, "daemon")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after --purge: %v", err)
	}
}
