package tlsfiles

import (
	"os"
	"slices"
)

// A stamp tells whether files have changed since: other files by the same names,
// as a rename or a link makes them, or the same files written to.
type stamp []os.FileInfo

// stamped looks at files, which may be missing.
func stamped(paths []string) stamp {
	s := make(stamp, len(paths))
	for i, path := range paths {
		s[i], _ = os.Stat(path) // missing: nil
	}
	return s
}

func (s stamp) same(o stamp) bool {
	return slices.EqualFunc(s, o, func(a, b os.FileInfo) bool {
		if a == nil || b == nil {
			return a == nil && b == nil
		}
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}
