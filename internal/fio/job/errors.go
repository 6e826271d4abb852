package job

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error says which job, which file and line, and which option is wrong.
type Error struct {
	File   string // "" for the command line
	Line   int
	Job    string
	Option string // name=value as written
	Err    error
}

func (e *Error) Error() string {
	var where string
	switch {
	case e.File != "" && e.Line > 0:
		where = fmt.Sprintf("%s:%d: ", e.File, e.Line)
	case e.File != "":
		where = e.File + ": "
	}
	if e.Job != "" {
		where += fmt.Sprintf("job %q: ", e.Job)
	}
	if e.Option != "" {
		where += "option " + printable(abridged(e.Option, mostShown)) + ": "
	}
	return where + abridged(e.Err.Error(), 8*mostShown)
}

func (e *Error) Unwrap() error { return e.Err }

// mostShown is how many bytes of a job file a message repeats: it could be any
// file.
const mostShown = 100

func abridged(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// printable quotes what a terminal would not show as it is.
func printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
