package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/spliced-io/spliced/internal/testnet"
)

// SSH and TLS behind one port: OpenSSH with a forced command that sends back what
// it is sent, some megabytes each way at once, and its exit code.
func TestSSH(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	testnet.Need(t, "root", "ssh")
	testnet.Leaks(t)
	// Where sshd's privileges are separated: its service makes it, and /run is
	// empty after a boot.
	const empty = "/run/sshd"
	switch err := os.Mkdir(empty, 0o755); {
	case err == nil:
		t.Cleanup(func() { _ = os.Remove(empty) })
	case !errors.Is(err, os.ErrExist):
		t.Fatal(err)
	}
	sshd, err := exec.LookPath("sshd") // which wants to be started by its whole path
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, key := range []string{"host", "client"} {
		client(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", filepath.Join(dir, key))
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authorized := write("authorized", `command="cat; exit 7",restrict `+read("client.pub"))
	server := vacantAddr(t)
	config := write("sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey %s\nPidFile none\nUsePAM no\nStrictModes no\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin forced-commands-only\nAuthorizedKeysFile %s\n",
		server, filepath.Join(dir, "host"), authorized))
	startForeign(t, nil, sshd, "-D", "-e", "-f", config)
	awaitListener(t, server)
	d := runDaemon(t, fmt.Sprintf(`
log: {format: json}
listeners:
  both:
    address: 127.0.0.1:0
    routes:
      - {protocol: ssh, upstream: ssh}
      - {protocol: tls, upstream: https}
upstreams:
  ssh: {servers: %q, health: {interval: 200ms, expect: SSH-2.0-}}
  https: {servers: %q}
`, server, tlsServer(t, "https")))
	addr := d.addr(t, "both")
	_, port := hostPort(t, addr)
	known := write("known", fmt.Sprintf("[127.0.0.1]:%s %s", port, read("host.pub"))) // its own: nobody is in the middle

	sent := make([]byte, 8<<20)
	fillPattern(sent, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ssh := exec.CommandContext(ctx, "ssh", "-F", "none", "-p", port, "-i", filepath.Join(dir, "client"), "-o", "IdentitiesOnly=yes",
		"-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+known, "root@127.0.0.1")
	var got, said bytes.Buffer
	ssh.Stdin, ssh.Stdout, ssh.Stderr = bytes.NewReader(sent), &got, &said
	err = ssh.Run()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("ssh: %v, want the command's exit code 7\n%s", err, said.String())
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%d bytes come back, not those that were sent", got.Len())
	}
	if name, err := askTLS(t, addr, "x"); err != nil || name != "https" {
		t.Errorf("TLS on the same port: %q, %v", name, err)
	}
	d.stop(t)
	d.expectEnds(t, 2, 16<<20, "eof", "reset-by-drain", "reset-by-source")
}
