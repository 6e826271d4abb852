package config

import (
	"fmt"
	"strings"
)

// A Problem is something that is wrong with a file.
type Problem struct {
	File         string
	Line, Column int // from 1; 0: the file as a whole
	Message      string
}

// Error begins with the place, as compilers write it.
func (p Problem) Error() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems is a non-empty list of them, in the order of the file.
type Problems []Problem

// Error is a line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}
