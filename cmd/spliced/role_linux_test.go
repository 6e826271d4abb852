package main

import "os"

// testRole returns what the test binary is to be instead of the tests or the
// command, nil for these.
func testRole() func(args []string) error {
	switch {
	case os.Getenv(beBackend) != "":
		return func(args []string) error { return runBackend(args[0], args[1]) }
	case os.Getenv(beHorde) != "":
		return runHorde
	case os.Getenv(beThrong) != "":
		return func(args []string) error { return runThrong(args[0], args[1], args[2]) }
	case os.Getenv(beConfined) != "":
		return runConfined
	default:
		return nil
	}
}
