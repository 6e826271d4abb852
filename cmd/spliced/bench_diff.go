package main

import (
	"errors"
	"fmt"

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
	// As of diff(1), 1 says that the new run is worse, and nothing else.
	report, regressions, err := netbench.DiffFiles(c.Old, c.New, threshold)
	if err != nil {
		return usageError{err}
	}
	if err := report.Write(std.out); err != nil {
		return err
	}
	switch {
	case regressions == 1:
		return errors.New("1 regression")
	case regressions > 1:
		return fmt.Errorf("%d regressions", regressions)
	case len(report.Rows) == 0:
		return usageError{errors.New("the two files have nothing in common")}
	}
	return nil
}
