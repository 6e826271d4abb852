package main

import (
	"encoding/json"

	"github.com/spliced-io/spliced/cmd/spliced/internal/adminapi"
)

type openAPICmd struct{}

// Run prints the description of the admin API.
func (c *openAPICmd) Run(std streams) error {
	lines := json.NewEncoder(std.out)
	lines.SetIndent("", "  ")
	lines.SetEscapeHTML(false)
	return lines.Encode(adminapi.OpenAPI())
}
