package clienthello

// A Reason says why there is no [Hello].
type Reason uint8

// The reasons.
const (
	NotTLS    Reason = iota // the bytes are another protocol's
	Malformed               // TLS, and no server would take it
	TooLarge                // over the limits of this package
)

func (r Reason) String() string { return [...]string{"not TLS", "malformed", "too large"}[r] }

// An Error says why b holds no ClientHello.
type Error struct {
	Reason Reason
	Detail string
}

func (e *Error) Error() string { return "ClientHello: " + e.Reason.String() + ": " + e.Detail }

func malformed(what string) error { return &Error{Malformed, what} }
