package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/spliced-io/spliced/internal/sockmaps"
)

// membershipView is what probe --pid and --conn print as JSON. See
// docs/relay.md.
type membershipView struct {
	PID     int          `json:"pid,omitempty"`
	Conn    string       `json:"conn,omitempty"`
	Maps    int          `json:"maps"`            // looked into
	Total   int          `json:"total,omitempty"` // of the process, in a map or not
	Sockets []memberView `json:"sockets"`         // in a map
}

type memberView struct {
	FD       *int           `json:"fd,omitempty"` // of the process
	Inode    uint64         `json:"inode"`
	Netns    uint32         `json:"netns"`
	Protocol string         `json:"protocol"`
	Local    netip.AddrPort `json:"local,omitzero"`
	Remote   netip.AddrPort `json:"remote,omitzero"`
	In       []sockmaps.Map `json:"in"`
}

func (c *probeCmd) membership(std streams) error {
	view := membershipView{Conn: c.Conn, Sockets: []memberView{}}
	var conn sockmaps.Conn
	var sockets []sockmaps.Socket
	var err error
	if c.PID == nil {
		if conn, err = sockmaps.ParseConn(c.Conn); err != nil {
			return usageError{err}
		}
	} else {
		if view.PID = *c.PID; view.PID < 1 {
			return usageError{fmt.Errorf("--pid %d: want the number of a process", view.PID)}
		}
		if sockets, err = sockmaps.SocketsOf(view.PID); err != nil {
			return err
		}
		view.Total = len(sockets)
	}
	list, err := sockmaps.List()
	if err != nil {
		return fmt.Errorf("look into sockmaps: %w", err)
	}
	view.Maps = len(list.Maps)
	if c.PID == nil {
		view.addConn(&list, conn)
	} else {
		view.addSockets(&list, sockets)
	}
	if c.JSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(view)
	}
	return view.write(std)
}

// addConn adds the ends of a connection that are in a map.
func (v *membershipView) addConn(list *sockmaps.Listing, conn sockmaps.Conn) {
	places := map[[2]uint64]int{} // of a socket, in v.Sockets
	for i := range list.Members {
		m := &list.Members[i]
		if !conn.Has(m) {
			continue
		}
		// Without an inode the ends of one connection are told apart by the port.
		key := [2]uint64{m.Inode, uint64(m.Local.Port())<<32 | uint64(m.Netns)}
		at, ok := places[key]
		if !ok {
			at = len(v.Sockets)
			places[key] = at
			v.Sockets = append(v.Sockets, viewOf(m))
		}
		v.Sockets[at].in(list, m)
	}
}

// addSockets adds those of a process that are in a map.
func (v *membershipView) addSockets(list *sockmaps.Listing, sockets []sockmaps.Socket) {
	for _, s := range sockets {
		at := -1
		for i := range list.Members {
			m := &list.Members[i]
			if m.Inode != s.Inode {
				continue
			}
			if at < 0 {
				at = len(v.Sockets)
				v.Sockets = append(v.Sockets, viewOf(m))
				v.Sockets[at].FD = &s.FD
			}
			v.Sockets[at].in(list, m)
		}
	}
}

func viewOf(m *sockmaps.Member) memberView {
	return memberView{Inode: m.Inode, Netns: m.Netns, Protocol: m.Protocol, Local: m.Local, Remote: m.Remote}
}

func (v *memberView) in(list *sockmaps.Listing, member *sockmaps.Member) {
	for _, m := range list.Maps {
		if m.ID == member.MapID {
			v.In = append(v.In, m)
		}
	}
}

func (v *membershipView) write(std streams) error {
	for _, s := range v.Sockets {
		who := "socket"
		if s.FD != nil {
			who = fmt.Sprintf("descriptor %d", *s.FD)
		}
		what := s.Protocol
		if s.Local.IsValid() {
			what += fmt.Sprintf(" %v to %v", s.Local, s.Remote)
		}
		fmt.Fprintf(std.out, "%s: %s\n", who, what)
		for _, m := range s.In {
			fmt.Fprintf(std.out, "  in %v\n", &m)
		}
	}
	looked := fmt.Sprintf("%d sockmaps and sockhashes of this machine were looked into", v.Maps)
	var err error
	if v.PID != 0 {
		_, err = fmt.Fprintf(std.out, "%d of the %d sockets of process %d are in one; %s\n", len(v.Sockets), v.Total, v.PID, looked)
	} else {
		ends := "ends of %s are"
		if len(v.Sockets) == 1 {
			ends = "end of %s is"
		}
		_, err = fmt.Fprintf(std.out, "%d "+ends+" in one; %s\n", len(v.Sockets), v.Conn, looked)
	}
	return err
}
