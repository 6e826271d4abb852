// Package fio is a benchmark of moving bytes to, from and between files, with
// the job files, the options and the outputs of fio(1).
//
// It is written from fio's documentation and behaviour; none of its code is
// used. See docs/files.md for what is different.
package fio
