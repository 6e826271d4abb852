// Package job parses fio job files and command lines into jobs with typed
// options.
//
// The grammar is fio's: sections, several [global]s that each concern only the
// sections after them, include, ${ENV}, $pagesize, $mb_memory and $ncpus,
// arithmetic in parentheses, and size suffixes that follow kb_base. An option
// that fio has and this package does not is refused by its name; nothing is
// ignored. Input is not trusted: lines, files, includes and jobs have limits.
package job
