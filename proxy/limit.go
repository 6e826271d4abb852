package proxy

import "math"

const (
	// ownFiles are descriptors that are nobody's connection: standard streams,
	// event loops, name servers that are asked, operators who ask.
	ownFiles = 48
	// maxPipeFiles are the two descriptors of each of the pipes that are in
	// use at most; where there are fewer the bytes are copied.
	maxPipeFiles = 1024
	// pairFiles are the two of a joined pair. One that is dialled by a
	// goroutine and not by the event loops has four for a moment: the pipes'
	// share covers them.
	pairFiles = 2
)

// RoomForConns returns how many connections of c the process's limit of open files
// (RLIMIT_NOFILE) has room for, beside its listeners and its checks of servers: one at
// least. A server that accepted more would come to hold clients that it has no
// descriptor to dial for, and none of them could go on before another gave up.
func (c *Config) RoomForConns() int { return connsIn(maxFiles(), c.files()) }

// files is how many descriptors c takes without any connection. A name that stands
// for several addresses counts once: the pipes' share covers the others.
func (c *Config) files() uint64 {
	n := uint64(ownFiles)
	for _, l := range c.Listeners {
		n += uint64(len(l.Address))
	}
	for _, u := range c.Upstreams {
		if u.Health != nil {
			n += uint64(len(u.Servers))
		}
	}
	return n
}

func connsIn(files, own uint64) int {
	if files > math.MaxInt32 {
		return math.MaxInt32 / pairFiles
	}
	if files <= own+pairFiles {
		return 1
	}
	files -= own
	files -= min(files/4, maxPipeFiles)
	return max(1, int(files/pairFiles))
}
