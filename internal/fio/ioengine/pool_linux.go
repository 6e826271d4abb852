package ioengine

import "sync"

// A Pool makes I/O on workers, each with an engine of its own: POSIX
// asynchronous I/O, and io_submit_mode=offload.
type Pool struct {
	first  Engine
	todo   chan *Unit
	done   chan *Unit
	queued []*Unit
	out    int
	wg     sync.WaitGroup
}

// NewPool starts as many workers as the job has depth.
func NewPool(c Config, make_ func() (Engine, error)) (*Pool, error) {
	p := &Pool{todo: make(chan *Unit, c.Depth), done: make(chan *Unit, c.Depth)}
	for range c.Depth {
		e, err := make_()
		if err != nil {
			p.Shutdown()
			return nil, err
		}
		if p.first == nil {
			p.first = e
		}
		p.wg.Go(func() {
			defer e.Shutdown()
			for u := range p.todo {
				e.Do(u)
				p.done <- u
			}
		})
	}
	return p, nil
}

// Open and Close are for engines whose state belongs to the file.
func (p *Pool) Open(f *File) error  { return p.first.Open(f) }
func (p *Pool) Close(f *File) error { return p.first.Close(f) }

// Evidence is the first worker's.
func (p *Pool) Evidence() *Evidence {
	if w, ok := p.first.(Witnessed); ok {
		return w.Evidence()
	}
	return nil
}

func (p *Pool) Queue(u *Unit) bool { p.queued = append(p.queued, u); return true }

func (p *Pool) Commit() error {
	for _, u := range p.queued {
		p.todo <- u
	}
	p.out += len(p.queued)
	p.queued = p.queued[:0]
	return nil
}

func (p *Pool) Wait(least, most int, done []*Unit) ([]*Unit, error) {
	_ = p.Commit()
	for ; p.out > 0 && least > 0; least-- {
		done = append(done, <-p.done)
		p.out--
		most--
	}
	for p.out > 0 && most > 0 {
		select {
		case u := <-p.done:
			done = append(done, u)
			p.out--
			most--
		default:
			return done, nil
		}
	}
	return done, nil
}

func (p *Pool) Do(u *Unit) { doOne(p, u) }

func (p *Pool) Shutdown() {
	close(p.todo)
	p.wg.Wait()
}
