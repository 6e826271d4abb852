package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

// A look is a snapshot, or why there is none.
type look struct {
	shot *adminapi.Snapshot
	err  error
}

// live draws until somebody wants no more.
func (c *topCmd) live(ctx context.Context, client *adminapi.Client, std streams) error {
	s, err := newScreen(std)
	if err != nil {
		return err
	}
	ctx, quit := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer s.close()
	defer quit()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	looks, keys := make(chan look), make(chan byte)
	background.Go(func() { c.watch(ctx, client, looks) })
	// The first answer comes before the screen does: what is wrong is said on the
	// usual one.
	var first look
	for first.shot == nil {
		select {
		case first = <-looks:
			if first.err != nil {
				return first.err
			}
		case sig := <-signals:
			if sig != syscall.SIGWINCH && sig != syscall.SIGCONT && sig != syscall.SIGTSTP {
				return nil
			}
		}
	}
	defer s.leave()
	if err := s.enter(); err != nil {
		return err
	}
	if s.keys != nil {
		background.Go(func() { readKeys(ctx, s.keys, keys) })
	}
	v := &topView{screen: s, sort: c.Sort, now: first.shot}
	for {
		if err := v.draw(); err != nil {
			return err
		}
		select {
		case l := <-looks:
			v.see(l)
		case key := <-keys:
			if key == 'q' || key == 'Q' {
				return nil
			}
			v.press(key)
		case sig := <-signals:
			switch sig {
			case syscall.SIGWINCH:
			case syscall.SIGTSTP:
				s.leave()
				_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
			case syscall.SIGCONT:
				if err := s.enter(); err != nil {
					return err
				}
			default:
				return nil
			}
		}
	}
}

// A topView is what is shown, and how.
type topView struct {
	screen    *screen
	sort      string
	last, now *adminapi.Snapshot
	paused    bool
	trouble   error // why nothing new comes
}

func (v *topView) see(l look) {
	if v.trouble = l.err; l.err == nil && !v.paused {
		v.last, v.now = v.now, l.shot
	}
}

func (v *topView) press(key byte) {
	switch key {
	case 's', 'S':
		v.sort = topSorts[(slices.Index(topSorts, v.sort)+1)%len(topSorts)]
	case 'p', 'P', ' ':
		v.paused = !v.paused
	}
}

func (v *topView) draw() error {
	if !v.screen.entered {
		return nil // stopped: the shell has the terminal
	}
	note := fmt.Sprintf("q quit  s sort sessions (%s)  p pause", v.sort)
	if v.paused {
		note += "  PAUSED"
	}
	if v.trouble != nil {
		note = "NO ANSWER: " + plain(v.trouble.Error()) + "; trying again"
	}
	return v.screen.draw(&frame{last: v.last, now: v.now, sort: v.sort, note: note})
}

// watchAgain is how long a daemon that does not answer is left alone.
const watchAgain = time.Second

// watch tells what it sees, until ctx ends. A daemon that goes is looked for again:
// it may be upgraded or restarted.
func (c *topCmd) watch(ctx context.Context, client *adminapi.Client, looks chan<- look) {
	tell := func(l look) {
		select {
		case looks <- l:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		err := client.Watch(ctx, time.Duration(c.Interval), int(c.Sessions), func(line []byte) error {
			shot := new(adminapi.Snapshot)
			if err := json.Unmarshal(line, shot); err != nil {
				return err
			}
			tell(look{shot: shot})
			return ctx.Err()
		})
		tell(look{err: err})
		timer := time.NewTimer(watchAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// readKeys tells the keys that are pressed, until in is closed or gone.
func readKeys(ctx context.Context, in *os.File, keys chan<- byte) {
	b := make([]byte, 16)
	for {
		n, err := in.Read(b)
		for _, key := range b[:n] {
			select {
			case keys <- key:
			case <-ctx.Done():
			}
		}
		if err != nil {
			return
		}
	}
}
