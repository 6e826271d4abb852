//go:build !linux

package peek

// A Room is where connections wait. The zero value is ready.
type Room struct{ reader reader }

// Wait waits for a guest, and returns at once. An error means that it was not
// taken in: Done is not called then.
func (r *Room) Wait(g Guest) error { return r.reader.wait(g) }

// Hurry does nothing here.
func (r *Room) Hurry(any, int) {}

// Dismiss does nothing here.
func (r *Room) Dismiss(any, int) {}

// Len is how many are waited for.
func (r *Room) Len() int { return r.reader.len() }

// Close ends the waiting for everybody, with [net.ErrClosed], and returns when
// all have been told. It must not be called by a guest's function.
func (r *Room) Close() { r.reader.close() }
