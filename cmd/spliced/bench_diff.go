package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spliced-io/spliced/internal/netbench"
)

type benchDiffCmd struct {
	Old       string `arg:"" help:"The result file to compare with: of bench net, or of fio (its JSON, or that of spliced fio)."`
	New       string `arg:"" help:"The result file that may be worse."`
	Threshold string `default:"5%" help:"How much worse is a regression."`
}

func (c *benchDiffCmd) Run(std streams) error {
	threshold, err := netbench.ParseThreshold(c.Threshold)
	if err != nil {
		return usageError{err}
	}
	// As of diff(1), 2 says that nothing could be compared. 1 says that the new
	// run is worse, or that it may be and these rounds can't tell.
	report, regressions, err := netbench.DiffFiles(c.Old, c.New, threshold)
	if err != nil {
		return usageError{err}
	}
	if err := report.Write(std.out); err != nil {
		return err
	}
	var found []string
	if regressions > 0 {
		found = append(found, plural(regressions, "regression"))
	}
	if report.Undecided > 0 {
		found = append(found, fmt.Sprintf("%d undecided: more rounds may tell", report.Undecided))
	}
	switch {
	case len(found) > 0:
		return errors.New(strings.Join(found, ", "))
	case len(report.Rows) == 0:
		return usageError{errors.New("the two files have nothing in common")}
	}
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
