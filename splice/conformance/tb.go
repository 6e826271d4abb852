//go:build linux

package conformance

// TB is what the suite needs of a test: *testing.T and *rapid.T have it.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}
