//go:build linux

package conformance

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A Link is a relay with a client and a server:
//
//	A ── relayA ═ session ═ relayB ── B
type Link struct {
	A, B    net.Conn        // the ends of the client and of the server
	Session *splice.Session // nil before Start

	ring           bool // the ends are joined by another session
	t              TB
	place          *place
	relayA, relayB net.Conn // what the session joins
	released       sync.Once
}

// narrowBuffer is the size of a small buffer, in bytes: a few segments of the
// loopback interface.
const narrowBuffer = 128 << 10

// NewLink makes the four ends, not joined yet. Everything is closed and the
// session stopped when the test ends.
func NewLink(t TB, e Engine, n Network, own bool) *Link {
	t.Helper()
	return newPlace(e, n, own).link(t)
}

func (p *place) link(t TB) *Link {
	t.Helper()
	l := &Link{t: t, place: p}
	t.Cleanup(l.Release)
	var err error
	// As in life: the client dials the relay, the relay dials the server.
	if l.A, l.relayA, err = p.network.A.Dial(); err != nil {
		t.Fatalf("connect client and relay: %v", err)
	}
	if l.relayB, l.B, err = p.network.B.Dial(); err != nil {
		t.Fatalf("connect relay and server: %v", err)
	}
	if p.narrow {
		for _, c := range []net.Conn{l.A, l.relayA, l.relayB, l.B} {
			if err := setBuffers(c, narrowBuffer, narrowBuffer); err != nil {
				t.Fatalf("set buffers: %v", err)
			}
		}
	}
	// Nothing in the suite waits for ever.
	for _, c := range []net.Conn{l.A, l.B} {
		if err := c.SetDeadline(time.Now().Add(lasting)); err != nil {
			t.Fatalf("set deadline: %v", err)
		}
	}
	return l
}

// Start joins the two connections.
func (l *Link) Start(opts ...splice.Option) {
	l.t.Helper()
	s, err := splice.Start(l.relayA, l.relayB, l.options(opts...)...)
	if err != nil {
		l.t.Fatalf("start: %v", err)
	}
	l.Session = s
	if e := l.place.engine; e.early && e.refused(l.place) == "" {
		l.handOver()
	}
}

// handOver waits until the session is handed over, or has said why it is not.
func (l *Link) handOver() {
	l.t.Helper()
	e := l.place.engine
	var s splice.Stats
	if !within(patience, func() bool {
		select {
		case <-l.Session.Done():
			return true
		default:
		}
		s = l.Session.Stats()
		switch why := e.Reason(s).String(); why {
		case "no-bytes":
			return e.Handed(s) || s.AToB.Bytes+s.BToA.Bytes > 0
		case "wire-ended", "wire-max-bytes":
			return true
		case "wire-address-conflict":
			if l.ring {
				return true
			}
			fallthrough
		default:
			l.t.Fatalf("not handed over because of %s", why)
			return false
		}
	}) {
		l.t.Fatalf("not handed over within %v, and no reason: %+v, %+v", patience, s, s.Wire)
	}
}

func (l *Link) options(opts ...splice.Option) []splice.Option {
	all := append([]splice.Option(nil), l.place.engine.Options...)
	if l.place.own {
		all = append(all, splice.Own())
	}
	return append(all, opts...)
}

// Wait waits for the session's own end.
func (l *Link) Wait() splice.Result {
	l.t.Helper()
	select {
	case <-l.Session.Done():
	case <-time.After(patience):
		l.t.Fatalf("the session has not ended within %v: %+v", patience, l.Session.Stats())
	}
	res, err := l.Session.Wait()
	l.verify(res, err)
	return res
}

// Stop ends the session, when what is on its way is delivered, and has the
// relay's ends back.
func (l *Link) Stop() splice.Result {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res := l.stop(ctx)
	if ctx.Err() != nil {
		l.t.Fatalf("stop took more than %v", patience)
	}
	return res
}

// StopNow ends the session without waiting for a receiver.
func (l *Link) StopNow() splice.Result {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	begin := time.Now()
	res := l.stop(ctx)
	if took := time.Since(begin); took > patience/2 {
		l.t.Fatalf("stop without waiting took %v", took)
	}
	return res
}

func (l *Link) stop(ctx context.Context) splice.Result {
	l.t.Helper()
	res, err := l.Session.Stop(ctx)
	select {
	case <-l.Session.Done():
	default:
		l.t.Fatalf("the session goes on after Stop: %+v", l.Session.Stats())
	}
	l.verify(res, err)
	if l.place.own {
		a, b, err := l.Session.Conns()
		if err != nil {
			l.t.Fatalf("have the connections back after Stop: %v", err)
		}
		l.relayA, l.relayB = a, b
	}
	return res
}

// Release closes everything. It is called at the end of the test by itself.
func (l *Link) Release() {
	l.released.Do(func() {
		if l.Session != nil {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, _ = l.Session.Stop(ctx)
			select {
			case <-l.Session.Done():
			default:
				l.t.Errorf("the session can't be stopped: %+v", l.Session.Stats())
			}
			if l.place.own {
				// Connections that nobody has asked for yet come back here.
				if a, b, err := l.Session.Conns(); err == nil {
					a.Close()
					b.Close()
				}
			}
		}
		for _, c := range []net.Conn{l.A, l.B, l.relayA, l.relayB} {
			if c != nil {
				c.Close()
			}
		}
	})
}

// verify checks what holds for every result.
func (l *Link) verify(res splice.Result, err error) {
	l.t.Helper()
	for _, d := range []struct {
		name  string
		end   splice.End
		stats splice.DirectionStats
	}{{"a to b", res.AToB, res.Stats.AToB}, {"b to a", res.BToA, res.Stats.BToA}} {
		if d.end.Reason.String() == "running" {
			l.t.Errorf("%s: ended, but the reason is still running", d.name)
		}
		if d.end.Bytes != d.stats.Bytes || d.end.Reason != d.stats.Reason {
			l.t.Errorf("%s: end and statistics disagree: %+v, %+v", d.name, d.end, d.stats)
		}
		if d.stats.Spliced > d.stats.Bytes {
			l.t.Errorf("%s: more spliced than moved: %+v", d.name, d.stats)
		}
		switch d.end.Reason.String() {
		case "eof", "max":
			if d.end.Err != nil {
				l.t.Errorf("%s: an error with reason %v: %v", d.name, d.end.Reason, d.end.Err)
			}
		}
	}
	if res.Ended.Before(res.Stats.Started) {
		l.t.Errorf("ended at %v, before the start at %v", res.Ended, res.Stats.Started)
	}
	again, againErr := l.Session.Wait()
	if again.AToB.Bytes != res.AToB.Bytes || again.BToA.Bytes != res.BToA.Bytes ||
		again.AToB.Reason != res.AToB.Reason || again.BToA.Reason != res.BToA.Reason ||
		fmt.Sprint(againErr) != fmt.Sprint(err) {
		l.t.Errorf("a second look has another result: %+v (%v), before %+v (%v)", again, againErr, res, err)
	}
	now := l.Session.Stats()
	if now.AToB != res.Stats.AToB || now.BToA != res.Stats.BToA {
		l.t.Errorf("the statistics don't survive the session: %+v, then %+v", res.Stats, now)
	}
}
