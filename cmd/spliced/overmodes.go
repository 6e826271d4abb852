package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spliced-io/spliced/internal/privilege"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// overModes lists the capabilities with which the process comes to what is other users',
// whose modes would keep it out: servers' unix sockets, which may come and go at any time; sockets
// of its own in their directories, to remove them; and files that a reload or an upgrade
// reads again. The error is that this could not be found out.
func overModes(file *config.File) ([]proxy.Need, error) {
	const override = "CAP_DAC_OVERRIDE"
	var needs []proxy.Need
	for _, name := range slices.Sorted(maps.Keys(file.Upstreams)) {
		for _, server := range file.Upstreams[name].Servers {
			if path := socketFile(server.Address); path != "" && needs == nil {
				needs = append(needs, proxy.Need{Capability: override, For: "to connect to " + path + " of upstream " + name + ", whoever's it is"})
			}
		}
	}
	if needs == nil {
		dirs, err := privilege.Denied(privilege.Enter, socketDirs(file)...)
		if err != nil {
			return nil, err
		}
		if dirs != nil {
			needs = append(needs, proxy.Need{Capability: override, For: "to remove sockets from " + dirs[0] + ", which is another user's"})
		}
	}
	files, err := privilege.Denied(privilege.Read, readAgain(file)...)
	if files != nil {
		what := files[0]
		if n := len(files) - 1; n > 0 {
			what += fmt.Sprintf(" and %d more", n)
		}
		needs = append(needs, proxy.Need{Capability: "CAP_DAC_READ_SEARCH", For: "to read " + what + " again, which is another user's"})
	}
	return needs, err
}

// describeOthers writes what overModes are wanted.
func describeOthers(w io.Writer, file *config.File) {
	if who, err := another(file.User); who != nil || err != nil {
		return // has none of them
	}
	needs, err := overModes(file)
	if err != nil {
		fmt.Fprintf(w, "warning: files of other users may be out of reach: %v\n", err)
	}
	for _, n := range needs {
		fmt.Fprintf(w, "wanted %s %s; without it the modes of files decide\n", n.Capability, n.For)
	}
}

// readAgain are the files that a reload reads, and the directories of those that it looks for.
func readAgain(file *config.File) []string {
	files := []string{file.Admin.TokenFile}
	for i, s := range file.Sources {
		if files = append(files, s.Path); i > 0 {
			files = append(files, filepath.Dir(s.Path))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Listeners)) {
		if t := file.Listeners[name].TLS; t != nil {
			for _, pair := range t.Certificates {
				files = append(files, pair.Certificate, pair.Key)
			}
			files = append(files, t.ClientCA)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file.Upstreams)) {
		if t := file.Upstreams[name].TLS; t != nil {
			files = append(files, t.CA, t.Certificate, t.Key)
		}
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// socketDirs are the directories of the process's own unix sockets.
func socketDirs(file *config.File) (dirs []string) {
	add := func(address string) {
		if path := socketFile(address); path != "" {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, a := range file.Admin.Address {
		add(a)
	}
	for _, name := range slices.Sorted(maps.Keys(file.Listeners)) {
		for _, a := range file.Listeners[name].Address {
			add(a)
		}
	}
	return dirs
}

// socketFile is the file of a unix socket's address; "" if it has none.
func socketFile(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok && !strings.HasPrefix(path, "@") {
		return path
	}
	return ""
}
