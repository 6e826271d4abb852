package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// notifier tells the service manager how far we are. See sd_notify(3).
type notifier struct{ socket string }

// newNotifier takes the socket from NOTIFY_SOCKET, and the variable away from
// our children.
func newNotifier(env lookupEnv) notifier {
	socket, _ := env("NOTIFY_SOCKET")
	_ = os.Unsetenv("NOTIFY_SOCKET")
	return notifier{socket}
}

// tell sends a state. A service that can't be heard goes on working.
func (n notifier) tell(log *slog.Logger, state string) {
	if n.socket == "" {
		return
	}
	if err := n.send(state); err != nil {
		log.Warn("service manager not reached", "state", state, "error", err)
	}
}

func (n notifier) send(state string) error {
	// A leading @ is an abstract name, for systemd as for Go.
	if !strings.HasPrefix(n.socket, "/") && !strings.HasPrefix(n.socket, "@") {
		return fmt.Errorf("NOTIFY_SOCKET=%q: want an absolute path or @name", n.socket)
	}
	conn, err := net.DialTimeout("unixgram", n.socket, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, err = conn.Write([]byte(state))
	return err
}
