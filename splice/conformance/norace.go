//go:build linux && !race

package conformance

// raceDetector says whether it is on: then memory and time are not those of
// the relay.
const (
	raceDetector = false
	raceShare    = 0
)
