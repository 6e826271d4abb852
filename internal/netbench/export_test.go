package netbench

import "time"

// SetPatience shortens what would make a test of a silent path slow.
func (s *Source) SetPatience(d time.Duration) { s.patience = d }
