package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

type reloadCmd struct {
	adminFlags
}

// Run has the daemon read its configuration again.
func (c *reloadCmd) Run(ctx context.Context, std streams) error {
	client, err := c.client(std)
	if err != nil {
		return err
	}
	return askReload(ctx, client)
}

// askReload has a daemon read its configuration again. The error is the daemon's.
func askReload(ctx context.Context, client *adminapi.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 2*upgradeTimeout)
	defer cancel()
	err := client.Do(ctx, http.MethodPost, "/v1/reload", nil, nil)
	var refused *adminapi.Error
	switch {
	case errors.As(err, &refused) && refused.Code == adminapi.ReloadRefused:
		return fmt.Errorf("reload refused, the old configuration stays in force:\n%w", err)
	case err != nil:
		return fmt.Errorf("reload: %w", explain(client, err))
	}
	return nil
}
