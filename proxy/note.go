package proxy

import (
	"encoding/json"
	"net/netip"
	"strings"
	"unicode"

	"github.com/spliced-io/spliced/splice"
)

// A Note is what a server leaves about a connection that the engine wire carries under the name of an
// instance, for the next one of that name: see [splice.Note].
type Note struct {
	Listener string `json:"l"`
	Route    string `json:"r,omitempty"`
	Upstream string `json:"u"`
	Server   string `json:"s,omitempty"`

	Client  netip.AddrPort `json:"c,omitzero"` // if it is not the flow's: a PROXY header has named it
	SNI     string         `json:"n,omitempty"`
	Counted bool           `json:"k,omitempty"` // among the connections of its client
	Dial    [2]string      `json:"d,omitzero"`  // of the server, if that is not the flow's address
}

// ReadNote reads the note of a flow. False: it is not one.
func ReadNote(text string, f splice.Flow) (n Note, ok bool) {
	if len(text) > splice.NoteSize || json.Unmarshal([]byte(text), &n) != nil || n.Listener == "" || n.Upstream == "" {
		return Note{}, false
	}
	for _, s := range []string{n.Listener, n.Route, n.Upstream, n.Server, n.SNI, n.Dial[0], n.Dial[1], n.Client.Addr().Zone()} {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
			return Note{}, false
		}
	}
	if n.Server == "" {
		n.Server = f.B.String()
	}
	if !n.Client.IsValid() {
		n.Client = f.A
	}
	if n.Dial == ([2]string{}) {
		n.Dial = [2]string{"tcp", f.B.String()}
	}
	return n, true
}

// text is the inverse of ReadNote; "" if it is too long.
func (n Note) text(f splice.Flow) string {
	if n.Server == f.B.String() {
		n.Server = ""
	}
	if n.Client == f.A {
		n.Client = netip.AddrPort{}
	}
	if n.Dial == [2]string{"tcp", f.B.String()} {
		n.Dial = [2]string{}
	}
	for range 2 {
		if b, err := json.Marshal(n); err == nil && len(b) <= splice.NoteSize {
			return string(b)
		}
		n.SNI = "" // the one thing that clients choose, and that can be done without
	}
	return ""
}

// Note is called when the session is handed over to wire, and is for who adopts it.
func (c *conn) Note(f splice.Flow) string {
	return Note{
		Listener: c.listener.name, Route: c.route.name, Upstream: c.upstreamName(), Server: c.member.name,
		Client: c.client, SNI: c.sni, Counted: c.counted, Dial: [2]string{c.member.dial.Network, c.member.dial.Address},
	}.text(f)
}

// record is what a process that hands the connection over would say of it.
func (n *Note) record(f splice.Flow) *connRecord {
	return &connRecord{
		Listener: n.Listener, Route: n.Route, Upstream: n.Upstream, Server: n.Server, Dial: n.Dial,
		Client: n.Client, Target: f.B, Local: f.BLocal, SNI: n.SNI, Counted: n.Counted,
	}
}
