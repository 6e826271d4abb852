package config

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// The least and most characters of a token.
const (
	leastToken = 16
	mostToken  = 4096
)

// ReadToken reads the word that operators must know, "" where there is no token file,
// and says who may read that.
func (a *Admin) ReadToken() (token string, mode fs.FileMode, err error) {
	if a.TokenFile == "" {
		return "", 0, nil
	}
	info, err := os.Stat(a.TokenFile)
	var b []byte
	if err == nil && info.Size() <= mostToken {
		b, err = os.ReadFile(a.TokenFile)
	}
	token = strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("token_file: %w", err)
	case len(token) < leastToken || len(b) > mostToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", 0, fmt.Errorf("token_file %s: want one word of %d characters or more, like that of: openssl rand -hex 32", a.TokenFile, leastToken)
	}
	return token, info.Mode(), nil
}
