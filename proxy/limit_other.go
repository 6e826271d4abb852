//go:build !unix

package proxy

import "math"

func maxFiles() uint64 { return math.MaxUint64 }
