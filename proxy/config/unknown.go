package config

import (
	"fmt"

	"github.com/spliced-io/spliced/internal/nearest"
)

// unknown says that there is no such key, and which one was meant.
func unknown(key string, keys []string) string {
	return fmt.Sprintf("there is no key %q here: %s", key, nearest.Want(key, keys))
}
