package run

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/sys"
)

// checkers check blocks beside their job (verify_async). What they find is the
// job's to judge, on its own thread.
type checkers struct {
	todo  chan checking
	spare chan []byte    // copies of blocks are made in these
	out   sync.WaitGroup // blocks not checked yet: only the job adds and waits
	ended sync.WaitGroup

	mu    sync.Mutex
	found []*wrong
}

// startCheckers starts what verify_async asks for.
func (w *worker) startCheckers() error {
	n := w.o.VerifyAsync
	if n == 0 || w.verifier == nil || w.verifier.Pretends() {
		return nil
	}
	c := &checkers{todo: make(chan checking, n), spare: make(chan []byte, 4*n)}
	for range cap(c.spare) {
		c.spare <- nil
	}
	w.checkers = c
	began := make(chan error, n)
	for range n {
		v, err := data.NewVerifier(w.o)
		if err != nil {
			return err
		}
		c.ended.Go(func() {
			err := confine(w.o.VerifyAsyncCPUs)
			if began <- err; err == nil {
				c.work(v, w.o.VerifyDump)
			}
		})
	}
	for range n {
		if err := <-began; err != nil {
			return fmt.Errorf("verify_async_cpus: %w", err)
		}
	}
	return nil
}

// confine gives the calling goroutine a thread on these CPUs, which ends with
// it.
func confine(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	runtime.LockOSThread() // never unlocked
	return sys.SetAffinity(cpus)
}

func (c *checkers) work(v *data.Verifier, keep bool) {
	for b := range c.todo {
		if m := b.mismatch(v, keep); m != nil {
			c.mu.Lock()
			c.found = append(c.found, m)
			c.mu.Unlock()
		}
		c.spare <- b.read
		c.out.Done()
	}
}

// add copies a block, whose buffer is wanted for the next I/O, and has it
// checked.
func (c *checkers) add(b checking) {
	b.read = append((<-c.spare)[:0], b.read...)
	c.out.Add(1)
	c.todo <- b
}

func (c *checkers) end() {
	close(c.todo)
	c.ended.Wait()
}

// judgeFound judges what the checkers have found, and returns the first error
// that ends the job.
func (w *worker) judgeFound() (err error) {
	c := w.checkers
	c.mu.Lock()
	found := c.found
	c.found = nil
	c.mu.Unlock()
	for _, m := range found {
		if e := w.judge(m); err == nil {
			err = e
		}
	}
	return err
}

// checksDone waits until all blocks so far are checked.
func (w *worker) checksDone() error {
	if w.checkers == nil {
		return nil
	}
	w.checkers.out.Wait()
	return w.judgeFound()
}
