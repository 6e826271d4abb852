package main

import (
	"log/slog"
	"strings"
)

// oneLine is an error, several joined ones too, in one line of a log.
type oneLine struct{ error }

func (e oneLine) LogValue() slog.Value {
	if e.error == nil {
		return slog.Value{}
	}
	return slog.StringValue(strings.ReplaceAll(e.Error(), "\n", "; "))
}
