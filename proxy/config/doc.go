// Package config reads the files that say what [spliced run] does: YAML, strict,
// with the place of every mistake.
//
// A file is one or several YAML documents' worth of keys of [File]; nothing but
// these keys is allowed. In a scalar, ${NAME} stands for that environment
// variable, which must be set, ${NAME:-default} for the default where it is not,
// and $$ for a dollar sign. The substitution happens after the YAML was read, so
// that no value can change the structure around it. The key include names
// further files, relative to the one that includes them, with * and ? for any
// characters; what they say is merged, and nothing may be said twice.
//
// [spliced run]: https://github.com/spliced-io/spliced/blob/main/docs/run.md
package config
