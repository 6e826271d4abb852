package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/splice"
)

// maxPattern bounds /bytes/N.
const maxPattern = 1 << 40

// builtin is the target of a relay that was given none: an HTTP server to try
// the relay with.
type builtin struct {
	addr   proxy.Addr
	relay  *proxy.Server
	server *http.Server
	done   chan struct{}
}

func startBuiltin(ctx context.Context, relay *proxy.Server) (*builtin, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("built-in target: %w", err)
	}
	b := &builtin{
		addr:  proxy.Addr{Network: "tcp", Address: ln.Addr().String()},
		relay: relay,
		done:  make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.page)
	mux.HandleFunc("GET /bytes/{n}", b.bytes)
	mux.HandleFunc("/echo", echo)
	b.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(b.done)
		_ = b.server.Serve(ln) // until stop
	}()
	return b, nil
}

// stop cuts what is still open: the relay has ended by then.
func (b *builtin) stop() {
	_ = b.server.Close()
	<-b.done
}

// page says how the very request that asks for it was carried.
func (b *builtin) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c, ok := b.carrier(r)
	if ok {
		c = b.handedOver(r, c)
	}
	if !ok {
		fmt.Fprintf(w, "This request came from %s, not through the relay.\n", r.RemoteAddr)
		return
	}
	// The relay's side of the built-in target is B, the client is A.
	fmt.Fprintf(w, `This request was carried by spliced.

client           %s
relay's target   %s
relay's address  %s
connection       number %d, open for %s
`, c.Client, c.Target, c.Local, c.ID, time.Since(c.Started).Round(time.Microsecond))
	fmt.Fprintf(w, "to the target    %d bytes so far, by %s (%s), %d of them spliced\n",
		c.Stats.AToB.Bytes, c.Stats.AToB.Engine, c.Stats.AToB.Why, c.Stats.AToB.Spliced)
	fmt.Fprintf(w, "to the client    %d bytes so far, by %s (%s), %d of them spliced\n",
		c.Stats.BToA.Bytes, c.Stats.BToA.Engine, c.Stats.BToA.Why, c.Stats.BToA.Spliced)
	if f := c.Stats.Wire; f != nil && f.Switched {
		fmt.Fprintf(w, "packet by packet %d bytes to the client in %d packets, %d bytes to the target in %d, by a program in the kernel (wire)\n",
			f.Delivered[1], f.Packets[1], f.Delivered[0], f.Packets[0])
	} else if f != nil && f.Refused != 0 {
		fmt.Fprintf(w, "packet by packet not, for the reason %s (docs/wire.md)\n", f.Refused)
	}
	fmt.Fprint(w, `
Try as well:
  /bytes/1GiB   that many bytes; trailers give their SHA-256 and how they were carried
  /echo         what you send
`)
}

// bytes sends as many bytes of the pattern as asked for, at most 1 TiB.
func (b *builtin) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := parseSize(r.PathValue("n"))
	if err != nil || n > maxPattern {
		http.Error(w, fmt.Sprintf("%q: want a number of bytes up to %d, like 65536, 64KiB or 10MB", r.PathValue("n"), int64(maxPattern)), http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Trailer", "X-Sha256, X-Carried-By")
	h.Set("X-Length", fmt.Sprint(int64(n)))
	sum := sha256.New()
	buf := make([]byte, 256<<10)
	for at := int64(0); at < int64(n); {
		part := buf[:min(int64(len(buf)), int64(n)-at)]
		fillPattern(part, at)
		sum.Write(part)
		if _, err := w.Write(part); err != nil {
			return // the client has gone
		}
		at += int64(len(part))
	}
	h.Set("X-Sha256", hex.EncodeToString(sum.Sum(nil)))
	if c, ok := b.carrier(r); ok {
		s := c.Stats.BToA
		h.Set("X-Carried-By", fmt.Sprintf("%s (%s), %d of %d bytes spliced so far", s.Engine, s.Why, s.Spliced, s.Bytes))
	}
}

// carrier returns the relay's connection on which r came. Bytes can be here a
// moment before they are counted: it waits for the first to be.
func (b *builtin) carrier(r *http.Request) (proxy.Conn, bool) {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return proxy.Conn{}, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	for {
		c, ok := b.relay.ByLocal(ctx, addr)
		if !ok || c.Stats.AToB.Bytes > 0 {
			return c, ok
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return c, ok
		}
	}
}

// handOverWait is how long a page waits for a hand-over that is due.
const handOverWait = 3 * time.Second

// handedOver waits, after a download, for the hand-over that it was worth: it is
// on its way, and what the page is to tell.
func (b *builtin) handedOver(r *http.Request, c proxy.Conn) proxy.Conn {
	ctx, cancel := context.WithTimeout(r.Context(), handOverWait)
	defer cancel()
	for c.Stats.BToA.Bytes >= splice.WireAfterBytes && c.Stats.Wire != nil && !c.Stats.Wire.Switched && c.Stats.Wire.Refused == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return c
		}
		now, ok := b.relay.ByLocal(ctx, c.Local)
		if !ok {
			return c
		}
		c = now
	}
	return c
}

// echo sends back what it reads, while it reads.
func echo(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/1 only needs to be asked
	w.Header().Set("Content-Type", "application/octet-stream")
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			_ = control.Flush()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // a half answer must not look whole
		}
	}
}
