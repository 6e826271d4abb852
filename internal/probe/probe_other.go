//go:build !linux

package probe

import (
	"context"
	"os"
)

func run(_ context.Context, r *Report) {
	r.UID = os.Getuid()
	r.Capabilities = []Capability{no("splice", "splice(2) is a call of Linux")}
}

// SocketPages is described in the version for Linux.
func SocketPages() Capability { return no("pages-shared.tcp-to-tcp", "splice(2) is a call of Linux") }
