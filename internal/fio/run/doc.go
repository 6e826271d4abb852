// Package run runs jobs: it plans who starts when, lays out files, makes the
// I/O through an engine and counts what happened.
package run
