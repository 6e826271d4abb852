package job

import "fmt"

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
		where += "option " + e.Option + ": "
	}
	return where + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
