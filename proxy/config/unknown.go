package config

import (
	"fmt"
	"strings"

	"github.com/spliced-io/spliced/internal/nearest"
)

// unknown says that there is no such key, and which one was meant.
func unknown(key string, keys []string) string {
	const most = 80
	if len(key) > most {
		key = strings.ToValidUTF8(key[:most], "") + "…"
	}
	return fmt.Sprintf("there is no key %q here: %s", key, nearest.Want(key, keys))
}
