package netbench

import (
	"errors"
	"fmt"
)

// DiffFiles compares two result files, both of the bench or both of fio.
func DiffFiles(old, fresh string, threshold float64) (Report, int, error) {
	a, aErr := ReadFio(old)
	b, bErr := ReadFio(fresh)
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
	before, err := ReadFile(old)
	if err != nil {
		return Report{}, 0, err
	}
	after, err := ReadFile(fresh)
	if err != nil {
		return Report{}, 0, err
	}
	report, n := Diff(before, after, threshold)
	return report, n, nil
}
