package testnet

// TB is what the helpers need of a testing.TB. It keeps the package testing
// out of the command, which uses this package too.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}
