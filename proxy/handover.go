package proxy

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/spliced-io/spliced/splice"
)

// The versions of the messages by which one process hands over to the next: a
// process offers its own, and takes any from the oldest on.
const (
	HandOverVersion = 1
	oldestHandOver  = 1
)

// Baggage is what the program around a server hands over beside it.
type Baggage struct {
	Files map[string]*os.File // by names that both sides know; they stay the giver's too
	State json.RawMessage     // JSON
	// Last, if it is not nil, is asked for more of that when the other process begins to accept: see
	// [Server.Steer] and [Inheritance.Latest].
	Last func() json.RawMessage
}

// An Inheritance is what a server takes over from that of another process: see
// [Inherit] and [Server.Inheritance].
type Inheritance struct {
	Baggage
	// Predecessor is the version of the program that hands over, and PID its
	// process.
	Predecessor string
	PID         int
	// Latest is what the [Baggage.Last] of the predecessor has said, once Start has returned.
	Latest json.RawMessage

	conn    *net.UnixConn
	sockets []*heirloom
	state   serverState
	table   splice.WireTable // of the instance that both have
}

// hasInstance says whether the process that hands over has the instance of w.
func (i *Inheritance) hasInstance(w *splice.WirePolicy) bool {
	return i != nil && w.Instance != "" && i.state.Instance == instanceRecord{Name: w.Instance, Root: w.Root}
}

// An heirloom is a listening socket that nobody has claimed yet.
type heirloom struct {
	socketRecord
	ln   net.Listener
	file *socketFile // of a unix socket; nil: none that is to be removed
}

// Inherited is how the taking over of connections has gone.
type Inherited struct {
	Connections int   // that go on here
	Flows       int   // of these, adopted from under the name of the instance, without a pause
	Lost        int   // that could not: both peers were sent a RST
	Err         error // why the predecessor was not heard to the end
	// Instance is why the instance could not be taken, though it should have been. Flows that
	// the predecessor has left go on by themselves.
	Instance error
}

// A message is what processes say to each other. One of its fields is set.
type message struct {
	Hello   *hello          `json:"hello,omitempty"`   // the first
	Sockets []socketRecord  `json:"sockets,omitempty"` // one file each
	Rest    *rest           `json:"rest,omitempty"`    // the last before the answer
	Ready   bool            `json:"ready,omitempty"`   // the answer: everything is there but the connections
	Refused string          `json:"refused,omitempty"` // or why not
	Go      uint64          `json:"go,omitempty"`      // accept from now on, and number connections from here
	Taken   []takenRecord   `json:"taken,omitempty"`   // with Go: what connections to servers must keep off
	Latest  *serverState    `json:"latest,omitempty"`  // with Go: what is known of servers now; the rates are those of before
	Last    json.RawMessage `json:"last,omitempty"`    // with Go: of the baggage
	Going   bool            `json:"going,omitempty"`   // it is done
	Conns   []connRecord    `json:"conns,omitempty"`   // two files each
	Got     bool            `json:"got,omitempty"`     // they have arrived

	// Of an instance.
	Table splice.WireTable `json:"table,omitzero"`  // with Ready: leave me what is in this one
	Flows []connRecord     `json:"flows,omitempty"` // that will be left
	Free  *free            `json:"free,omitempty"`  // they are: adopt them. The answer is Got, or Refused
}

// free says that the instance may be taken. As long as the process lives that has said so it has
// some flows of its own.
type free struct {
	Except []splice.Flow `json:"except,omitempty"`
}

type hello struct {
	Version int    `json:"version"`
	Oldest  int    `json:"oldest"` // that understands this
	Program string `json:"program"`
	PID     int    `json:"pid"`
}

// A socketRecord is a listening socket.
type socketRecord struct {
	Listener string        `json:"listener"`
	Address  string        `json:"address"` // as configured
	Options  SocketOptions `json:"options"`
	Path     string        `json:"path,omitempty"` // of the file that is to be removed with it
}

// A takenRecord has the local ports of joined connections to a server. Of those whose
// packets the engine wire carries the kernel does not know.
type takenRecord struct {
	Target netip.AddrPort `json:"target"`
	Ports  []uint16       `json:"ports"`
}

// rest is everything else.
type rest struct {
	Server serverState     `json:"server"`
	Files  []string        `json:"files,omitempty"` // names of the files that come along
	State  json.RawMessage `json:"state,omitempty"`
}

// serverState is what a server knows that no configuration says.
type serverState struct {
	Instance instanceRecord `json:"instance,omitzero"` // that the process has
	Members  []memberRecord `json:"members,omitempty"`
	Rates    []rateRecord   `json:"rates,omitempty"`
}

// An instanceRecord names an instance; the zero value is none.
type instanceRecord struct {
	Name string `json:"name"`
	Root string `json:"root,omitempty"`
}

// A rateRecord is who has come to a listener too often for the moment.
type rateRecord struct {
	Listener string `json:"listener"`
	Debts    []byte `json:"debts"`
}

// A memberRecord is what is known of a server of an upstream.
type memberRecord struct {
	Upstream string `json:"upstream"`
	Server   string `json:"server"`
	Draining bool   `json:"draining,omitempty"`
	Weight   int    `json:"weight,omitempty"` // that an operator has set
	Listed   int    `json:"listed,omitempty"` // weight in the configuration, by then
	Down     string `json:"down,omitempty"`   // what its check says
	Up       bool   `json:"up,omitempty"`     // so says its check
	Fails    int    `json:"fails,omitempty"`  // of checks in a row, though it is up

	Ejected    time.Duration `json:"ejected,omitempty"` // for how long it still is
	EjectedFor string        `json:"ejected_for,omitempty"`
	Ejections  int           `json:"ejections,omitempty"` // so far
	ConnFailed int           `json:"conn_failed,omitempty"`
	Resets     int           `json:"resets,omitempty"`
	UpFor      time.Duration `json:"up_for,omitempty"` // since it came up again; 0: it was never down
}

// A connRecord is a joined connection.
type connRecord struct {
	ID       uint64         `json:"id"`
	Listener string         `json:"listener"`
	Route    string         `json:"route"`
	Upstream string         `json:"upstream"`
	Server   string         `json:"server"`
	Dial     [2]string      `json:"dial"` // network and address of the server
	Client   netip.AddrPort `json:"client"`
	Target   netip.AddrPort `json:"target"`
	Local    netip.AddrPort `json:"local"`
	SNI      string         `json:"sni,omitempty"`
	Counted  bool           `json:"counted,omitempty"` // among the connections of its client
	Age      time.Duration  `json:"age"`               // since it was accepted
	Past     splice.Past    `json:"past"`
	First    [2]int         `json:"first"`         // bytes of the parcel that are on their way to the server, and to the client
	Flow     splice.Flow    `json:"flow,omitzero"` // under which it is spliced; else it comes with its sockets
}
