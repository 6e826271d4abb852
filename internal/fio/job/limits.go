package job

// What a job file may contain at most.
const (
	maxFileBytes  = 4 << 20
	maxLineBytes  = 64 << 10
	maxIncludes   = 16   // nested
	maxSections   = 4096 // of one command line
	maxValueBytes = 64 << 10
	maxExprDepth  = 64
)
