package proxy

import (
	"os"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/proxy/internal/testcert"
)

// Certificates are looked at from time to time, those for clients and those for
// servers: what is new is read, and what can't be used is told.
func TestFilesAreWatched(t *testing.T) {
	testnet.Leaks(t)
	ca, err := testcert.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var pairs [2]KeyPair
	renew := func(i int, serial int64) {
		t.Helper()
		if pairs[i].Certificate, pairs[i].Key, err = ca.Issue([]string{"front", "back"}[i], serial, false, "a.example"); err != nil {
			t.Fatal(err)
		}
	}
	renew(0, 1)
	renew(1, 2)
	c := reloadable("127.0.0.1:0", 0)
	l, u := c.Listeners["l"], c.Upstreams["u"]
	l.TLS = &ListenerTLS{Certificates: []KeyPair{pairs[0]}}
	u.TLS = &UpstreamTLS{CA: ca.Path, Certificate: pairs[1].Certificate, Key: pairs[1].Key}
	c.Listeners["l"], c.Upstreams["u"] = l, u
	told := make(chan Change, 100)
	s := &Server{Config: c, Hooks: Hooks{Changed: func(c Change) { told <- c }}, fileInterval: time.Millisecond}
	startServer(t, s)
	next := func(what ChangeKind, listener, upstream string) {
		t.Helper()
		for {
			select {
			case c := <-told:
				if (c.Err == nil) != (c.What == FilesRead) {
					t.Errorf("told of %+v", c)
				}
				// They may be looked at between the certificate and its key, and once more
				// when both have been read.
				if c.What == what && c.Listener == listener && c.Upstream == upstream {
					return
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("not told of %s of %s%s", what, listener, upstream)
			}
		}
	}
	renew(0, 3)
	next(FilesRead, "l", "")
	renew(1, 4)
	next(FilesRead, "", "u")
	if err := os.Remove(pairs[1].Key); err != nil {
		t.Fatal(err)
	}
	next(FilesRefused, "", "u")
	renew(1, 5)
	next(FilesRead, "", "u")
}
