package netbench

import (
	"errors"
	"fmt"
)

// DiffFiles compares two result files, both of the bench or both of fio.
func DiffFiles(old, fresh string, threshold float64) (Report, int, error) {
	// Once: what is behind a pipe is gone then.
	oldData, err := readResults(old)
	if err != nil {
		return Report{}, 0, err
	}
	freshData, err := readResults(fresh)
	if err != nil {
		return Report{}, 0, err
	}
	a, aErr := parseResults(old, oldData, decodeFio)
	b, bErr := parseResults(fresh, freshData, decodeFio)
	switch {
	case aErr == nil && bErr == nil:
		report, n := DiffFio(a, b, threshold)
		return report, n, nil
	case aErr != nil && !errors.Is(aErr, errNotFio):
		return Report{}, 0, aErr
	case bErr != nil && !errors.Is(bErr, errNotFio):
		return Report{}, 0, bErr
	case aErr == nil:
		return Report{}, 0, fmt.Errorf("%s is the JSON of fio, %s is not", old, fresh)
	case bErr == nil:
		return Report{}, 0, fmt.Errorf("%s is the JSON of fio, %s is not", fresh, old)
	}
	before, err := parseResults(old, oldData, decode)
	if err != nil {
		return Report{}, 0, err
	}
	after, err := parseResults(fresh, freshData, decode)
	if err != nil {
		return Report{}, 0, err
	}
	report, n := Diff(before, after, threshold)
	return report, n, nil
}
