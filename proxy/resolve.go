package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A resolvedAddr is what a name stands for.
type resolvedAddr struct {
	addr   netip.AddrPort
	weight int    // of an SRV record; 0: none
	backup bool   // of a lower priority
	host   string // that it is an address of, and the port
}

// A resolver asks for the addresses of an entry again and again. What it found
// last stays in force while nobody answers.
type resolver struct {
	upstream *upstream
	entry    *entry
	config   Resolve
	ctx      context.Context
	stop     context.CancelFunc
	answered chan struct{}  // closed after the first answer, an error too
	last     []resolvedAddr // run's: what was found

	mu  sync.Mutex
	err error // of the last question
}

func newResolver(u *upstream, e *entry) *resolver {
	r := &resolver{upstream: u, entry: e, config: u.config.Resolve, answered: make(chan struct{})}
	r.ctx, r.stop = context.WithCancel(u.ctx)
	return r
}

func (r *resolver) start() {
	if !r.upstream.server.start(func(context.Context) { r.run() }) {
		close(r.answered)
	}
}

func (r *resolver) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// The pauses after a question that was not answered double between these.
const (
	resolveAgain = 500 * time.Millisecond
	minTTL       = time.Second
)

func (r *resolver) run() {
	defer r.stop()
	var pause time.Duration
	interval := time.Duration(r.config.Interval)
	for first := true; ; first = false {
		found, ttl, err := r.ask()
		if r.ctx.Err() != nil {
			if first {
				close(r.answered)
			}
			return
		}
		r.mu.Lock()
		before := r.err
		r.err = err
		r.mu.Unlock()
		if err == nil {
			pause = max(minTTL, min(ttl, interval))
			if r.last == nil || !slices.Equal(found, r.last) {
				r.last = found
				r.upstream.resolved(r.entry, found)
				r.tell(Resolved, nil, joinAddrs(found))
			} else if before != nil {
				r.tell(Resolved, nil, "again")
			}
		} else {
			pause = min(max(2*pause, resolveAgain), interval)
			if before == nil || before.Error() != err.Error() {
				r.tell(Unresolved, err, "")
			}
		}
		if first {
			close(r.answered)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (r *resolver) tell(what ChangeKind, err error, detail string) {
	u := r.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tell(Change{Upstream: u.name, Server: r.entry.addr.String(), What: what, Err: err, Detail: detail})
}

func joinAddrs(found []resolvedAddr) string {
	words := make([]string, len(found))
	for i, a := range found {
		words[i] = a.addr.String()
	}
	return strings.Join(words, " ")
}

// ask asks once.
func (r *resolver) ask() ([]resolvedAddr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(r.ctx, time.Duration(r.config.Timeout))
	defer cancel()
	q := &question{watch: ttlWatch{servers: r.config.Servers}, last: r.last}
	q.watch.late, _ = ctx.Deadline()
	q.watch.late = q.watch.late.Add(-time.Duration(r.config.Timeout) / 4)
	q.dns = q.watch.resolver()
	var found []resolvedAddr
	var err error
	if r.entry.addr.Network == "srv" {
		found, err = q.askSRV(ctx, r.entry.addr.Address)
	} else {
		found, err = q.askHost(ctx, r.entry.addr.Address)
	}
	if err == nil && len(found) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("resolve %s: %w", r.entry.addr, dnsCause(err))
	}
	order(found)
	return found, q.watch.ttl(time.Duration(r.config.Interval)), nil
}

// order sorts what was found, since name servers turn their lists, which is no
// change: backups last, of each host the family that the system prefers (RFC 6724) first.
func order(found []resolvedAddr) {
	preferred := preferences(found)
	slices.SortFunc(found, func(a, b resolvedAddr) int {
		return cmp.Or(
			compareBools(a.backup, b.backup),
			compareBools(a.addr.Addr().Is4() != preferred[a.host], b.addr.Addr().Is4() != preferred[b.host]),
			a.addr.Compare(b.addr),
		)
	})
}

// preferences says of each host whether its first address is one of IPv4. The targets of
// SRV records come in any order: what one of them has says nothing about the others.
func preferences(found []resolvedAddr) map[string]bool {
	preferred := make(map[string]bool)
	for _, a := range found {
		if _, ok := preferred[a.host]; !ok {
			preferred[a.host] = a.addr.Addr().Is4()
		}
	}
	return preferred
}

// compareBools puts false first.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// A question is one for what a name stands for now.
type question struct {
	watch ttlWatch
	dns   *net.Resolver
	last  []resolvedAddr // what was found before
}

// had are the addresses of a host, of IPv4 or IPv6, that were found before.
func (q *question) had(host string, is4 bool) (had []resolvedAddr) {
	for _, a := range q.last {
		if a.host == host && a.addr.Addr().Is4() == is4 {
			had = append(had, resolvedAddr{addr: a.addr, host: host})
		}
	}
	return had
}

// ofServer says whether an address can be that of a server. Connected to, the unspecified one
// is this machine, where the proxy may find itself.
func ofServer(ip netip.Addr) bool {
	return !ip.IsUnspecified() && !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// askHost asks for the addresses of a host. Those of a family for which nobody has answered, while
// somebody has for the other, stay what they were.
func (q *question) askHost(ctx context.Context, address string) ([]resolvedAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	q.watch.begin()
	ips, err := q.dns.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var found []resolvedAddr
	for _, ip := range ips {
		if ip = ip.Unmap(); !ofServer(ip) {
			err = fmt.Errorf("%s is no address of a server", ip)
			continue
		}
		if a := (resolvedAddr{addr: netip.AddrPortFrom(ip, uint16(n)), host: address}); !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	for _, is4 := range []bool{false, true} {
		if !q.watch.unanswered(is4) {
			continue
		}
		if had := q.had(address, is4); preferences(q.last)[address] == is4 { // which is said by what comes first
			found = append(had, found...)
		} else {
			found = append(found, had...)
		}
	}
	if len(found) > 0 {
		err = nil
	}
	return found, err
}

func (q *question) askSRV(ctx context.Context, name string) ([]resolvedAddr, error) {
	_, records, err := q.dns.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, err
	}
	// Those of one priority come in another order each time.
	slices.SortStableFunc(records, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
	})
	var found []resolvedAddr
	var errs []error
	for _, record := range records {
		target := net.JoinHostPort(strings.TrimSuffix(record.Target, "."), strconv.Itoa(int(record.Port)))
		addrs, err := q.askHost(ctx, target)
		var de *net.DNSError
		if errors.As(err, &de) && !de.IsNotFound { // nobody has answered
			addrs = append(q.had(target, false), q.had(target, true)...)
		}
		if err != nil {
			errs = append(errs, err)
		}
		for _, a := range addrs {
			a.weight, a.backup = max(1, int(record.Weight)), record.Priority != records[0].Priority
			i := slices.IndexFunc(found, func(b resolvedAddr) bool { return b.addr == a.addr })
			switch {
			case i < 0:
				found = append(found, a)
			case found[i].backup == a.backup: // one server under two names has the share of both
				found[i].weight += a.weight
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(errs...)
	}
	return found, nil
}

// dnsCause drops the words around a DNS error that its wrapping says too.
func dnsCause(err error) error {
	var de *net.DNSError
	if errors.As(err, &de) && de.IsNotFound {
		return errors.New("no such name")
	}
	return err
}
