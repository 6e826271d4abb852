package netbench_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/netbench"
)

// writes is what fills an output, and may fail afterwards.
func writes(text string, fail error) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return errors.Join(err, fail)
	}
}

// commit writes text to path.
func commit(t *testing.T, path, text string) {
	t.Helper()
	o, err := netbench.OpenOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Commit(writes(text, nil)); err != nil {
		t.Fatal(err)
	}
	o.Discard()
}

// requireContent also wants the file to be alone in its directory, if it is to
// be.
func requireContent(t *testing.T, path, want string, files int) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is %q, %v; want %q", path, got, err, want)
	}
	if n := fileCount(t, filepath.Dir(path)); n != files {
		t.Errorf("%d files beside it, want %d with it", n, files)
	}
}

func fileCount(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestOutputIsWholeOrNotThere(t *testing.T) {
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprintf("named meanwhile %t", named), func(t *testing.T) {
			open := netbench.OpenOutput
			if named {
				open = netbench.OpenNamedOutput
			}
			path := filepath.Join(t.TempDir(), "out.json")
			o, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			o.Discard()
			if n := fileCount(t, filepath.Dir(path)); n != 0 {
				t.Errorf("%d files after Discard", n)
			}
			if o, err = open(path); err != nil {
				t.Fatal(err)
			}
			if err := o.Commit(writes("first", nil)); err != nil {
				t.Fatal(err)
			}
			o.Discard()
			requireContent(t, path, "first", 1)
			if o, err = open(path); err != nil {
				t.Fatal(err)
			}
			failure := errors.New("failure")
			if err := o.Commit(writes("second", failure)); !errors.Is(err, failure) {
				t.Errorf("Commit returned %v", err)
			}
			requireContent(t, path, "first", 1)
			if o, err = open(path); err != nil {
				t.Fatal(err)
			}
			if err := o.Commit(writes("third", nil)); err != nil {
				t.Fatal(err)
			}
			requireContent(t, path, "third", 1)
		})
	}
}

func TestOutputTakesLeftoversAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.json")
	commit(t, path, "first")
	left := filepath.Join(dir, ".out.json.unfinished-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine, err := netbench.OpenNamedOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	// What another run is writing stays.
	other, err := netbench.OpenNamedOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := fileCount(t, dir); n != 3 {
		t.Errorf("%d files, want the first and two unfinished ones", n)
	}
	other.Discard()
	mine.Discard()
	requireContent(t, path, "first", 1)
}

func TestOutputRefuses(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Skip(err) // not on every system
	}
	for _, bad := range []string{
		dir, filepath.Join(dir, "none", "out.json"), loop,
		filepath.Join(dir, "new") + "/", filepath.Join(dir, "new") + "/.", filepath.Join(dir, strings.Repeat("x", 256)),
	} {
		if o, err := netbench.OpenOutput(bad); err == nil {
			o.Discard()
			t.Errorf("OpenOutput(%s) succeeded", bad)
		}
	}
}

// The names that an output has meanwhile are no longer than its own may be.
func TestOutputOfALongName(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("ä", 127)+"x")
	commit(t, path, "first")
	commit(t, path, "second")
	requireContent(t, path, "second", 1)
}

func TestOutputKeepsModeAndLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "private.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink("private.json", link); err != nil {
		t.Skip(err) // not on every system
	}
	commit(t, link, "text")
	requireContent(t, path, "text", 2)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %v, %v; it was 0600", info.Mode(), err)
	}
	// A link that leads to nothing yet says where the file is wanted.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	commit(t, link, "again")
	requireContent(t, path, "again", 2)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
}

// A path that names a descriptor means what that is open for, not the name of
// the file behind it.
func TestOutputToDescriptor(t *testing.T) {
	if _, err := os.Stat("/dev/fd"); err != nil {
		t.Skip(err) // not on every system
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	names := []string{fmt.Sprintf("/dev/fd/%d", file.Fd())}
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		names = append(names, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()))
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(names[0], link); err != nil {
		t.Fatal(err)
	}
	want := "before\n"
	for _, name := range append(names, link) {
		commit(t, name, name+"\n")
		want += name + "\n"
		requireContent(t, path, want, 1)
		if !netbench.SameOutput(name, path) || netbench.SameOutput(name, os.DevNull) {
			t.Errorf("%s is not the same as %s", name, path)
		}
	}

	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, bad := range []string{fmt.Sprintf("/dev/fd/%d", reader.Fd()), "/dev/fd/999999"} {
		if o, err := netbench.OpenOutput(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("OpenOutput(%s) is %v, %v", bad, o, err)
		}
	}
}

func TestOutputToPipe(t *testing.T) {
	if _, err := os.Stat("/dev/fd"); err != nil {
		t.Skip(err) // not on every system
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	commit(t, fmt.Sprintf("/dev/fd/%d", w.Fd()), "through a pipe")
	w.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "through a pipe" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestSameOutput(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("new", filepath.Join(dir, "dangling")); err != nil {
		t.Skip(err) // not on every system
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return dir + string(filepath.Separator) + name }
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{in("new"), in("new"), true},
		{in("new"), in("other"), false},
		{in("new"), in("dangling"), true},
		{in("sub/../new"), in("dangling"), true},
		{in("new"), in("sub/new"), false},
		{in("sub"), in("sub"), true},
		{in("sub"), in("new"), false},
	} {
		if got := netbench.SameOutput(test.a, test.b); got != test.want {
			t.Errorf("SameOutput(%s, %s) is %t", test.a, test.b, got)
		}
	}
}
