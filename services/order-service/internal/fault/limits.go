package fault

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of a parameter stand in its tags, where the OpenAPI document has them from. A lease
// that comes from the file is held to the same ones.

func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

// within checks a parameter that is given.
func within(field reflect.StructField, value reflect.Value) error {
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	wrong := func(format string, args ...any) error {
		return &InvalidError{"params." + jsonName(field), fmt.Sprintf(format, args...)}
	}
	switch value.Kind() {
	case reflect.String:
		if pattern := field.Tag.Get("pattern"); !regexp.MustCompile(pattern).MatchString(value.String()) {
			return wrong("must be %s", field.Tag.Get("patternDescription"))
		}
		if most, given := limit(field, "maxLength"); given && utf8.RuneCountInString(value.String()) > int(most) {
			return wrong("must have at most %g characters", most)
		}
	case reflect.Float64, reflect.Int:
		number := 0.0
		if value.CanFloat() {
			number = value.Float()
		} else {
			number = float64(value.Int())
		}
		if least, given := limit(field, "minimum"); given && !(number >= least) {
			return wrong("must be at least %g", least)
		}
		if above, given := limit(field, "exclusiveMinimum"); given && !(number > above) {
			return wrong("must be above %g", above)
		}
		if most, given := limit(field, "maximum"); given && !(number <= most) {
			return wrong("must be at most %g", most)
		}
	}
	return nil
}

func limit(field reflect.StructField, tag string) (float64, bool) {
	text, given := field.Tag.Lookup(tag)
	if !given {
		return 0, false
	}
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err) // the tags are part of this program
	}
	return number, true
}
