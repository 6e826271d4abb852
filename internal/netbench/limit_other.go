//go:build !unix

package netbench

func raiseDescriptorLimit() (restore func(), err error) { return func() {}, nil }

func descriptorLimit() int { return 1024 }
