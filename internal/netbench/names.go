package netbench

// The workloads.
const (
	WorkloadBulk     = "bulk"      // A sends as fast as it can
	WorkloadBulkBoth = "bulk-both" // both ways at once
	WorkloadRR       = "rr"        // request and response, closed loop
	WorkloadRROpen   = "rr-open"   // at a fixed rate, latency from the planned send time
	WorkloadConn     = "conn"      // connect, one exchange, close
	WorkloadIdle     = "idle"      // joined pairs that do nothing
	WorkloadMixed    = "mixed"     // bulk beside stalled readers
)

// Workloads returns all of them in the order of the help text.
func Workloads() []string {
	return []string{
		WorkloadBulk, WorkloadBulkBoth, WorkloadRR, WorkloadRROpen, WorkloadConn, WorkloadIdle, WorkloadMixed,
	}
}

// The paths from A to C. Any other path is named by the caller.
const (
	PathDirect        = "direct" // no proxy: B forwards IP, or nothing is between A and C
	PathCopy          = "copy"
	PathSplice        = "splice"
	PathSockmap       = "sockmap"
	PathWire          = "wire"
	PathAuto          = "auto"
	PathGoCopy        = "gocopy" // io.Copy both ways
	PathHAProxy       = "haproxy"
	PathHAProxySplice = "haproxy-splice"
	PathNginx         = "nginx"
	PathSocat         = "socat"
)

// Paths returns all of them in the order of the help text.
func Paths() []string {
	return []string{
		PathDirect, PathCopy, PathSplice, PathSockmap, PathWire, PathAuto,
		PathGoCopy, PathHAProxy, PathHAProxySplice, PathNginx, PathSocat,
	}
}

// PathRun is what a caller's path is named that is this project's daemon.
const PathRun = "run"

// IsOwn tells whether path is this project's, an engine or the daemon: these are compared
// with the best of the peers.
func IsOwn(path string) bool { return isEngine(path) || path == PathRun }

func isEngine(path string) bool {
	switch path {
	case PathCopy, PathSplice, PathSockmap, PathWire, PathAuto:
		return true
	}
	return false
}
