package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
	"github.com/spliced-io/spliced/proxy"
	"github.com/spliced-io/spliced/proxy/config"
)

// adminFlags say which daemon is asked.
type adminFlags struct {
	Config    string `short:"c" placeholder:"FILE" help:"The configuration of the daemon: its key admin says where it listens."`
	Admin     string `placeholder:"ADDRESS" env:"SPLICED_ADMIN" help:"Where it listens, unix:/path or host:port."`
	TokenFile string `placeholder:"FILE" env:"SPLICED_TOKEN_FILE" help:"The token that it wants to know, as admin.token_file of its configuration."`
}

// The places where daemons are looked for that nobody names: where dist/ has them.
const (
	usualAdmin  = "/run/spliced/admin.sock"
	usualConfig = "/etc/spliced/spliced.yaml"
)

// client finds the daemon: by --admin, by its configuration, or where dist/ has
// it.
func (f *adminFlags) client(std streams) (*adminapi.Client, error) {
	c := &adminapi.Client{Address: f.Admin}
	tokenFile := f.TokenFile
	path := f.Config
	if f.Admin == "" && path == "" {
		if _, err := os.Stat(usualAdmin); err == nil {
			c.Address = "unix:" + usualAdmin
		} else if _, err := os.Stat(usualConfig); err == nil {
			path = usualConfig
		} else {
			return nil, usageError{fmt.Errorf("which daemon? want -c FILE, its configuration, or --admin unix:/path (or SPLICED_ADMIN): there is neither %s nor %s", usualAdmin, usualConfig)}
		}
	}
	if c.Address != "" {
		if addr, err := proxy.ParseAddr(c.Address); err != nil {
			return nil, usageError{fmt.Errorf("--admin: %w", err)}
		} else if strings.HasSuffix(addr.Address, ":0") {
			return nil, usageError{fmt.Errorf("--admin %s: nothing can be reached at port 0", c.Address)}
		}
	} else {
		file, err := loadConfig(config.Reader{}, path, std)
		if err != nil {
			return nil, err
		}
		if len(file.Admin.Address) == 0 {
			return nil, usageError{fmt.Errorf("%s has no admin address to ask at: add admin: unix:%s", path, usualAdmin)}
		}
		c.Address = file.Admin.Address[0]
		for _, a := range file.Admin.Address {
			if strings.HasPrefix(a, "unix:") {
				c.Address = a
				break
			}
		}
		if tokenFile == "" {
			tokenFile = file.Admin.TokenFile
		}
	}
	if tokenFile != "" {
		b, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, fmt.Errorf("the token: %w", err)
		}
		c.Token = strings.TrimSpace(string(b))
	}
	return c, nil
}

// explain says what to do about an error of a client.
func explain(c *adminapi.Client, err error) error {
	var refused *adminapi.Error
	switch {
	case errors.As(err, &refused) && refused.Code == adminapi.Unauthorized:
		return fmt.Errorf("the daemon at %s wants to know its token: --token-file FILE, or -c FILE", c.Address)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: only root and the daemon's user may", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: does it run?", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: it does not run any more", err)
	}
	return err
}
