//go:build !linux

package proxy

import "net"

func inheritKeepAlive(lc *net.ListenConfig) { lc.KeepAliveConfig = keepAlive }
