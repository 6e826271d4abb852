package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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

// A life is what operators, and what goes wrong, can do to a daemon, in a random order, some of it
// before the last thing is done. Clients that stay are in the middle of transfers all the time,
// others come and go.
//
//	step                  with an instance     without
//	upgrade               yes                  yes
//	upgrade, and go on    yes                  yes
//	two upgrades at once  yes                  yes
//	reload                yes                  yes
//	reload, refused       yes                  yes
//	reload and upgrade    yes                  yes
//	new one killed early  yes                  yes         before it is ready: refused
//	one is killed         yes                  no          in the middle of an upgrade
//	all end by SIGTERM    yes                  at the end  at any time, also of an upgrade
//	all are killed        yes                  no
//
// Whoever stays lives through all of it. Who comes while nobody is to be killed or stopped is served.
// What was left behind in the end is found by [testnet.Leaks], by the file system that could not
// be unmounted, and by the list of flows.
//
// SPLICED_LOOPS is how many steps there are, 6 by default, SPLICED_SEED chooses them; 0 is by the time.
func TestLives(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	testnet.Need(t, "root", "bpf")
	steps, seed := 6, uint64(1)
	var err error
	if v := os.Getenv("SPLICED_LOOPS"); v != "" {
		if steps, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("SPLICED_SEED"); v != "" {
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for _, name := range []string{"instance", "no instance"} {
		t.Run(name, func(t *testing.T) {
			t.Logf("SPLICED_SEED=%d", seed)
			testnet.Leaks(t)
			l := &life{
				instanceTest: &instanceTest{root: testnet.BPFFS(t)}, random: rand.New(rand.NewPCG(seed, 0)), instance: name == "instance",
				socket: filepath.Join(t.TempDir(), "admin.sock"),
			}
			l.run(t, steps)
		})
	}
}

type life struct {
	*instanceTest
	random   *rand.Rand
	instance bool
	socket   string
	done     []string
	harm     atomic.Int64 // odd while processes are killed or stopped
	address  atomic.Value
	upgrader int // the process that was told last to
	unsaid   int // upgrades of which nobody will say how they have gone
}

type step struct {
	name    string
	harmful bool
	do      func(*testing.T)
}

func (l *life) run(t *testing.T, steps int) {
	target := testnet.Echo(t, "tcp", "127.0.0.1:0")
	l.text = fmt.Sprintf("admin: unix:%s\nlisteners:\n  web: {address: \"127.0.0.1:0\", engine: wire, upstream: web}\n"+
		"upstreams:\n  web: {servers: %q}\ndrain: {timeout: 3s}\n", l.socket, target)
	if l.instance {
		l.text += fmt.Sprintf("instance: daemon\ninstance_root: %q\n", l.root)
	}
	t.Cleanup(func() {
		if _, stderr, code := execute(t, "flows", "--root", l.root, "--purge"); code != exitOK {
			t.Errorf("flows --purge: %s", stderr)
		}
	})
	l.daemonProcess = runUpgradable(t, l.text)
	l.serving(t)
	if l.instance {
		l.join(t, 10)
	} else {
		for range 10 {
			k, err := startTalk(l.addr(t, "web"))
			if err != nil {
				t.Fatal(err)
			}
			l.steady = append(l.steady, &steady{talk: k, name: k.c.LocalAddr().String()})
		}
	}
	stop := l.transfer(t)
	over := make(chan struct{})
	var visitors sync.WaitGroup
	var served atomic.Int64
	for n := range 4 {
		visitors.Go(func() { l.visit(t, rand.New(rand.NewPCG(uint64(n), 1)), over, &served) })
	}
	defer func() {
		if t.Failed() {
			t.Logf("steps: %s", strings.Join(l.done, ", "))
		}
	}()
	all := l.steps()
	for range steps {
		s := all[l.random.IntN(len(all))]
		l.done = append(l.done, s.name)
		if s.harmful {
			l.harm.Add(1)
		}
		s.do(t)
		if s.harmful {
			l.settleAnyhow(t)
			l.harm.Add(1)
		}
		if t.Failed() {
			break
		}
	}
	l.settle(t)
	if l.instance && !t.Failed() {
		if err := l.spliced(t); err != nil {
			t.Error(err)
		}
	}
	close(over)
	visitors.Wait()
	stop()
	l.end(t, "")
	before := l.alive()
	l.stopAll(t)
	t.Logf("%d visitors were served, %d processes; %s", served.Load(), len(before)+l.processes(), strings.Join(l.done, ", "))
	if left := l.alive(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if _, err := os.Stat(l.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
	if have := flows(t, l.root); len(have) > 0 && !t.Failed() {
		// Of visitors whose connection nobody has seen the end of; the next process would.
		t.Logf("%d flows have ended while no process was there", len(have))
	}
}

func (l *life) steps() []step {
	upgrade := func(t *testing.T) { // begins
		t.Helper()
		l.settle(t)
		n := l.said("msg=upgrading")
		l.upgrader = l.serving(t)
		_ = syscall.Kill(l.upgrader, syscall.SIGUSR2)
		eventually(t, func() error {
			if l.said("msg=upgrading") == n {
				return errors.New("no upgrade")
			}
			return nil
		})
	}
	reload := func(t *testing.T) { _ = syscall.Kill(l.serving(t), syscall.SIGHUP) }
	// No longer than an upgrade takes.
	pause := func() { time.Sleep(time.Duration(l.random.Int64N(int64(400 * time.Millisecond)))) }
	all := []step{
		{"upgrade", false, func(t *testing.T) { upgrade(t); l.settle(t) }},
		{"upgrade, and go on", false, func(t *testing.T) { upgrade(t); pause() }},
		{"two upgrades", false, func(t *testing.T) {
			upgrade(t)
			_ = syscall.Kill(l.serving(t), syscall.SIGUSR2)
			pause()
		}},
		{"reload", false, func(t *testing.T) {
			l.settle(t)
			if _, stderr, code := execute(t, "reload", "--admin", "unix:"+l.socket); code != exitOK {
				t.Errorf("reload: %d, %s", code, stderr)
			}
		}},
		{"reload, refused", false, func(t *testing.T) {
			l.settle(t)
			l.current().write(t, l.text+"nonsense: 1\n")
			if _, stderr, code := execute(t, "reload", "--admin", "unix:"+l.socket); code != exitFailed || !strings.Contains(stderr, "nonsense") {
				t.Errorf("a wrong reload: %d, %s", code, stderr)
			}
			l.current().write(t, l.text)
		}},
		{"reload and upgrade", false, func(t *testing.T) { l.settle(t); reload(t); upgrade(t); reload(t); pause() }},
		{"new one killed early", false, func(t *testing.T) {
			l.settle(t)
			old := l.serving(t)
			before := l.said("upgrade refused")
			upgrade(t)
			eventually(t, func() error {
				for _, pid := range children(old) { // Go tries how to start processes with one, too
					_ = syscall.Kill(pid, syscall.SIGKILL) // it takes a tenth of a second to start
				}
				if l.said("upgrade refused") == before {
					return errors.New("not refused")
				}
				return nil
			})
			l.settle(t)
			if is := l.serving(t); is != old {
				t.Errorf("process %d serves in place of %d", is, old)
			}
		}},
	}
	if !l.instance {
		return all
	}
	// No longer in this step: who is told twice to end cuts its connections.
	everybody := func(t *testing.T, sig syscall.Signal) {
		t.Helper()
		told := make(map[int]bool)
		eventually(t, func() error {
			pids := l.alive()
			for _, pid := range pids {
				if !told[pid] {
					told[pid] = true
					_ = syscall.Kill(pid, sig)
				}
			}
			if len(pids) > 0 {
				time.Sleep(time.Millisecond)
				return fmt.Errorf("processes %v live", pids)
			}
			return nil
		})
	}
	return append(all,
		step{"one is killed", true, func(t *testing.T) {
			upgrade(t)
			pause()
			pids := l.alive()
			pid := pids[l.random.IntN(len(pids))]
			_ = syscall.Kill(pid, syscall.SIGKILL)
			eventually(t, func() error {
				if running(pid) {
					return fmt.Errorf("process %d lives", pid)
				}
				return nil
			})
		}},
		step{"all end", true, func(t *testing.T) { everybody(t, syscall.SIGTERM) }},
		step{"all end amid an upgrade", true, func(t *testing.T) { upgrade(t); pause(); everybody(t, syscall.SIGTERM) }},
		step{"all are killed", true, func(t *testing.T) { everybody(t, syscall.SIGKILL) }},
		step{"all are killed amid an upgrade", true, func(t *testing.T) { upgrade(t); pause(); everybody(t, syscall.SIGKILL) }},
	)
}

// visit comes and goes. A visitor that nobody harms is served.
func (l *life) visit(t *testing.T, random *rand.Rand, over <-chan struct{}, served *atomic.Int64) {
	data := make([]byte, 20_000)
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(random.Int64N(int64(20 * time.Millisecond)))):
		}
		harm := l.harm.Load()
		// Another address than that of those who stay: of another listener's port the kernel gives
		// the same port of a client.
		k, err := startTalkFrom(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, l.address.Load().(string))
		if err == nil {
			if err = k.say(data[:1+random.IntN(len(data))]); err == nil {
				time.Sleep(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
				err = k.end()
			}
		}
		switch {
		case err == nil:
			served.Add(1)
		case harm%2 == 0 && l.harm.Load() == harm:
			t.Errorf("a visitor: %v", err)
			return
		}
	}
}

// current is the daemon that was started last.
func (l *life) current() *daemonProcess {
	if n := len(l.others); n > 0 {
		return l.others[n-1]
	}
	return l.daemonProcess
}

func (l *life) processes() (n int) {
	for _, d := range append(l.others, l.daemonProcess) {
		n += len(d.generations())
	}
	return n
}

// said is how often something was.
func (l *life) said(what string) int { return strings.Count(l.log(), what) }

// pending are the upgrades that have begun, and of which nobody has said how they have gone.
func (l *life) pending() int {
	return l.said("msg=upgrading") - l.said("msg=upgraded") - l.said("upgrade refused") - l.unsaid
}

// alive are all processes of the daemon.
func (l *life) alive() (pids []int) {
	for _, d := range append(l.others, l.daemonProcess) {
		for _, pid := range d.generations() {
			if running(pid) && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids { // those that have not started yet
		for _, c := range children(pid) {
			if !slices.Contains(pids, c) {
				pids = append(pids, c)
			}
		}
	}
	return pids
}

func children(pid int) (pids []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(b)) {
			if c, err := strconv.Atoi(field); err == nil && running(c) {
				pids = append(pids, c)
			}
		}
	}
	return pids
}

// status asks who answers operators.
func (l *life) status() (s adminapi.Status, err error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.socket)
	}}}
	res, err := client.Get("http://localhost/v1/status")
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// serving is the process that accepts and answers.
func (l *life) serving(t *testing.T) (pid int) {
	t.Helper()
	eventually(t, func() error {
		s, err := l.status()
		if err == nil && !s.Ready {
			err = fmt.Errorf("process %d is %s", s.PID, s.State)
		}
		if pid = s.PID; err != nil {
			time.Sleep(time.Millisecond)
		}
		return err
	})
	l.address.Store(l.current().addr(t, "web"))
	return pid
}

// settle waits until one process is there, and serves.
func (l *life) settle(t *testing.T) {
	t.Helper()
	eventually(t, func() error { return l.settled() })
	l.serving(t)
}

func (l *life) settled() error {
	n, pids := l.pending(), l.alive()
	s, err := l.status()
	if err != nil || n != 0 || len(pids) != 1 || s.PID != pids[0] || !s.Ready {
		time.Sleep(time.Millisecond)
		return fmt.Errorf("%d upgrades, processes %v, process %d is %s, %v", n, pids, s.PID, s.State, err)
	}
	return nil
}

// settleAnyhow does so after processes were killed: it starts one where there is none, or only one
// that has handed over what it had to another that was killed.
func (l *life) settleAnyhow(t *testing.T) {
	t.Helper()
	const long = 5 * time.Second // for a process to be found serving: else it is ended, and another one started
	began := time.Now()
	eventually(t, func() error {
		pids := l.alive()
		if !running(l.upgrader) { // else it says how its upgrade has gone
			l.unsaid += l.pending()
		}
		err := l.settled()
		switch {
		case err == nil:
		case len(pids) == 0:
			l.again(t)
			began = time.Now()
		case time.Since(began) > long:
			for _, pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGTERM)
			}
			time.Sleep(100 * time.Millisecond)
		}
		return err
	})
	l.serving(t)
}
