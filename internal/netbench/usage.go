package netbench

import "fmt"

// A UsageError is a wrong value on the command line: it names the value and
// says what would be right. The command exits with 2.
type UsageError struct{ text string }

func (e *UsageError) Error() string { return e.text }

// Usage tells main that this is the caller's mistake.
func (e *UsageError) Usage() bool { return true }

func usagef(format string, args ...any) error {
	return &UsageError{fmt.Sprintf(format, args...)}
}
