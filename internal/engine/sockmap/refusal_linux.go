package sockmap

import (
	"errors"
	"syscall"

	"github.com/cilium/ebpf"
)

// A Refusal says why a pair is not redirected: 0 is none. Package engine has a
// code for each, in this order.
type Refusal uint8

// The refusals.
const (
	NotTCP    Refusal = iota + 1 // a unix socket
	MPTCP                        // Multipath TCP: no sockmap takes it
	Namespace                    // the socket is in another network namespace than the program
	Closing                      // a FIN or RST came before (CLOSE_WAIT can't be inserted)
	ULP                          // a protocol on top of TCP in the kernel, such as kTLS
	Foreign                      // somebody else's verdict program has the socket (EBUSY)
	Full                         // the maps are full
	Limited                      // so little is left of MaxBytes that segments could reach beyond it
	Braked                       // the session has a limit of bandwidth, which the program does not keep
	Broken                       // the kernel refused something that should work
)

// refusalOf says what the errno of an insertion means.
func refusalOf(err error) Refusal {
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		return Closing // the protocol was looked at before
	case errors.Is(err, syscall.EINVAL):
		return ULP
	case errors.Is(err, syscall.EBUSY):
		return Foreign
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ENOMEM), errors.Is(err, ebpf.ErrKeyExist):
		return Full
	}
	return Broken
}
