package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// A stream as gRPC has them, over HTTP/2 and TLS that pass through: messages both
// ways on one connection for as long as SPLICED_STREAM says (4s; an hour in a
// minute is SPLICED_STREAM=1m), with pauses between them, longer than the idle
// timeout in sum and shorter each, and trailers at the end. The idle timeout is
// that of the hour, an hour, in proportion, but at least what a busy machine may
// pause.
func TestHTTP2Stream(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	testnet.Leaks(t)
	length := 4 * time.Second
	if s := os.Getenv("SPLICED_STREAM"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(echoMessages))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of health checks, which leave early
	server.StartTLS()
	defer server.Close()
	config := filepath.Join(t.TempDir(), "c.yaml")
	cmd := command(t, "run", "-c", config)
	cmd.Cancel = func() error { return os.ErrProcessDone } // it may take longer than others
	d := &daemonProcess{config: config}
	d.write(t, fmt.Sprintf(`
log: {format: json}
listeners:
  rpc:
    address: 127.0.0.1:0
    limits: {idle: %v}
    routes:
      - {sni: example.com, alpn: h2, upstream: rpc}
upstreams:
  rpc: {servers: %q, health: {interval: 200ms, tls: true}}
`, max(length/3, 20*time.Second), server.Listener.Addr()))
	d.process = start(t, cmd)
	addr := d.addr(t, "rpc")
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	var dialled []net.Conn
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", addr)
			if err == nil {
				dialled = append(dialled, c)
			}
			return c, err
		},
	}
	ctx, cancel := context.WithTimeout(t.Context(), length+2*patience)
	defer cancel()
	body, messages := io.Pipe()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://example.com/service/Echo", body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.ProtoMajor != 2 {
		t.Fatalf("the answer is %s", res.Proto)
	}
	// Small ones with pauses, and one of some megabytes in the midst of the
	// stream, which has it handed over to wire where it can be.
	begun, exchanges := time.Now(), 0
	exchange := func(size int) {
		t.Helper()
		sent := make([]byte, size)
		fillPattern(sent, 0)
		go func() { _ = writeMessage(messages, sent) }()
		got, err := readMessage(res.Body)
		if err != nil || string(got) != string(sent) {
			t.Fatalf("message %d, after %v: %d bytes come back, want %d: %v", exchanges, time.Since(begun), len(got), size, err)
		}
		exchanges++
	}
	pause := length / 12
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for large := false; time.Since(begun) < length; <-tick.C {
		exchange(100 + exchanges)
		if !large && time.Since(begun) > length/2 {
			large = true
			exchange(6 << 20)
		}
	}
	// The client ends its direction, the server answers that with trailers.
	_ = messages.Close()
	if b, err := io.ReadAll(res.Body); len(b) != 0 || err != nil {
		t.Errorf("%d bytes, %v at the end of the stream", len(b), err)
	}
	if status := res.Trailer.Get("Grpc-Status"); status != "0" {
		t.Errorf("trailer grpc-status is %q, want 0", status)
	}
	if n := res.Trailer.Get("X-Messages"); n != fmt.Sprint(exchanges) {
		t.Errorf("the server has seen %s messages, want %d", n, exchanges)
	}
	for _, c := range dialled {
		_ = c.Close() // CloseIdleConnections does not yet know that it is idle
	}
	d.stderr.await(t, `"msg":"connection ended"`)
	d.stop(t)
	ends := d.ends(t)
	if len(ends) != 1 || len(dialled) != 1 {
		t.Fatalf("%d connections for one stream, %d dialled", len(ends), len(dialled))
	}
	if ms := ends[0]["duration_ms"].(float64); ms < float64(length.Milliseconds()) {
		t.Errorf("its line says %g ms, want %v at least", ms, length)
	}
	d.expectEnds(t, 1, 12<<20, "eof", "reset-by-drain", "reset-by-source")
}

// echoMessages sends each message back as it comes, and says at the end how many
// there were.
func echoMessages(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, X-Messages")
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	for n := 0; ; n++ {
		message, err := readMessage(r.Body)
		if err == io.EOF {
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set("X-Messages", fmt.Sprint(n))
			return
		}
		if err != nil || writeMessage(w, message) != nil || control.Flush() != nil {
			return
		}
	}
}

// A message is framed as gRPC does it: not compressed, its length, itself.
func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
	return err
}

func readMessage(r io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, message)
	return message, err
}
