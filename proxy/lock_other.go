//go:build !unix || solaris || aix

package proxy

import "context"

func lockDir(context.Context, string) (unlock func(), err error) { return func() {}, nil }
