package run

import (
	"strings"
	"testing"

	"github.com/spliced-io/spliced/internal/fio/data"
	"github.com/spliced-io/spliced/internal/fio/job"
)

// A state that does not know of all writes that failed would have a later job
// look for what was never written.
func TestStateOfTooManyFailures(t *testing.T) {
	o := &job.Options{Name: "j", RW: "write", Verify: "md5", VerifyStateSave: true}
	v, err := data.NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{o: o, verifier: v, run: &Run{conf: Config{AuxPath: t.TempDir()}}}
	for n := range uint64(mostUnwritten) {
		w.unwritten(n)
	}
	if err := w.saveState(); err != nil {
		t.Fatal(err)
	}
	w.unwritten(mostUnwritten)
	if err := w.saveState(); err == nil || !strings.Contains(err.Error(), "no state is saved") {
		t.Errorf("%v", err)
	}
}
