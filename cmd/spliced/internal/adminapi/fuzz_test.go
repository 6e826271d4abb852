package adminapi

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
)

// Whatever is asked of a live server, it answers as described, never by a 5xx, and
// what it does not do in the one form of errors.
func FuzzAPI(f *testing.F) {
	const server = "/v1/upstreams/web/servers/127.0.0.1:1"
	for _, r := range routes() {
		f.Add(r.method, strings.NewReplacer("{upstream}", "web", "{server}", "127.0.0.1:1", "{id}", "1").Replace(r.path), asJSON, "", "", []byte("{}"), false)
	}
	f.Add("POST", server+"/weight", asJSON, "", "", []byte(`{"weight": 3}`), false)
	f.Add("PUT", "/v1/log-level", asJSON+"; charset=utf-8", "", "", []byte(`{"level": "warn"}`), false)
	f.Add("GET", "/v1/sessions?listener=web&upstream=web&server=127.0.0.1:1&engine=copy&client=127.0.0.0/8&limit=1&after=0", "", "", "", []byte(nil), false)
	f.Add("GET", "/v1/sessions?client=[::1]:80", "", "", "", []byte(nil), false)
	f.Add("GET", "/v1/watch?interval=1s&sessions=3", "", "", "", []byte(nil), false)
	f.Add("POST", "/v1/reload", "", "http://localhost", "", []byte(nil), true)
	f.Add("GET", "/v1/status", "", "", "Bearer x", []byte(nil), false)
	f.Add("CONNECT", "*", "text/plain", "null", "Basic =", []byte("\x00"), true)
	f.Add("OPTIONS", "*", "", "", "", []byte(nil), false)

	s := newStand(f, testnet.Echo(f, "tcp", "127.0.0.1:0"), "127.0.0.1:1")
	conn, err := net.DialTimeout("tcp", s.proxy.Addrs("web")[0].String(), patience)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte("hello")); err != nil {
		f.Fatal(err)
	}
	socket := strings.TrimPrefix(s.unix, "unix:")
	client := &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	f.Cleanup(client.CloseIdleConnections)

	f.Fuzz(func(t *testing.T, method, target, contentType, origin, authorization string, body []byte, refuse bool) {
		s.mu.Lock()
		if s.fails = nil; refuse {
			s.fails = errors.New("refused")
		}
		s.mu.Unlock()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost", bytes.NewReader(body))
		if err != nil || method == "" {
			t.Skip("no such method can be sent")
		}
		r.URL.Opaque = target
		for key, value := range map[string]string{"Content-Type": contentType, "Origin": origin, "Authorization": authorization} {
			if value != "" {
				r.Header.Set(key, value)
			}
		}
		sent := r.URL.RequestURI()
		if strings.ContainsAny(sent, " \r\n\t\x7f") || sent == "" {
			t.Skip("no such path can be sent")
		}
		if method == http.MethodConnect {
			return // net/http's client takes its answer for a tunnel
		}
		u, notHTTP := url.ParseRequestURI(sent)
		asked := time.Now()
		response, err := client.Do(r)
		if err != nil {
			var ue *url.Error
			if notHTTP != nil && (errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
				return // net/http's server has hung up before the client had sent the body, and the client has lost the answer
			}
			if errors.As(err, &ue) && !ue.Timeout() && (strings.Contains(err.Error(), "invalid") || strings.Contains(err.Error(), "net/http: ")) {
				t.Skip("the client sends no such thing")
			}
			t.Fatalf("%s %q: %v after %v", method, sent, err, time.Since(asked))
		}
		defer response.Body.Close()
		x := exchange{status: response.StatusCode, header: response.Header}
		if response.Header.Get("Content-Type") == "application/jsonl" {
			x.body, err = bufio.NewReader(response.Body).ReadBytes('\n') // it goes on
		} else {
			x.body, err = io.ReadAll(response.Body)
		}
		if err != nil {
			t.Fatalf("%s %q: the answer: %v", method, sent, err)
		}
		if notHTTP != nil {
			if x.status != http.StatusBadRequest { // net/http's own, of what is no HTTP
				t.Fatalf("%s %q: %d %s", method, sent, x.status, x.body)
			}
			return
		}
		if x.status >= 500 {
			t.Fatalf("%s %q: %d %s", method, sent, x.status, x.body)
		}
		if x.status/100 != 2 && method != http.MethodHead {
			x.failure(t)
		}
		r.URL = u
		checkAnswer(t, r, x)
	})
}
