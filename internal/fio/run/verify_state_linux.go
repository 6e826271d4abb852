package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// verifyState is how far a job that verifies has written. A later one checks as
// much, and no more. The file is JSON, unlike fio's, whose random numbers it
// would have to hold.
type verifyState struct {
	Version    int      `json:"spliced_fio_verify_state"`
	Job        string   `json:"job"`
	Writes     uint64   `json:"writes"`               // began
	Unfinished []uint64 `json:"unfinished,omitempty"` // of these, from 1
}

const (
	stateVersion  = 1
	mostUnwritten = 1 << 16
	mostStateSize = 4 << 20
)

// stateName is fio's.
func (w *worker) stateName() string {
	name := fmt.Sprintf("local-%s-%d-verify.state", strings.ReplaceAll(w.o.Name, "/", "."), w.clone)
	return w.aux(name)
}

func (w *worker) saveState() error {
	if !w.o.VerifyStateSave || w.verifier == nil || !w.o.Writes() || w.o.VerifyOnly {
		return nil
	}
	if w.forgotten {
		return fmt.Errorf("verify_state_save: more than %d writes failed: no state is saved", mostUnwritten)
	}
	b, err := json.Marshal(verifyState{stateVersion, w.o.Name, w.writes, w.unfinished})
	if err == nil {
		err = os.WriteFile(w.stateName(), append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("verify_state_save: %w", err)
	}
	return nil
}

func (w *worker) loadState() error {
	if !w.o.VerifyStateLoad {
		return nil
	}
	f, err := os.Open(w.stateName())
	if err != nil {
		return fmt.Errorf("verify_state_load: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostStateSize))
	s := &verifyState{}
	if err == nil {
		err = json.Unmarshal(b, s)
	}
	switch {
	case err == nil && s.Version != stateVersion:
		err = fmt.Errorf("version %d, not %d", s.Version, stateVersion)
	case err == nil && s.Job != w.o.Name:
		err = fmt.Errorf("of job %q", s.Job)
	case err != nil:
		err = errors.Join(errors.New("not a state that spliced fio has saved"), err)
	}
	if err != nil {
		return fmt.Errorf("verify_state_load: %s: %w", w.stateName(), err)
	}
	w.saved = s
	return nil
}

// unwritten notes a write that did not succeed.
func (w *worker) unwritten(number uint64) {
	if !w.o.VerifyStateSave {
		return
	}
	if w.forgotten = len(w.unfinished) >= mostUnwritten; !w.forgotten {
		w.unfinished = append(w.unfinished, number)
	}
}

// stateOver says whether all that the state knows of has been looked at.
func (w *worker) stateOver() bool { return w.saved != nil && w.looked >= w.saved.Writes }

// stateSkips says whether the nth write has not succeeded.
func (w *worker) stateSkips(n uint64) bool {
	return w.saved != nil && slices.Contains(w.saved.Unfinished, n)
}
