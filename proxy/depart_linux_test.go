package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/testnet"
	"github.com/spliced-io/spliced/splice"
)

// What becomes of the flows of an instance if the process that is to adopt them does not, or dies:
// they are this one's again, as they were. They are the kernel's alone in between, so that none of
// it disturbs them.
func TestDeparture(t *testing.T) {
	const patience = 30 * time.Second
	testnet.Need(t, "root", "bpf")
	for _, test := range []struct {
		name  string
		other bool // it has another table
		// What the new process does with a message, once it accepts; false: it is gone.
		answer func(p *peer, m *message) bool
		wantN  int    // handed over
		want   string // the error
		flows  bool   // they stay spliced; else they got sockets, and went away with them
	}{
		{"dies before it is told of them", false, func(*peer, *message) bool { return false }, 0, "ended before it was taking connections over", true},
		{"dies when it may adopt them", false, func(p *peer, m *message) bool { return m.Free == nil && p.got() }, 0, "not adopted", true},
		{"dies when it has adopted them", false, func(p *peer, m *message) bool {
			if m.Free != nil {
				p.got()
				return false
			}
			return p.got()
		}, 2, "", false},
		{"answers nonsense", false, func(p *peer, m *message) bool {
			if m.Free != nil {
				return say(p.conn, message{Ready: true}, nil) == nil
			}
			return p.got()
		}, 0, "something else", true},
		{"can't adopt them", false, func(p *peer, m *message) bool {
			if m.Free != nil {
				return say(p.conn, message{Refused: "no privilege"}, nil) == nil
			}
			return p.got()
		}, 2, "not adopted the flows: no privilege", false},
		{"has another table", true, func(p *peer, m *message) bool {
			if m.Flows != nil || m.Free != nil {
				t.Errorf("it is told %+v", m)
			}
			return p.got()
		}, 2, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			testnet.Leaks(t)
			policy := splice.WirePolicy{Upgrade: true, Instance: "test", Root: testnet.BPFFS(t)}
			c := Config{
				Listeners: map[string]Listener{"l": {Address: []string{"127.0.0.1:0"}, Upstream: "u", Engine: splice.EngineWire}},
				Upstreams: map[string]Upstream{"u": {Servers: Targets(testnet.Echo(t, "tcp", "127.0.0.1:0"))}},
			}
			ended := make(chan Ended, 10)
			s := &Server{Config: c, Wire: policy, Hooks: Hooks{Ended: func(e Ended) { ended <- e }}}
			t.Cleanup(func() { // before the file system goes
				_ = s.Close()
				withoutInstance(t, policy)
			})
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			var clients []net.Conn
			sent := 0
			exchange := func() {
				t.Helper()
				for _, client := range clients {
					b := make([]byte, 4)
					_, err := io.WriteString(client, "ping")
					if err == nil {
						_, err = io.ReadFull(client, b)
					}
					if err != nil || string(b) != "ping" {
						t.Fatalf("%q, %v", b, err)
					}
				}
				sent += 4
			}
			for range 2 {
				client, err := net.DialTimeout("tcp", s.Addrs("l")[0].String(), patience)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = client.Close() })
				_ = client.SetDeadline(time.Now().Add(2 * patience))
				clients = append(clients, client)
			}
			spliced := func() (n int) {
				for _, c := range s.joinedConns(func(*conn) bool { return true }) {
					if _, _, ok := c.session.Flow(); ok {
						n++
					}
				}
				return n
			}
			for end := time.Now().Add(patience); spliced() < 2; exchange() {
				if time.Now().After(end) {
					t.Fatal("not spliced")
				}
			}
			before := s.Connections()

			near, far := testnet.UnixPair(t)
			table, err := splice.WireTableOf(policy)
			if err != nil {
				t.Fatal(err)
			}
			if test.other {
				table[0]++
			}
			p := &peer{conn: far, table: table, answer: test.answer, done: make(chan error, 1)}
			go p.run()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			m, err := s.HandOver(ctx, near, Baggage{}, "test")
			if err != nil {
				t.Fatal(err)
			}
			moved, err := m.Move(ctx)
			if err := <-p.done; err != nil {
				t.Error(err)
			}
			if moved != test.wantN || test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%d were handed over, %v; want %d, %q", moved, err, test.wantN, test.want)
			}
			if !test.flows {
				return
			}
			exchange()
			after := s.Connections()
			if len(after) != 2 || s.Stats().Open != 2 || spliced() != 2 {
				t.Fatalf("%d connections, %d spliced, %+v", len(after), spliced(), s.Stats())
			}
			for _, a := range after {
				b := before[0]
				if b.ID != a.ID {
					b = before[1]
				}
				if a.ID != b.ID || a.Client != b.Client || a.Listener != "l" || a.Server != b.Server || a.Local != b.Local || a.Started.Sub(b.Started).Abs() > time.Millisecond ||
					a.Stats.AToB.Bytes != int64(sent) || a.Stats.AToB.Engine != splice.EngineWire {
					t.Errorf("before %+v\nafter  %+v", b, a)
				}
			}
			if active := s.Upstreams()[0].Servers[0].Active; active != 2 {
				t.Errorf("the server has %d connections", active)
			}
			for _, client := range clients {
				if err := client.(*net.TCPConn).CloseWrite(); err != nil {
					t.Error(err)
				}
				if _, err := io.ReadAll(client); err != nil {
					t.Error(err)
				}
				if e := <-ended; e.Result.AToB.Bytes != int64(sent) || e.Result.BToA.Bytes != int64(sent) || e.Result.AToB.Reason != splice.EOF || e.Listener != "l" {
					t.Errorf("%+v", e)
				}
			}
			_ = s.Close()
			if len(ended) > 0 {
				t.Errorf("and once more: %+v", <-ended)
			}
		})
	}
}

// withoutInstance waits until this process has let go of an instance.
func withoutInstance(t *testing.T, policy splice.WirePolicy) {
	t.Helper()
	const patience = 30 * time.Second
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if table, err := splice.WireTableOf(policy); err != nil || table == (splice.WireTable{}) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the server has its instance yet")
		}
	}
}

// A peer is a new process that says it is ready, accepts, and does with the rest what it likes.
type peer struct {
	conn   *net.UnixConn
	table  splice.WireTable
	answer func(*peer, *message) bool
	done   chan error
}

func (p *peer) run() { p.done <- p.talk() }

func (p *peer) got() bool { return say(p.conn, message{Got: true}, nil) == nil }

func (p *peer) talk() error {
	defer p.conn.Close()
	for {
		m, parcel, err := hear(p.conn)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		parcel.Close() // with the sockets of a connection, if it is one
		switch {
		case m.Rest != nil:
			if got := m.Rest.Server.Instance; got.Name != "test" {
				return fmt.Errorf("the instance is %+v", got)
			}
			err = say(p.conn, message{Ready: true, Table: p.table}, nil)
		case m.Go != 0:
			err = say(p.conn, message{Going: true}, nil)
		case m.Hello != nil, m.Sockets != nil:
		case !p.answer(p, m):
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Where neither process has an instance, they have none in common.
func TestNoInstance(t *testing.T) {
	for _, test := range []struct {
		theirs instanceRecord
		mine   splice.WirePolicy
		want   bool
	}{
		{instanceRecord{}, splice.WirePolicy{}, false},
		{instanceRecord{Name: "a"}, splice.WirePolicy{}, false},
		{instanceRecord{}, splice.WirePolicy{Instance: "a"}, false},
		{instanceRecord{Name: "a"}, splice.WirePolicy{Instance: "b"}, false},
		{instanceRecord{Name: "a", Root: "/x"}, splice.WirePolicy{Instance: "a"}, false},
		{instanceRecord{Name: "a", Root: "/x"}, splice.WirePolicy{Instance: "a", Root: "/x"}, true},
	} {
		i := &Inheritance{state: serverState{Instance: test.theirs}}
		if got := i.hasInstance(&test.mine); got != test.want {
			t.Errorf("theirs %+v, mine %+v: %v", test.theirs, test.mine, got)
		}
	}
	if (*Inheritance)(nil).hasInstance(&splice.WirePolicy{Instance: "a"}) {
		t.Error("nobody has an instance")
	}
}
