package netbench

import "sync"

// sinkLoad is what the connections of one load share at the sink.
type sinkLoad struct {
	window   *window
	release  sync.Once
	released chan struct{} // closed when stalled readers are to go on
}

// sinkLoads remembers the latest loads. They outlive their connections: one
// that a proxy lets wait until all others have ended still belongs to them.
type sinkLoads struct {
	mu     sync.Mutex
	byID   map[uint64]*sinkLoad
	oldest []uint64
}

func (l *sinkLoads) of(h header) *sinkLoad {
	const most = 1024
	l.mu.Lock()
	defer l.mu.Unlock()
	if found := l.byID[h.load]; found != nil {
		return found
	}
	if l.byID == nil {
		l.byID = map[uint64]*sinkLoad{}
	}
	if len(l.oldest) == most {
		delete(l.byID, l.oldest[0])
		l.oldest = l.oldest[1:]
	}
	load := &sinkLoad{window: newWindow(h.window, newStart(h.streams, h.settle)), released: make(chan struct{})}
	l.byID[h.load] = load
	l.oldest = append(l.oldest, h.load)
	return load
}
