package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spliced-io/spliced/internal/privilege"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
	"github.com/spliced-io/spliced/splice"
)

// harden gives up what the daemon, whose sockets are open, does not need any
// more: capabilities, its user if the file names another, and the right to write
// files beyond the directories of its sockets.
func (d *daemon) harden(file *config.File) error {
	if room := file.RoomForConns(); file.MaxConnections > room {
		d.log.Warn("the limit of open files has no room for so many connections", "max_connections", file.MaxConnections, "room", room)
	}
	who, err := another(file.User)
	if err != nil {
		return err
	}
	d.became = d.became || who != nil
	keep := capabilities(file.Needs(unprivilegedFrom()))
	if !d.became { // see [config.File.User]
		others, err := overModes(file)
		if err != nil {
			d.log.Warn("files of other users may be out of reach", "error", oneLine{err})
		}
		keep = slices.Concat(keep, []string{pipeCapability}, capabilities(file.Wants()), capabilities(others))
	}
	kept, err := privilege.Drop(keep, who)
	switch {
	case err != nil && who != nil:
		return fmt.Errorf("user %s: %w", file.User, err)
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case err != nil:
		d.log.Warn("privileges kept", "error", oneLine{err})
		return nil
	}
	sandbox := "off"
	switch {
	case d.sandboxed:
		sandbox = "as before the upgrade" // each is in force for ever, and a process has 16 at most
	case !file.NoSandbox:
		version, err := privilege.WriteOnly(writable(file)...)
		if sandbox = fmt.Sprintf("landlock version %d", version); err != nil {
			sandbox = err.Error()
		}
		if err != nil && !errors.Is(err, privilege.ErrNoLandlock) {
			d.log.Warn("files can still be written", "error", oneLine{err})
		}
		d.sandboxed = err == nil
	}
	d.log.Info("privileges dropped", "capabilities", strings.Join(kept, " "), "sandbox", sandbox)
	return nil
}

// pipeCapability is for pipes beyond what a user may have: it is used where there is
// one, and never needed.
const pipeCapability = "CAP_SYS_RESOURCE"

// harden gives up what the relay, whose sockets are open, does not need any more.
func (c *relayCmd) harden(log *slog.Logger, engine splice.Engine) error {
	kept, err := privilege.Drop(c.needs(engine), nil)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		log.Warn("privileges kept", "error", oneLine{err})
	default:
		log.Info("privileges dropped", "capabilities", strings.Join(kept, " "))
	}
	return nil
}

// needs are the capabilities that the relay uses if it has them: none is needed.
func (c *relayCmd) needs(engine splice.Engine) []string {
	keep := []string{pipeCapability}
	switch engine {
	case splice.EngineAuto, splice.EngineWire:
		keep = append(keep, splice.WireCapabilities()...)
	case splice.EngineSockmap:
		keep = append(keep, splice.SockmapCapabilities()...)
	}
	unix := func(a proxy.Addr) bool { return a.Network == "unix" }
	if unix(c.Listen.addr) || slices.ContainsFunc(c.Targets, func(t target) bool { return unix(t.Addr) }) {
		// Sockets in another user's directory, to be connected to and removed.
		keep = append(keep, "CAP_DAC_OVERRIDE")
	}
	return keep
}

// capabilities are those of needs.
func capabilities(needs []proxy.Need) (names []string) {
	for _, n := range needs {
		names = append(names, n.Capability)
	}
	return names
}

// another is the user to become; nil for none, and the one that the process has: it was
// started so, or is the next of an upgrade.
func another(name string) (*privilege.User, error) {
	who, err := lookUp(name)
	if who != nil && who.UID == os.Getuid() && who.GID == os.Getgid() {
		who = nil
	}
	return who, err
}

// lookUp finds a user by name or number; nil for "".
func lookUp(name string) (*privilege.User, error) {
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q: there is none of that name or number", name)
		}
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if err := errors.Join(errUID, errGID); err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	return &privilege.User{UID: uid, GID: gid}, nil
}

// writable are a file and the directories in which the daemon makes sockets, takes them
// away, or pins what the engine wire carries.
func writable(file *config.File) []string {
	dirs := []string{"/sys/fs/bpf", "/dev/null"} // that is for what a child writes
	if file.InstanceRoot != "" {
		dirs = append(dirs, file.InstanceRoot)
	}
	return append(dirs, socketDirs(file)...)
}
