package netbench

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestRetransmitsAreFound(t *testing.T) {
	const snmp = `Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin ActiveOpens RetransSegs InErrs
Tcp: 1 200 7 42 0
Udp: InDatagrams RetransSegs
Udp: 1 99
`
	if got := parseRetransmits([]byte(snmp)); got != 42 {
		t.Errorf("got %d, want 42", got)
	}
	if got := parseRetransmits([]byte("Tcp: RetransSegs\n")); got != 0 {
		t.Errorf("without values: %d", got)
	}
}

func TestListenersAreSeen(t *testing.T) {
	for _, address := range []string{"127.83.9.9:0", "0.0.0.0:0", "[::]:0", "[::ffff:127.83.9.9]:0"} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		at := net.JoinHostPort("127.83.9.9", port)
		if !isListening(os.Getpid(), at) {
			t.Errorf("%s: nobody seen at %s", address, at)
		}
		ln.Close()
		if isListening(os.Getpid(), at) {
			t.Errorf("%s: still seen at %s", address, at)
		}
	}
}

// A process group's processor time includes children that it has waited for.
func TestGroupUsageIncludesChildren(t *testing.T) {
	// The child is busy, the parent waits for it and then for its input's end.
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; echo done; read x`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait() // read fails at the end of the input
	}()
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	u, err := takeUsage(&topology{name: TopologyLoopback}, cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if u.proxy.cpu < 3*tick.Seconds() {
		t.Errorf("the group has used %v s", u.proxy.cpu)
	}
	if u.machine.busy <= 0 || u.machine.total() <= u.machine.busy {
		t.Errorf("the machine has used %+v", u.machine)
	}
}

func TestHoldingsAreCounted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	without, with := holdingsOfCat(t), holdingsOfCat(t, r, w)
	if with.pipes-without.pipes != 1 || with.descriptors-without.descriptors != 2 {
		t.Errorf("one pipe more: %+v, then %+v", without, with)
	}
	if with.memory <= 0 || with.kernel <= 0 || with.processes != 1 || with.largestPipe < 4096 {
		t.Errorf("implausible: %+v", with)
	}
}

// holdingsOfCat looks at a process in a group of its own that has these files
// too.
func holdingsOfCat(t *testing.T, files ...*os.File) holdings {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Wait()
	}()
	// When it answers it is what it will be.
	if _, err := in.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	h, err := takeHoldings(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestSleepUntilIsNotEarly(t *testing.T) {
	for range 20 {
		due := time.Now().Add(300 * time.Microsecond)
		sleepUntil(due)
		if now := time.Now(); now.Before(due) {
			t.Errorf("%v early", due.Sub(now))
		}
	}
}
