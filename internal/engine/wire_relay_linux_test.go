package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/internal/engine"
	"github.com/spliced-io/spliced/internal/sys"
	"github.com/spliced-io/spliced/internal/testnet"
)

// wirePatience is how long anything may take that should happen at once.
const wirePatience = 20 * time.Second

// A relaySpec is what the relay process is told by its environment.
type relaySpec struct {
	Listen, Target string
	Kind           uint8 // engine.Kind, which has an encoder and no decoder
	Turn           int   // if it is not 0, that of the session that OtherKind begins with: each second has it then
	OtherKind      uint8
	Limits         engine.Limits
	Policy         engine.WirePolicy
	Settle         time.Duration // see SetSettle
	Forbid         string        // of bpf(2): see Forbid
	SignedBy       string        // the address of the client whose segments are to be signed
	MPTCP          bool          // with clients that ask for it
}

// wireNumbers are the fields of engine.WireStats that have a decoder.
type wireNumbers struct {
	Switched, Returned           bool
	Attempts, Late               int
	Delivered                    [2]int64
	Closed                       time.Duration
	Packets, Retransmits, Errors [2]uint64
}

const relayEnv = "SPLICED_WIRE_RELAY"

// A relay is a relay process in a namespace.
type relay struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	addr    string
	results chan relayResult
	early   []relayResult // ended before it was said how many were adopted
	gone    chan error
}

// A relayResult is what is left of a session; Live if it has not ended.
type relayResult struct {
	Live           bool
	Adopted        bool // the line that an instance begins with
	Flows          int  // given back by a stop; adopted, on the first line of an instance; or spliced, when asked
	Client         string
	AToB, BToA     int64
	ReasonA        string
	ReasonB        string
	Engine, Why    string
	Err            string
	Refused        string // why there was no hand-over
	Failed         string // why there was no session
	Wire           wireNumbers
	SinceLastMoved time.Duration
}

// TestHelperWireRelay is no test of its own: it is the relay process of the
// others.
func TestHelperWireRelay(t *testing.T) {
	env := os.Getenv(relayEnv)
	if env == "" {
		return
	}
	var spec relaySpec
	if err := json.Unmarshal([]byte(env), &spec); err != nil {
		t.Fatal(err)
	}
	if err := runRelay(spec, func() { engine.Forbid(t, spec.Forbid) }); err != nil {
		t.Fatal(err)
	}
}

type relayHandler struct {
	client  string
	session *engine.Session
	out     *relayOut
}

type relayOut struct {
	mu   sync.Mutex
	enc  *json.Encoder
	live map[*relayHandler]struct{}
}

func (h *relayHandler) Connected(int, netip.AddrPort, []error) {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.live[h] = struct{}{}
}

func (h *relayHandler) Note(engine.Flow) string { return "" }
func (h *relayHandler) Sockets(bool)            {}

func (h *relayHandler) Failed(err error, _ []error) {
	h.out.say(relayResult{Client: h.client, Failed: err.Error()})
}

func (h *relayHandler) Ended(r engine.Result) {
	h.out.mu.Lock()
	delete(h.out.live, h)
	h.out.mu.Unlock()
	res := summary(h.client, r.Stats)
	res.AToB, res.BToA = r.AToB.Bytes, r.BToA.Bytes
	if err := r.Err(); err != nil {
		res.Err = err.Error()
	}
	h.out.say(res)
}

func summary(client string, st engine.Stats) relayResult {
	res := relayResult{
		Client: client, AToB: st.AToB.Bytes, BToA: st.BToA.Bytes,
		ReasonA: st.AToB.Reason.String(), ReasonB: st.BToA.Reason.String(),
		Engine: st.AToB.Engine.String(), Why: st.AToB.Why.String(),
		SinceLastMoved: time.Since(st.LastProgress),
	}
	if w := st.Wire; w != nil {
		res.Refused = w.Refused.String()
		res.Wire = wireNumbers{w.Switched, w.Returned, w.Attempts, w.Late, w.Delivered, w.Closed, w.Packets, w.Retransmits, w.Errors}
	}
	return res
}

func (o *relayOut) say(r relayResult) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.enc.Encode(r)
}

// runRelay is that process. planned is called when its plan is made.
func runRelay(spec relaySpec, planned func()) error {
	spec.Policy.SetSettle(spec.Settle)
	ln, err := spec.listen()
	if err != nil {
		return err
	}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	fd := -1
	if cerr := raw.Control(func(n uintptr) { fd, err = sys.Dup(int(n)) }); cerr != nil || err != nil {
		return fmt.Errorf("%v, %v", cerr, err)
	}
	addr := ln.Addr()
	ln.Close()
	to, err := sys.TCPAddress(netip.MustParseAddrPort(spec.Target))
	if err != nil {
		return err
	}
	out := &relayOut{enc: json.NewEncoder(os.Stdout), live: make(map[*relayHandler]struct{})}
	reactor := new(engine.Reactor)
	if spec.Policy.Instance != "" {
		n, err := reactor.AdoptWire(spec.Policy, engine.Adoption{Accepted: func(s *engine.Session, f engine.Flow) (engine.Handler, *engine.Past) {
			if w := s.Stats().Wire; w == nil || !w.Switched {
				panic(fmt.Sprintf("an adopted flow does not say that it is spliced: %+v", w))
			}
			h := &relayHandler{f.A.String(), s, out}
			h.Connected(0, netip.AddrPort{}, nil)
			return h, nil
		}})
		if err != nil {
			return err
		}
		out.say(relayResult{Adopted: true, Flows: n})
	}
	var plans [2]*engine.Plan
	for i, kind := range []uint8{spec.Kind, spec.OtherKind} {
		plans[i], err = reactor.Plan(engine.Plan{Kind: engine.Kind(kind), Limits: spec.Limits, Timeout: 5 * time.Second, Wire: spec.Policy})
		if err != nil {
			return err
		}
	}
	var accepted atomic.Int32
	planned()
	a, err := reactor.Listen(engine.AcceptSpec{
		FD: fd, Admit: func() bool { return true },
		Held: func(err error) { out.say(relayResult{Failed: err.Error()}) },
		Accepted: func(s *engine.Session, client netip.AddrPort) engine.Way {
			plan := plans[0]
			if n := int(accepted.Add(1)) - spec.Turn; spec.Turn > 0 && n >= 0 && n%2 == 0 {
				plan = plans[1]
			}
			return engine.Way{Plan: plan, Targets: []engine.Target{{Name: spec.Target, Address: to}}, Handler: &relayHandler{client.String(), s, out}}
		},
	})
	if err != nil {
		return err
	}
	fmt.Printf("listening %s\n", addr)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		out.mu.Lock()
		var live []*relayHandler
		for h := range out.live {
			live = append(live, h)
		}
		out.mu.Unlock()
		switch in.Text() {
		case "stats":
			for _, h := range live {
				r := summary(h.client, h.session.Stats())
				r.Live = true
				out.say(r)
			}
		case "spliced":
			n := 0
			for _, h := range live {
				if h.session.Stats().AToB.Engine == engine.Wire {
					n++
				}
			}
			out.say(relayResult{Flows: n})
		case "dial":
			r := relayResult{Flows: 1}
			if err := dialBeside(reactor, spec.Target); err != nil {
				r = relayResult{Failed: err.Error()}
			}
			out.say(r)
		case "stop":
			for _, h := range live {
				h.session.Stop(context.Background())
				goOn(h)
			}
		case "abort":
			for _, h := range live {
				h.session.Abort()
				<-h.session.Done()
				goOn(h)
			}
		}
	}
	a.Close()
	return nil
}

// dialBeside exchanges one message with the target, over a connection that the relay's process
// makes otherwise.
func dialBeside(reactor *engine.Reactor, target string) error {
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = reactor.KeepOff(int(fd), netip.MustParseAddrPort(address)) })
		return errors.Join(err, cerr)
	}}
	conn, err := d.Dial("tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(wirePatience))
	if _, err := conn.Write(brief()); err != nil {
		return err
	}
	// To the end: who closes first keeps the port for a minute.
	if got, err := io.ReadAll(conn); err != nil || len(got) != 64 {
		return fmt.Errorf("%d bytes came back, want 64: %w", len(got), err)
	}
	return nil
}

// nothingBack is what has Failed when a session has no sockets to give back.
const nothingBack = "nothing was given back"

// goOn carries what a stopped session has given back, by plain reading and
// writing, and says whether there was anything to carry.
func goOn(h *relayHandler) {
	a, b, ok := h.session.Take()
	if !ok {
		h.out.say(relayResult{Failed: nothingBack})
		return
	}
	var conns [2]*net.TCPConn
	for i, fd := range []int{a, b} {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			h.out.say(relayResult{Failed: err.Error()})
			return
		}
		conns[i] = c.(*net.TCPConn)
	}
	h.out.say(relayResult{Flows: 1})
	go func() { // until the process ends
		var n [2]int64
		var wg sync.WaitGroup
		for i := range conns {
			wg.Go(func() {
				n[i], _ = io.Copy(conns[1-i], conns[i])
				_ = conns[1-i].CloseWrite()
			})
		}
		wg.Wait()
		h.out.say(relayResult{Client: h.client, AToB: n[0], BToA: n[1], ReasonA: "by hand"})
		conns[0].Close()
		conns[1].Close()
	}()
}

// startRelay runs a relay inside a namespace until the test ends.
func startRelay(t *testing.T, ns *testnet.Namespace, spec relaySpec) *relay {
	t.Helper()
	env, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{results: make(chan relayResult, 10000), gone: make(chan error, 1)}
	r.cmd = exec.Command(os.Args[0], "-test.run=^TestHelperWireRelay$", "-test.timeout=10m")
	r.cmd.Env = append(os.Environ(), relayEnv+"="+string(env))
	r.cmd.Stderr = os.Stderr
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(r.cmd); err != nil {
		t.Fatal(err)
	}
	addr := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var res relayResult
			if _, err := fmt.Sscanf(lines.Text(), "listening %s", &r.addr); err == nil {
				addr <- r.addr
			} else if json.Unmarshal(lines.Bytes(), &res) == nil {
				r.results <- res
			} else if s := lines.Text(); s != "PASS" && s != "" {
				fmt.Fprintln(os.Stderr, "relay:", s)
			}
		}
		r.gone <- r.cmd.Wait()
	}()
	t.Cleanup(r.end)
	select {
	case r.addr = <-addr:
	case err := <-r.gone:
		r.gone <- err
		t.Fatal("the relay did not start:", err)
	case <-time.After(wirePatience):
		t.Fatal("the relay does not listen")
	}
	return r
}

// end ends the process, if it is there.
func (r *relay) end() {
	r.stdin.Close()
	select {
	case err := <-r.gone:
		r.gone <- err
	case <-time.After(wirePatience):
		_ = r.cmd.Process.Kill()
		r.gone <- <-r.gone
	}
}

// kill ends the process with SIGKILL.
func (r *relay) kill(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.gone <- <-r.gone
}

// result is the next one that is over.
func (r *relay) result(t *testing.T) relayResult {
	t.Helper()
	if len(r.early) > 0 {
		res := r.early[0]
		r.early = r.early[1:]
		return res
	}
	return r.next(t)
}

// adopted is how many flows the relay has found.
func (r *relay) adopted(t *testing.T) int {
	t.Helper()
	for {
		res := r.next(t)
		if res.Adopted {
			return res.Flows
		}
		r.early = append(r.early, res)
	}
}

func (r *relay) next(t *testing.T) relayResult {
	t.Helper()
	select {
	case res := <-r.results:
		return res
	case <-time.After(wirePatience):
		t.Fatal("no session has ended")
	}
	return relayResult{}
}

// stats asks for the live sessions' and returns the first.
func (r *relay) stats(t *testing.T) relayResult {
	t.Helper()
	if _, err := io.WriteString(r.stdin, "stats\n"); err != nil {
		t.Fatal(err)
	}
	return r.result(t)
}

// spliced asks how many live sessions are.
func (r *relay) spliced(t *testing.T) int {
	t.Helper()
	if _, err := io.WriteString(r.stdin, "spliced\n"); err != nil {
		t.Fatal(err)
	}
	return r.result(t).Flows
}
