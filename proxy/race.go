package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// A home is a server that was found under addresses of IPv4 and of IPv6. Those of the
// family that the system prefers (RFC 6724), IPv6 as a rule, are its members for
// balancing. The others stand by: they are used when none of these is up, and dialled
// beside one that has not answered at once (RFC 8305). Each is checked, ejected and
// counted for itself.
type home struct {
	preferred []*member
	families  [2]bool // it has addresses of: IPv6, IPv4
}

// settleHomes finds the homes of the members that a name has, found under those
// addresses: its own, or one for each target of its SRV records. The upstream's lock is
// held.
func settleHomes(members []*member, found []resolvedAddr) {
	preferred := preferences(found)
	homes := make(map[string]*home)
	for _, a := range found {
		h := homes[a.host]
		if h == nil {
			h = new(home)
			homes[a.host] = h
		}
		if a.addr.Addr().Is4() {
			h.families[1] = true
		} else {
			h.families[0] = true
		}
	}
	for i, m := range members {
		h := homes[found[i].host]
		if h.families != [2]bool{true, true} {
			m.home.Store(nil)
			m.standby = false
			continue
		}
		m.home.Store(h)
		if m.standby = m.addr.Addr().Is4() != preferred[found[i].host]; !m.standby {
			h.preferred = append(h.preferred, m)
		}
	}
}

// rivals says whether both are addresses of the same server.
func (m *member) rivals(o *member) bool {
	h := m.home.Load()
	return h != nil && h == o.home.Load()
}

// spare says whether m stands by for one that can be used. u.mu is held.
func (u *upstream) spare(m *member, key pickKey) bool {
	return m.standby && slices.ContainsFunc(m.home.Load().preferred, func(o *member) bool { return o.usable() && u.serves(o, key) })
}

// withRivals puts behind each of the picked members one that stands by for it, as long
// as there are any: the families take turns. u.mu is held.
func (u *upstream) withRivals(picked []*member, key pickKey) []*member {
	if !slices.ContainsFunc(picked, func(m *member) bool { return m.home.Load() != nil && !m.standby }) {
		return picked
	}
	all := make([]*member, 0, 2*len(picked))
	for _, m := range picked {
		if slices.Contains(all, m) {
			continue
		}
		all = append(all, m)
		if m.home.Load() == nil || m.standby {
			continue
		}
		for _, o := range u.members {
			if o.standby && o.rivals(m) && o.usable() && !o.full() && u.serves(o, key) && !slices.Contains(all, o) {
				all = append(all, o)
				break
			}
		}
	}
	return all
}

// race dials members that are the same server for c: the next one when one has failed,
// or has not answered within [splice.RaceDelay], or half of the timeout. It returns the first connection and
// the number of its member, and why others have failed, or lost.
func (s *Server) race(ctx context.Context, c *conn, members []*member, timeout time.Duration) (server net.Conn, won int, errs []error) {
	if len(members) == 1 {
		server, err := s.connectTo(ctx, c, members[0])
		return server, 0, []error{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		n    int
		conn net.Conn
		err  error
	}
	errs = make([]error, len(members))
	answers := make(chan outcome, len(members))
	begun, open := 0, 0
	begin := func() {
		n := begun
		begun++
		open++
		go func() {
			conn, err := s.connectTo(ctx, c, members[n])
			answers <- outcome{n, conn, err}
		}()
	}
	begin()
	delay := min(splice.RaceDelay, timeout/2)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for open > 0 {
		var next bool
		select {
		case <-timer.C:
			next = true
		case a := <-answers:
			open--
			switch {
			case server != nil: // it has lost
				if a.conn != nil {
					reset(a.conn)
				}
				errs[a.n] = fmt.Errorf("connect to %s: %w", c.nameOf(members[a.n]), splice.ErrRaced)
			case a.err == nil:
				server, won = a.conn, a.n
				cancel()
			default:
				errs[a.n], next = a.err, true
			}
		}
		if next && server == nil && begun < len(members) && ctx.Err() == nil {
			begin()
			timer.Reset(delay)
		}
	}
	return server, won, errs
}

// connectTo makes a connection to a member for c.
func (s *Server) connectTo(ctx context.Context, c *conn, m *member) (net.Conn, error) {
	source, _ := m.upstream.manner()
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: splice.DialControl}
	to := c.dialAddr(m)
	if ap, err := netip.ParseAddrPort(to.Address); err == nil {
		from, err := source.from(c.client.Addr(), ap.Addr().Unmap())
		if err != nil {
			return nil, err
		}
		if from.IsValid() {
			bindLate(&d, from, source.Client)
		}
	}
	server, err := dialClear(ctx, &d, to)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.nameOf(m), cause(err))
	}
	return server, nil
}

// portAttempts is how often local ports are chosen that turn out to be taken. No packet is sent
// for these.
const portAttempts = 16

// dialClear dials with splice.DialControl, which bounds the local port to a few by chance: sockets
// may have all of these.
func dialClear(ctx context.Context, d *net.Dialer, to Addr) (conn net.Conn, err error) {
	for range portAttempts {
		if conn, err = d.DialContext(ctx, to.Network, to.Address); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			break
		}
	}
	return conn, err
}
