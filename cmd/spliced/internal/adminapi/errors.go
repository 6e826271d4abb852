package adminapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/spliced-io/spliced/internal/nearest"
	"github.com/spliced-io/spliced/proxy"
)

// An Error is why something was not done.
type Error struct {
	Status  int      `json:"-"` // of HTTP
	Code    Code     `json:"code" doc:"for programs: see the list"`
	Message string   `json:"message" doc:"for people: what is wrong, and what would be right"`
	Nearest []string `json:"nearest,omitempty" doc:"names that there are, the one first that is most like what was asked for"`
}

func (e *Error) Error() string { return e.Message }

// A Code says in a word what is wrong.
type Code string

// The codes.
const (
	BadParameter     Code = "bad-parameter"      // of the query: 400
	BadBody          Code = "bad-body"           // not the JSON that is wanted: 400
	Unauthorized     Code = "unauthorized"       // no token, or another: 401
	ForbiddenHost    Code = "forbidden-host"     // asked for by a name that is not this machine's: 403
	CrossOrigin      Code = "cross-origin"       // a page of another site asks: 403
	UnknownPath      Code = "unknown-path"       // 404
	UnknownUpstream  Code = "unknown-upstream"   // 404
	UnknownServer    Code = "unknown-server"     // 404
	UnknownListener  Code = "unknown-listener"   // 404
	UnknownSession   Code = "unknown-session"    // it has ended, or never was: 404
	MethodNotAllowed Code = "method-not-allowed" // 405
	BodyTooLarge     Code = "body-too-large"     // 413
	NotJSON          Code = "not-json"           // the body's type is another: 415
	ReloadRefused    Code = "reload-refused"     // the old configuration stays in force: 422
	UpgradeRefused   Code = "upgrade-refused"    // this process goes on: 422
	TooManyWatchers  Code = "too-many-watchers"  // 429
	Succeeded        Code = "succeeded"          // another process has this one's place since an upgrade: ask again: 503
	Internal         Code = "internal"           // a defect: 500
)

// statusOf is the one place that says which status a code has.
var statusOf = map[Code]int{
	BadParameter: http.StatusBadRequest, BadBody: http.StatusBadRequest,
	Unauthorized: http.StatusUnauthorized, ForbiddenHost: http.StatusForbidden, CrossOrigin: http.StatusForbidden,
	UnknownPath: http.StatusNotFound, UnknownUpstream: http.StatusNotFound, UnknownServer: http.StatusNotFound,
	UnknownListener: http.StatusNotFound, UnknownSession: http.StatusNotFound,
	MethodNotAllowed: http.StatusMethodNotAllowed, BodyTooLarge: http.StatusRequestEntityTooLarge, NotJSON: http.StatusUnsupportedMediaType,
	ReloadRefused: http.StatusUnprocessableEntity, UpgradeRefused: http.StatusUnprocessableEntity,
	TooManyWatchers: http.StatusTooManyRequests, Succeeded: http.StatusServiceUnavailable, Internal: http.StatusInternalServerError,
}

func fault(code Code, format string, args ...any) *Error {
	return &Error{Status: statusOf[code], Code: code, Message: fmt.Sprintf(format, args...)}
}

// mostNames is how many of them an error has.
const mostNames = 5

// unknown makes an error of a name that there is not.
func unknown(code Code, what, name string, known []string) *Error {
	e := fault(code, "%s %q: not known: %s", what, name, nearest.Want(name, known))
	e.Nearest = nearest.Some(name, known, mostNames)
	return e
}

// steered makes an error of what a server's method for a server has answered.
func steered(err error) *Error {
	if errors.Is(err, proxy.ErrSucceeded) {
		return fault(Succeeded, "%v", err)
	}
	var u *proxy.UnknownError
	if !errors.As(err, &u) {
		return fault(BadBody, "%v", err)
	}
	code := UnknownUpstream
	if u.What == "server" {
		code = UnknownServer
	}
	e := fault(code, "%v", err)
	e.Nearest = nearest.Some(u.Name, u.Known, mostNames)
	return e
}

// codes are all that there are, in order.
func codes() []Code { return slices.Sorted(maps.Keys(statusOf)) }
