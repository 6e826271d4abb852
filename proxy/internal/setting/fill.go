package setting

import "reflect"

// Fill gives each zero field of v, a pointer to a structure, its default, in all
// structures that it reaches. What v's maps, slices and pointers point to is
// copied, never changed.
func Fill(v any) { fill(reflect.ValueOf(v).Elem()) }

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range Fields(v.Type()) {
			fv := v.FieldByIndex(f.Index)
			if fv.IsZero() && f.Default != "" {
				setDefault(fv, f)
			}
			fill(fv)
		}
	case reflect.Map:
		if v.IsNil() {
			return
		}
		filled := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(it.Value())
			fill(e)
			filled.SetMapIndex(it.Key(), e)
		}
		v.Set(filled)
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
			return
		}
		filled := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(filled, v)
		for i := range filled.Len() {
			fill(filled.Index(i))
		}
		v.Set(filled)
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
			return
		}
		filled := reflect.New(v.Type().Elem())
		filled.Elem().Set(v.Elem())
		fill(filled.Elem())
		v.Set(filled)
	}
}

func setDefault(v reflect.Value, f Field) {
	if v.Kind() == reflect.Slice {
		e := reflect.New(v.Type().Elem()).Elem()
		mustSet(e, f)
		v.Set(reflect.Append(v, e))
		return
	}
	mustSet(v, f)
}

func mustSet(v reflect.Value, f Field) {
	if err := SetText(v, f.Default); err != nil {
		panic("setting: default of " + f.Owner.Name() + "." + f.Name + ": " + err.Error())
	}
}
