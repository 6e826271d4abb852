package privilege

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// What modes alone keep from root is told, whichever way it is named, and nothing else is.
func TestDenied(t *testing.T) {
	testnet.Need(t, "root", "override")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string, mode os.FileMode, uid int) {
		t.Helper()
		path := in(name)
		var err error
		if mode.IsDir() {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode.Perm()); err != nil {
			t.Fatal(err)
		}
	}
	put("own", 0o600, 0)
	put("open", 0o644, 65534)
	put("theirs", 0o600, 65534)
	put("closed", os.ModeDir|0o700, 65534)
	put("closed/open", 0o644, 65534)
	put("public", os.ModeDir|0o755, 65534)
	if err := os.Symlink("closed/open", in("link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		access      uint32
		files, want []string
	}{
		{Read, []string{in("own"), in("open"), in("missing"), in("public")}, nil},
		{Read, []string{in("own"), in("theirs"), in("closed/open"), in("link"), in("closed/missing")}, []string{in("theirs"), in("closed/open"), in("link")}},
		{Enter, []string{dir, in("closed"), in("public")}, []string{in("closed"), in("public")}},
	} {
		got, err := Denied(tt.access, tt.files...)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("access %d: %q, %v; want %q", tt.access, got, err, tt.want)
		}
	}
	if _, err := os.ReadFile(in("theirs")); err != nil {
		t.Errorf("after it: %v", err)
	}
	for _, path := range threads(t) {
		if got := status(path)["CapEff"]; got != "" && got != status("/proc/self/status")["CapEff"] { // "": it has ended
			t.Errorf("%s has the capabilities %s", path, got)
		}
	}
}

func threads(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || list == nil {
		t.Fatal(list, err)
	}
	return list
}
