package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/internal/testnet"
)

// An upgrade of a daemon with an instance: what is spliced is adopted by the new process, and
// nothing of it is touched meanwhile.
//
//	TestUpgradeInstance         again and again, in mid transfer, beside clients that come and go
//	TestUpgradeInstanceAgain    while the process before the old one is not done yet
//	TestUpgradeInstanceRefused  by a program that is none: the old process keeps its instance
//	TestUpgradeInstanceKilled   one of the two is killed, early and late in the hand-over
//	TestUpgradeInstanceStopped  both are told to end, in the middle of it
//	TestUpgradeInstanceRenamed  the file names another instance by then, or none
//	TestUpgradeInstanceLimits   what is idle is not forgotten

// An instanceTest is a daemon with an instance, and clients whose packets are spliced.
type instanceTest struct {
	*daemonProcess
	root, text string
	idle       int // descriptors without a client
	steady     []*steady
	others     []*daemonProcess // started again
}

// log is what all of them have said.
func (i *instanceTest) log() string {
	all := i.stderr.all()
	for _, d := range i.others {
		all += d.stderr.all()
	}
	return all
}

// awaitLine waits for a line in which an expression is found.
func (i *instanceTest) awaitLine(t *testing.T, expression string) (line string) {
	t.Helper()
	re := regexp.MustCompile("(?m)^.*" + expression + ".*$")
	eventually(t, func() error {
		if line = re.FindString(i.log()); line == "" {
			time.Sleep(time.Millisecond)
			return fmt.Errorf("no line with %s", expression)
		}
		return nil
	})
	return line
}

// again starts the daemon anew.
func (i *instanceTest) again(t *testing.T) {
	t.Helper()
	i.others = append(i.others, runUpgradable(t, i.text))
}

// stopAll ends all processes.
func (i *instanceTest) stopAll(t *testing.T) {
	t.Helper()
	for _, d := range append(i.others, i.daemonProcess) {
		for _, pid := range d.generations() {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		d.wait()
	}
}

// A steady client stays until it is told to end, in the middle of a transfer both ways.
type steady struct {
	*talk
	name string
	sent atomic.Int64
}

func (k *steady) say(b []byte) error {
	k.sent.Add(int64(len(b)))
	return k.talk.say(b)
}

// startInstance has n steady clients spliced.
func startInstance(t *testing.T, n int, limits string) *instanceTest {
	t.Helper()
	testnet.Need(t, "root", "bpf")
	testnet.Leaks(t)
	i := &instanceTest{root: testnet.BPFFS(t)}
	t.Cleanup(func() { // all of its processes have ended
		if _, stderr, code := execute(t, "flows", "--root", i.root, "--purge"); code != exitOK {
			t.Errorf("flows --purge: %s", stderr)
		}
	})
	i.text = fmt.Sprintf(`
instance: daemon
instance_root: %q
admin: "unix:%s/admin.sock"
metrics: 127.0.0.1:0
listeners:
  web: {address: "127.0.0.1:0", engine: wire, upstream: web%s}
upstreams:
  web: {servers: %q, balance: least-connections}
`, i.root, t.TempDir(), limits, testnet.Echo(t, "tcp", "127.0.0.1:0"))
	i.daemonProcess = runUpgradable(t, i.text)
	i.idle = descriptors(t, i.last())
	i.join(t, n)
	return i
}

// join has n more clients spliced.
func (i *instanceTest) join(t *testing.T, n int) {
	t.Helper()
	for range n {
		k, err := startTalk(i.addr(t, "web"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.c.Close() })
		i.steady = append(i.steady, &steady{talk: k, name: k.c.LocalAddr().String()})
	}
	eventually(t, func() error {
		for _, k := range i.steady {
			if err := k.say([]byte("12345678")); err != nil {
				t.Fatal(err)
			}
		}
		return i.spliced(t)
	})
}

// spliced says which of the steady clients is not in the list of flows, or there twice.
func (i *instanceTest) spliced(t *testing.T) error {
	t.Helper()
	found := make(map[string]int)
	for _, name := range []string{"daemon", "other"} {
		err := wireFlows(i.root, name, func(f *flowView) error {
			found[f.Client.String()]++
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, k := range i.steady {
		if n := found[k.name]; n != 1 {
			return fmt.Errorf("%d flows of client %s, %d in all", n, k.name, len(found))
		}
	}
	return nil
}

// transfer has the steady clients talk until stop is called, each with its own bytes.
func (i *instanceTest) transfer(t *testing.T) (stop func()) {
	data := make([]byte, 1<<20)
	for n := range data {
		data[n] = byte(rand.Uint32())
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	for _, k := range i.steady {
		wg.Go(func() {
			for {
				n := 1 + rand.IntN(64<<10)
				at := rand.IntN(len(data) - n)
				if err := k.say(data[at : at+n]); err != nil {
					t.Errorf("client %s: %v", k.name, err)
					return
				}
				select {
				case <-time.After(time.Duration(rand.Int64N(int64(len(i.steady)) * int64(time.Millisecond)))):
				case <-over:
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(over)
		wg.Wait()
	})
}

// end ends the steady clients: all that they have sent has come back, and the log has the end of
// each once, with the exact bytes and where it was. listener is "" where that may be lost.
func (i *instanceTest) end(t *testing.T, listener string) {
	t.Helper()
	for _, k := range i.steady {
		if err := k.end(); err != nil {
			t.Errorf("client %s: %v", k.name, err)
		}
	}
	for _, k := range i.steady {
		line := i.awaitLine(t, `msg="connection ended".* client=`+regexp.QuoteMeta(k.name)+" ")
		for key, want := range map[string]string{
			"bytes_to_target": strconv.FormatInt(k.sent.Load(), 10), "bytes_to_client": strconv.FormatInt(k.sent.Load(), 10),
			"end_to_target": "eof", "end_to_client": "eof", "listener": listener, "upstream": listener,
		} {
			if got := field(line, key); want != "" && got != want {
				t.Errorf("%s=%s, want %s: %s", key, got, want, line)
			}
		}
	}
	for _, k := range i.steady {
		if n := len(regexp.MustCompile(`msg="connection ended".* client=`+regexp.QuoteMeta(k.name)+" ").FindAllString(i.log(), -1)); n != 1 {
			t.Errorf("%d lines about the end of client %s", n, k.name)
		}
	}
}

// field is the value of a key in a line of the log.
func field(line, key string) string {
	m := regexp.MustCompile(` ` + key + `=("[^"]*"|\S*)`).FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return strings.Trim(m[1], `"`)
}

// upgraded waits for the end of hand-over n, counted from 1.
func (i *instanceTest) upgraded(t *testing.T, n int) (taken, handed string) {
	t.Helper()
	taken = i.stderr.awaitNth(t, `msg="connections taken over"`, n)
	handed = i.stderr.awaitNth(t, `msg="connections handed over"`, n)
	i.stderr.awaitNth(t, "msg=ended", n)
	return taken, handed
}

// SPLICED_UPGRADES is the number of upgrades, 5 by default; with 50 and more there are
// 500 clients that stay, and others stay for up to 10 s.
func TestUpgradeInstance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	times, stay, others, longest := 5, 40, 8, 300*time.Millisecond
	if v := os.Getenv("SPLICED_UPGRADES"); v != "" {
		var err error
		if times, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
		if times >= 50 {
			stay, others, longest = 500, 16, 10*time.Second
		}
	}
	i := startInstance(t, stay, "")
	page := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(i.stderr.await(t, "msg=metrics"))[1]
	stop := i.transfer(t)
	crowd := startCrowd(t, i.addr(t, "web"), 0, others, longest)
	// All the time.
	watched := make(chan struct{})
	var watching sync.WaitGroup
	looks := 0
	watching.Go(func() {
		for {
			select {
			case <-watched:
				return
			case <-time.After(3 * time.Millisecond):
			}
			if err := i.spliced(t); err != nil {
				t.Error(err)
				return
			}
			looks++
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for n := range times {
		if err := syscall.Kill(i.last(), syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		taken, handed := i.upgraded(t, n+1)
		if field(taken, "error") != "" || field(taken, "lost") != "0" || field(handed, "error") != "" || field(handed, "staying") != "0" {
			t.Errorf("%s\n%s", taken, handed)
		}
		for _, line := range []string{taken, handed} {
			if flows, err := strconv.Atoi(field(line, "flows")); err != nil || flows < stay {
				t.Errorf("want %d flows or more: %s", stay, line)
			}
		}
		i.stderr.awaitNth(t, "msg=started", n+2)
		text := get(t, client, page)
		for metric, least := range map[string]int{
			`spliced_listener_joined{engine="wire",listener="web"}`: stay,
			`spliced_server_active{server="`:                        stay,
			`spliced_wire_adopted_total`:                            stay,
		} {
			m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(metric) + `.* (\d+)$`).FindStringSubmatch(text)
			if m == nil {
				t.Errorf("upgrade %d: no %s in\n%s", n+1, metric, text)
				continue
			}
			if have, err := strconv.Atoi(m[1]); err != nil || have < least {
				t.Errorf("upgrade %d: %s, want %d or more", n+1, m[0], least)
			}
		}
	}
	close(watched)
	watching.Wait()
	stop()
	crowd.end()
	i.end(t, "web")
	// The program's two links to the interface come with the first client, and stay.
	const some = 8
	left := descriptors(t, i.last())
	for deadline := time.Now().Add(patience); left > i.idle+some; left = descriptors(t, i.last()) {
		if time.Now().After(deadline) {
			t.Errorf("the last process has %v without a connection, the first had %d descriptors", descriptorKinds(t, i.last()), i.idle)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if crowd.short.Load() == 0 || looks == 0 {
		t.Errorf("%d conversations beside, %d looks at the flows", crowd.short.Load(), looks)
	}
	for line := range strings.Lines(i.stderr.all()) {
		if strings.Contains(line, "msg=upgraded") || strings.Contains(line, "handed over") || strings.Contains(line, "taken over") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("%d upgrades, %d flows, %d conversations beside, %d looks at the flows; descriptors %d, in the end %d", times, stay, crowd.short.Load(), looks, i.idle, left)
	i.stopLast(t)
}

// A client that has said nothing yet keeps the first process from its end; the second has handed
// on by then what it has got of it, and the instance.
func TestUpgradeInstanceAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, killed := range []bool{false, true} {
		t.Run(map[bool]string{false: "done", true: "killed"}[killed], func(t *testing.T) {
			i := startInstance(t, 3, ", routes: {protocol: ssh, upstream: web}, handshake_timeout: 1h")
			stop := i.transfer(t)
			client := &adminapi.Client{Address: regexp.MustCompile(`unix:[^"]*`).FindString(i.text)}
			silent, err := startTalk(i.addr(t, "web"))
			if err != nil {
				t.Fatal(err)
			}
			defer silent.c.Close()
			for n := 2; n < 5; n++ {
				if err := syscall.Kill(i.last(), syscall.SIGUSR2); err != nil {
					t.Fatal(err)
				}
				i.stderr.awaitNth(t, "msg=started", n)
				eventually(t, func() error { // it has the instance
					var st adminapi.Status
					err := client.Get(t.Context(), "/v1/status", nil, &st)
					if err == nil && (st.PID != i.last() || st.Adopted < 3) {
						err = fmt.Errorf("process %d has adopted %d, want %d to have 3", st.PID, st.Adopted, i.last())
						time.Sleep(time.Millisecond)
					}
					return err
				})
			}
			pids := i.generations()
			ends := len(pids) - 1
			if killed {
				_ = syscall.Kill(pids[1], syscall.SIGKILL)
				ends--
			}
			if err := silent.say([]byte("SSH-")); err != nil {
				t.Fatal(err)
			}
			if err := silent.end(); err != nil {
				t.Error(err)
			}
			i.stderr.awaitNth(t, "msg=ended", ends)
			stop()
			if err := i.spliced(t); err != nil {
				t.Error(err)
			}
			i.end(t, "web")
			for line := range strings.Lines(i.log()) {
				if strings.Contains(line, "level=ERROR") || strings.Contains(line, "in use") || !killed && strings.Contains(line, "level=WARN") && strings.Contains(line, "handed over") {
					t.Error(line)
				}
			}
			i.stopAll(t)
		})
	}
}

// The old process goes on with its instance: it has another connection spliced, and says how
// all have ended.
func TestUpgradeInstanceRefused(t *testing.T) {
	i := startInstance(t, 3, "")
	stop := i.transfer(t)
	i.write(t, i.text+"nonsense: 1\n")
	i.signal(syscall.SIGUSR2)
	i.stderr.await(t, "upgrade refused")
	i.write(t, i.text)
	if err := i.spliced(t); err != nil {
		t.Error(err)
	}
	stop()
	i.join(t, 1)
	i.end(t, "web")
	i.stopAll(t)
	if pids := i.generations(); len(pids) != 1 {
		t.Errorf("generations %v", pids)
	}
}

// One of the two processes is killed, some time after the new one was asked for. All connections
// go on; the other one, or the next of that name, says how they ended.
func TestUpgradeInstanceKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, test := range []struct {
		name string
		old  bool
		at   string // in the log; then the process is killed
	}{
		{"old when new is ready", true, "msg=started .*predecessor="},
		{"old when it has handed over", true, `msg="connections taken over"`},
		{"new when it has begun", false, "msg=started .*predecessor="},
		{"new when it has taken over", false, `msg="connections taken over"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := startInstance(t, 20, "")
			stop := i.transfer(t)
			old := i.last()
			i.signal(syscall.SIGUSR2)
			i.awaitLine(t, test.at)
			next := i.last()
			victim := next
			if test.old {
				victim = old
			}
			_ = syscall.Kill(victim, syscall.SIGKILL) // the old one may have ended
			eventually(t, func() error {
				if running(victim) {
					return errors.New("it lives")
				}
				return nil
			})
			if test.old {
				i.awaitLine(t, `msg="connections taken over"`)
			} else if handed := i.awaitLine(t, `msg="connections handed over"`); field(handed, "error") == "" {
				// It had ended before: then they wait for the next one.
				i.awaitLine(t, "msg=ended")
				i.again(t)
			}
			stop()
			if err := i.spliced(t); err != nil {
				t.Error(err)
			}
			i.end(t, "")
			i.stopAll(t)
		})
	}
}

// A service manager that ends all processes in the middle of it ends none of what is spliced: the
// next start adopts it.
func TestUpgradeInstanceStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	i := startInstance(t, 20, "")
	stop := i.transfer(t)
	old := i.last()
	i.signal(syscall.SIGUSR2)
	i.awaitLine(t, "msg=started .*predecessor=")
	for _, pid := range []int{i.last(), old} {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	i.wait()
	if err := i.spliced(t); err != nil {
		t.Error(err)
	}
	i.again(t)
	stop()
	i.end(t, "")
	i.stopAll(t)
}

// The instance is what the file says by then: where it is another one, or none, connections get
// their sockets back, move, and are spliced again.
func TestUpgradeInstanceRenamed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	i := startInstance(t, 5, "")
	stop := i.transfer(t)
	n := 0
	for _, text := range []string{
		strings.Replace(i.text, "instance: daemon", "instance: other", 1),
		regexp.MustCompile(`(?m)^instance.*\n`).ReplaceAllString(i.text, ""),
		i.text,
	} {
		i.write(t, text)
		if err := syscall.Kill(i.last(), syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		n++
		taken, handed := i.upgraded(t, n)
		for _, line := range []string{taken, handed} {
			if field(line, "connections") != "5" || field(line, "flows") != "0" || field(line, "error") != "" {
				t.Error(line)
			}
		}
		if strings.Contains(text, "instance:") {
			eventually(t, func() error { return i.spliced(t) })
		}
	}
	stop()
	i.end(t, "web")
	i.stopAll(t)
}

// Limits of time hold over upgrades: what is idle is so since its last byte, however often
// another process has adopted it.
func TestUpgradeInstanceLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const idle = 3 * time.Second
	i := startInstance(t, 1, ", limits: {idle: 3s}")
	k := i.steady[0]
	_ = k.say([]byte("the last"))
	begun := time.Now()
	over := make(chan error, 1)
	go func() { over <- <-k.returned }()
	for n := 1; ; n++ {
		select {
		case err := <-over:
			if took := time.Since(begun); !errors.Is(err, syscall.ECONNRESET) && err != nil || took < idle-time.Second {
				t.Errorf("it has ended after %v: %v", took, err)
			}
			line := i.awaitLine(t, `msg="connection ended".* client=`+regexp.QuoteMeta(k.name)+" ")
			if field(line, "end_to_target") != "idle" || field(line, "listener") != "web" || n < 3 {
				t.Errorf("after %d upgrades: %s", n-1, line)
			}
			i.stopAll(t)
			return
		default:
		}
		if n > 100 {
			t.Fatal("an idle connection lives")
		}
		_ = syscall.Kill(i.last(), syscall.SIGUSR2)
		i.upgraded(t, n)
		i.stderr.awaitNth(t, "msg=started", n+1)
	}
}
