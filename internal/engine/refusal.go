package engine

// RefusesSplice reports whether w says that page references could not be moved
// here, rather than that copying was cheaper.
func (w Why) RefusesSplice() bool {
	switch w {
	case WhyPipeBudget, WhyUnsupported, WhySpliceBlind, WhyNoDescriptor, WhyNotLinux, WhyCopiesAnyway, WhyTLS:
		return true
	}
	return false
}
