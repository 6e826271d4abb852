// Command gen writes what go generate asks for in package config.
package main

import (
	"fmt"
	"go/format"
	"os"

	"github.com/spliced-io/spliced/proxy/config/internal/fielddocs"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	docs, err := fielddocs.Read("file.go", "../config.go", "../config_tls.go")
	if err != nil {
		return err
	}
	source, err := format.Source([]byte(fielddocs.Go(docs)))
	if err != nil {
		return err
	}
	return os.WriteFile("docs_gen.go", source, 0o644)
}
