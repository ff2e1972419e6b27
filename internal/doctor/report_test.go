package doctor

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// Programs rely on the names: each is documented.
func TestNamesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			look(typ.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if typ.PkgPath() != reflect.TypeFor[Report]().PkgPath() {
			return
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			seen++
			if name == "" || !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("%s.%s: %q is not documented", typ.Name(), f.Name, name)
			}
			look(f.Type)
		}
	}
	look(reflect.TypeFor[Report]())
	if seen < 50 {
		t.Errorf("%d names only", seen)
	}
}

// Every stage is documented, too.
func TestStagesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Stage{
		Configuration, Secrets, Clock, Daemon, DNS, TCP, Proxy, TLS, Upgrade, Connect, Subscribe, Publish, Goodbye,
	} {
		if !strings.Contains(string(doc), "`"+string(s)+"`") {
			t.Errorf("%s is not documented", s)
		}
	}
}
