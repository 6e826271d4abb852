// Package report writes the results of a run in fio's formats and as a page.
package report

import (
	"time"

	"github.com/spliced-io/spliced/internal/fio/job"
	"github.com/spliced-io/spliced/internal/fio/run"
)

// A Report is all that there is to say about a run.
type Report struct {
	Version   string // of this program
	Time      time.Time
	Elapsed   time.Duration
	Global    []job.Setting
	Results   []run.Result
	Disks     []run.Disk
	Intervals []Interval
}

// compatible is the version of fio whose formats these are: programs that read
// them look at it.
const compatible = "fio-3.33"
