package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/internal/sys"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	mountDir    = "/run/netns"
	currentPath = "/proc/thread-self/ns/net"
)

// A Namespace is a network namespace of this process. Its lo is up and it has
// nothing else.
type Namespace struct {
	name string
	file *os.File
}

// New makes a namespace whose name contains label, which is letters and digits.
// It first removes what crashed processes have left, see [Reap].
func New(label string) (*Namespace, error) {
	if _, err := Reap(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(mountDir, 0o755); err != nil {
		return nil, fmt.Errorf("make namespace: %w", err)
	}
	path, err := reserve(label)
	if err != nil {
		return nil, fmt.Errorf("make namespace: %w", err)
	}
	if err := populate(path); err != nil {
		return nil, errors.Join(fmt.Errorf("make namespace: %w", err), os.Remove(path))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open namespace: %w", err), remove(path))
	}
	ns := &Namespace{name: filepath.Base(path), file: file}
	if err := ns.up("lo"); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// Name is the namespace's name for ip netns.
func (ns *Namespace) Name() string { return ns.name }

// Path is the file that nsenter --net= takes.
func (ns *Namespace) Path() string { return filepath.Join(mountDir, ns.name) }

// Fd refers to the namespace while it is open.
func (ns *Namespace) Fd() int { return int(ns.file.Fd()) }

// Close removes the namespace. The kernel frees it, and its interfaces, when
// the last process and socket in it are gone.
func (ns *Namespace) Close() error {
	return errors.Join(ns.file.Close(), remove(ns.Path()))
}

// Do runs f on a thread inside the namespace and returns its error. Goroutines
// that f starts are outside; sockets and processes that f makes are inside.
func (ns *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := sys.SetNetns(ns.Fd()); err != nil {
			return fmt.Errorf("enter namespace %s: %w", ns.name, err)
		}
		return f()
	})
}

// Listen is net.Listen inside the namespace. The address must be numeric.
func (ns *Namespace) Listen(network, address string) (ln net.Listener, err error) {
	err = ns.Do(func() error {
		ln, err = net.Listen(network, address)
		return err
	})
	return ln, err
}

// Dial is net.Dialer.DialContext inside the namespace. The address must be
// numeric: a name would be resolved on other threads. On a link that has only
// just come up the kernel may have given up looking for the neighbour: it is
// asked again, for ten seconds at most.
func (ns *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	for end := time.Now().Add(10 * time.Second); ; {
		err = ns.Do(func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		if !errors.Is(err, syscall.EHOSTUNREACH) || ctx.Err() != nil || time.Now().After(end) {
			return conn, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Start starts cmd inside the namespace.
func (ns *Namespace) Start(cmd *exec.Cmd) error { return ns.Do(cmd.Start) }

// Run runs a command inside the namespace to its end; its output is in the
// error if it fails.
func (ns *Namespace) Run(ctx context.Context, stdin, name string, args ...string) error {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("start %s in %s: %w", name, ns.name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run %s in %s: %w: %s", cmd, ns.name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// Sysctl sets a variable of the namespace: Sysctl("net.ipv4.ip_forward", "1").
func (ns *Namespace) Sysctl(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	return ns.Do(func() error {
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s to %s: %w", key, value, err)
		}
		return nil
	})
}

// ReadProcNet reads a file of the namespace's /proc/net: "snmp" or "tcp".
func (ns *Namespace) ReadProcNet(name string) (content []byte, err error) {
	err = ns.Do(func() error {
		content, err = os.ReadFile("/proc/thread-self/net/" + name)
		return err
	})
	return content, err
}

// netlink calls f with a handle whose socket is inside the namespace.
func (ns *Namespace) netlink(f func(h *netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()), syscall.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink in %s: %w", ns.name, err)
	}
	defer h.Close()
	return f(h)
}

func (ns *Namespace) up(link string) error {
	return ns.set(link, "up", (*netlink.Handle).LinkSetUp)
}

// set changes an interface by f; what is for the error.
func (ns *Namespace) set(link, what string, f func(*netlink.Handle, netlink.Link) error) error {
	return ns.netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err == nil {
			err = f(h, l)
		}
		if err != nil {
			return fmt.Errorf("set %s %s in %s: %w", link, what, ns.name, err)
		}
		return nil
	})
}

// reserve makes an empty file of an unused name below mountDir.
func reserve(label string) (string, error) {
	owner, err := self()
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		path := filepath.Join(mountDir, fmt.Sprintf("%s%s%d", owner.prefix(), label, n))
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return path, file.Close()
	}
}

// populate mounts a new namespace at path.
func populate(path string) error {
	return onThread(func() error {
		if err := sys.UnshareNetns(); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := sys.BindMount(currentPath, path); err != nil {
			return fmt.Errorf("mount on %s: %w", path, err)
		}
		return nil
	})
}

// onThread runs f on a thread of its own and puts that thread back where it
// was; a thread that can't be put back is ended. It waits for f, also when
// f ends its goroutine (as t.FailNow does).
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		origin, openErr := os.Open(currentPath)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open the thread's namespace: %w", openErr)
			return
		}
		defer func() {
			if sys.SetNetns(int(origin.Fd())) == nil {
				runtime.UnlockOSThread()
			}
			origin.Close()
		}()
		err = f()
	}()
	return <-done
}

func remove(path string) error {
	// EINVAL: reserved, and never mounted on.
	if err := sys.Unmount(path); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("unmount namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove namespace: %w", err)
	}
	return nil
}
