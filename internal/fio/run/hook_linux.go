package run

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// hookGrace is how long a command after the job goes on when the run is ended:
// it may be there to clean up.
const hookGrace = 5 * time.Second

// hook runs a shell command before or after the job (exec_prerun, exec_postrun)
// with its output in a file named after the job. One before the job is killed,
// with all that it has started, when the job is to end; one after it [hookGrace]
// after a signal or an error has ended the run.
func (w *worker) hook(when, command string) error {
	if command == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	// Not on this thread, whose descriptors are its own.
	go func() { done <- w.shell(ctx, when, command) }()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	var late <-chan time.Time
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("exec_%s=%s: %w", when, command, err)
			}
			return nil
		case <-look.C:
			switch {
			case when == "prerun" && w.stopped():
				cancel()
			case when == "postrun" && late == nil && w.run.stop.Load():
				late = time.After(hookGrace)
			}
		case <-late:
			cancel()
			<-done
			return fmt.Errorf("exec_%s=%s: killed: still running %v after the run was ended", when, command, hookGrace)
		}
	}
}

func (w *worker) shell(ctx context.Context, when, command string) error {
	name := w.aux(strings.ReplaceAll(w.o.Name, "/", "_") + "." + when + ".txt")
	w.run.info("%s : Saving output of %s in %s", w.o.Name, when, name)
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd.Run()
}
