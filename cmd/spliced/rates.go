package main

import "github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"

// rates are how fast counts rise, a second.
type rates struct{ accepted, failed, toTarget, toClient float64 }

// ratesOf compares two snapshots of a daemon. Without an earlier one, or after
// another process has taken its place, there are none.
func ratesOf(last, now *adminapi.Snapshot) rates {
	if !sameProcess(last, now) {
		return rates{}
	}
	return between(&last.Status.Counts, &now.Status.Counts, elapsed(last, now))
}

// sameProcess says whether the counts of both are of one process.
func sameProcess(last, now *adminapi.Snapshot) bool {
	return last != nil && last.Status.PID == now.Status.PID && now.Time.After(last.Time)
}

func elapsed(last, now *adminapi.Snapshot) float64 { return now.Time.Sub(last.Time).Seconds() }

func between(a, b *adminapi.Counts, seconds float64) rates {
	return rates{
		accepted: rise(a.Accepted, b.Accepted, seconds), failed: rise(a.Failed, b.Failed, seconds),
		toTarget: rise(a.BytesToTarget, b.BytesToTarget, seconds), toClient: rise(a.BytesToClient, b.BytesToClient, seconds),
	}
}

// rise is 0 for what has begun again.
func rise[T int | int64 | uint64](a, b T, seconds float64) float64 {
	if b < a || seconds <= 0 {
		return 0
	}
	return float64(b-a) / seconds
}
