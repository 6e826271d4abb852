//go:build !linux

package peek

var heldKinds []kind
