package netbench

import (
	"errors"
	"os"
	"time"
)

// SetPatience shortens what would make a test of a silent path slow.
func (s *Source) SetPatience(d time.Duration) { s.patience = d }

// ErrOutside is what a round ends with that was too short.
var ErrOutside = errOutside

// KindStall is what the header of a stalled connection says at byte 8.
const KindStall = byte(kindStall)

// WithoutCgroups has a run do as where control groups can't be made.
func (o *Options) WithoutCgroups() { o.noCgroups = true }

// OpenNamedOutput is [OpenOutput] as where files need a name.
func OpenNamedOutput(path string) (*Output, error) {
	return openOutput(path, func(string, os.FileMode) (*os.File, error) { return nil, errors.ErrUnsupported })
}
