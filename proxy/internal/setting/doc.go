// Package setting reads and completes the values of configurations by
// reflection: what a scalar of a file is, what a field's tags say.
//
// The tags:
//
//	yaml:"name"           the key
//	yaml:"name,required"  it must be there
//	yaml:"name,short"     a scalar in the place of the structure stands for this field
//	yaml:",inline"        the fields of the structure are the outer one's
//	yaml:"-"              no key
//	default:"30s"         what the zero value stands for
package setting
