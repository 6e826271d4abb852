package proxy

import (
	"maps"
	"net"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// Stats counts what a [Server] did, or one of its listeners.
type Stats struct {
	Accepted uint64 // clients
	Failed   uint64 // of these, joined to no server
	Ended    uint64 // of these, joined and ended
	Open     int    // accepted and not yet ended
	Joined   int    // of these, joined
	MaxOpen  int    // how many may be open now; 0: no limit of its own

	BytesToTarget, BytesToClient     int64
	SplicedToTarget, SplicedToClient int64

	Adopted uint64 // connections that an earlier process has left
	Wire    WireStats
}

// WireStats counts the ways of connections to the engine wire.
type WireStats struct {
	Attempts    uint64           // hand-overs begun
	Failed      uint64           // of these, without success
	Unseen      uint64           // of these, since packets of both sides never came by; the others never had room enough
	HandedOver  uint64           // connections that the program has carried
	Lost        uint64           // of these, reset at once: their sides did not fit
	Late        uint64           // segments that reached a socket when the program had its connection already: the sockets delivered them
	Returned    uint64           // of these, taken back into sockets
	Left        uint64           // of these, left to a next process
	Flows       int              // of these, carried by it now
	Refused     [WhyCount]uint64 // connections that were not handed over, or not for good, by reason
	Closed      time.Duration    // for so long windows were closed to bring connections to rest
	Bytes       [2]int64         // carried by the program, to the target and to the client
	Packets     [2]uint64        // of the client and of the target
	Retransmits [2]uint64        // of these
	Errors      [2]uint64        // of these, could not be translated
	TooBig      [2]uint64        // packets that did not fit the interface that they were to leave by, dropped
}

// WhyCount is how many reasons for an engine there are.
const WhyCount = splice.WhyCount

func (t *WireStats) add(w *splice.WireStats) {
	if w == nil {
		return
	}
	t.Attempts += uint64(w.Attempts)
	t.Failed += uint64(w.Attempts)
	t.Unseen += uint64(w.Unseen)
	if w.Switched {
		t.HandedOver++
		if w.Attempts > 0 { // else it was adopted
			t.Failed--
		}
	}
	if w.Lost {
		t.Lost++
	}
	t.Late += uint64(w.Late)
	if w.Returned {
		t.Returned++
	}
	if w.Left {
		t.Left++
	}
	if w.Refused != 0 {
		t.Refused[w.Refused]++
	}
	t.Closed += w.Closed
	for i := range w.Packets {
		t.Bytes[i] += w.Delivered[i]
		t.Packets[i] += w.Packets[i]
		t.Retransmits[i] += w.Retransmits[i]
		t.Errors[i] += w.Errors[i]
		t.TooBig[i] += w.TooBig[i]
	}
}

type totals struct {
	conns                            uint64
	bytesToTarget, bytesToClient     int64
	splicedToTarget, splicedToClient int64
	wire                             WireStats
}

func (t *totals) add(s splice.Stats) {
	t.bytesToTarget += s.AToB.Bytes
	t.bytesToClient += s.BToA.Bytes
	t.splicedToTarget += s.AToB.Spliced
	t.splicedToClient += s.BToA.Spliced
	t.wire.add(s.Wire)
}

// less takes out what o has of what is added up by the byte, the packet and the moment.
func (t *totals) less(o *totals) {
	t.bytesToTarget -= o.bytesToTarget
	t.bytesToClient -= o.bytesToClient
	t.splicedToTarget -= o.splicedToTarget
	t.splicedToClient -= o.splicedToClient
	w, ow := &t.wire, &o.wire
	w.Late -= ow.Late
	w.Closed -= ow.Closed
	for i := range w.Packets {
		w.Bytes[i] -= ow.Bytes[i]
		w.Packets[i] -= ow.Packets[i]
		w.Retransmits[i] -= ow.Retransmits[i]
		w.Errors[i] -= ow.Errors[i]
		w.TooBig[i] -= ow.TooBig[i]
	}
}

// count adds what this process has seen a connection carry: st is all, and before what another
// one has seen, if not nil. That is in the other's counts.
func (t *totals) count(st splice.Stats, before *totals) {
	t.add(st)
	if before != nil {
		t.less(before)
	}
}

// counted are the bytes that count adds.
func counted(st splice.Stats, before *totals) Carried {
	var t totals
	t.count(st, before)
	return Carried{t.bytesToTarget, t.bytesToClient}
}

func (t *totals) into(st *Stats) {
	st.Ended = t.conns
	st.BytesToTarget, st.BytesToClient = t.bytesToTarget, t.bytesToClient
	st.SplicedToTarget, st.SplicedToClient = t.splicedToTarget, t.splicedToClient
	st.Wire = t.wire
}

// byEngine divides the bytes among those who delivered them.
func (t *totals) byEngine(m map[splice.Engine]Carried) {
	m[splice.EngineSplice] = Carried{t.splicedToTarget, t.splicedToClient}
	m[splice.EngineWire] = Carried{t.wire.Bytes[0], t.wire.Bytes[1]}
	m[splice.EngineCopy] = Carried{
		t.bytesToTarget - t.splicedToTarget - t.wire.Bytes[0],
		t.bytesToClient - t.splicedToClient - t.wire.Bytes[1],
	}
}

// A ListenerStatus is what a listener does.
type ListenerStatus struct {
	Name  string
	Addrs []net.Addr
	Stats
	Account
}

// An UpstreamStatus is what is known of an upstream.
type UpstreamStatus struct {
	Name     string
	Balance  Balance
	Queued   int // clients that wait for a server with room
	MaxQueue int // how many may
	Servers  []ServerStatus
	// Unresolved are the names that could not be resolved when they were asked for
	// last. What they stood for before stays in use.
	Unresolved []UnresolvedName
}

// An UnresolvedName is one, and why.
type UnresolvedName struct{ Name, Error string }

// A ServerStatus is what is known of a server.
type ServerStatus struct {
	Name       string // the address as configured; for that of a name: name=address
	Address    string
	State      ServerState
	Since      time.Time // of that state; zero: since the start
	Error      string    // of the last check that failed, or why it is ejected
	Weight     int
	Configured int  // weight, whatever an operator has said
	Steered    bool // an operator has set the weight
	Backup     bool
	Active     int // connections, those being made included
	MaxActive  int // 0: any number

	// What State has no room for: an operator may drain a server that is down.
	Draining, Down, Ejected bool
	EjectedUntil            time.Time // zero if it is not
	Ejections               int       // since it was last forgiven

	Connected, ConnectFailed, EarlyResets uint64
	Checks, ChecksFailed                  uint64
	ConnectFailures                       map[FailReason]uint64
	BytesToServer, BytesToClient          int64
}

// ServerState says whether a server is used.
type ServerState string

// The states of a server.
const (
	ServerUp        ServerState = "up"
	ServerUnchecked ServerState = "unchecked" // used, and not asked whether it works
	ServerDown      ServerState = "down"      // its checks fail
	ServerEjected   ServerState = "ejected"   // clients found it broken
	ServerDraining  ServerState = "draining"  // an operator wants no new connections
)

// hasCarried is what connections have that ended.
func (m *member) hasCarried() Carried {
	return Carried{m.counts.bytesToServer.Load(), m.counts.bytesToClient.Load()}
}

// status takes what members have carried from sums; those that are not in it
// have no live connections.
func (u *upstream) status(sums map[*member]*Carried) UpstreamStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	st := UpstreamStatus{Name: u.name, Balance: u.config.Balance, Queued: len(u.waiting), MaxQueue: u.config.Queue.Limit}
	for _, e := range u.entries {
		if e.resolver == nil {
			continue
		}
		if err := e.resolver.lastError(); err != nil {
			st.Unresolved = append(st.Unresolved, UnresolvedName{e.target.Address, err.Error()})
		}
	}
	for _, m := range u.members {
		carried := m.hasCarried()
		if live := sums[m]; live != nil {
			carried = *live
		}
		server := m.status()
		server.BytesToServer, server.BytesToClient = carried.ToServer, carried.ToClient
		st.Servers = append(st.Servers, server)
	}
	return st
}

func (m *member) status() ServerStatus {
	st := ServerStatus{
		Name: m.name, Address: m.dialled(), Weight: m.weight, Backup: m.backup, Active: int(m.active.Load()),
		Connected: m.counts.connected.Load(), ConnectFailed: m.counts.failed.Load(), EarlyResets: m.counts.resets.Load(),
		Checks: m.counts.checks.Load(), ChecksFailed: m.counts.checksFailed.Load(),
		Configured: m.configured, Steered: m.steered > 0, MaxActive: m.max, ConnectFailures: maps.Clone(m.failures),
		Draining: m.draining, Down: m.down, Ejected: m.ejected, Ejections: m.ejections,
	}
	if m.ejected {
		st.EjectedUntil = m.readmitAt
	}
	if m.lastError != nil {
		st.Error = m.lastError.Error()
	}
	switch {
	case m.draining:
		st.State = ServerDraining
	case m.down:
		st.State, st.Since = ServerDown, m.downSince
	case m.ejected:
		st.State, st.Error = ServerEjected, m.ejectedFor.Error()
	case m.checked:
		st.State, st.Since = ServerUp, m.upSince
	default:
		st.State, st.Since = ServerUnchecked, m.upSince
	}
	return st
}
