package proxy

import "math"

const (
	// ownFiles are the descriptors that are nobody's connection: standard
	// streams, listeners, event loops, a server for metrics.
	ownFiles = 48
	// maxPipeFiles are the two descriptors of each of the pipes that are in
	// use at most; where there are fewer the bytes are copied.
	maxPipeFiles = 1024
	// pairFiles are the two of a joined pair. One that is dialled by a
	// goroutine and not by the event loops has four for a moment: the pipes'
	// share covers them.
	pairFiles = 2
)

// RoomForConns returns how many connections the process's limit of open files
// (RLIMIT_NOFILE) has room for: one at least. A server that accepted more
// would come to hold clients that it has no descriptor to dial for, and none
// of them could go on before another gave up.
func RoomForConns() int { return connsIn(maxFiles()) }

func connsIn(files uint64) int {
	if files > math.MaxInt32 {
		return math.MaxInt32 / pairFiles
	}
	if files <= ownFiles+pairFiles {
		return 1
	}
	files -= ownFiles
	files -= min(files/4, maxPipeFiles)
	return max(1, int(files/pairFiles))
}
