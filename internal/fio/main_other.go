//go:build !linux

package fio

import (
	"context"
	"fmt"
)

// Main says that there is nothing here to run with; it checks the jobs.
func Main(_ context.Context, args []string, std Streams) int {
	c, err := parseCommand(args)
	if err == nil {
		_, err = c.parser.Set()
	}
	if err == nil && c.parseOnly {
		return 0
	}
	if err == nil {
		err = fmt.Errorf("needs Linux")
	}
	fmt.Fprintf(std.Err, "spliced fio: %v\n", err)
	return 1
}
