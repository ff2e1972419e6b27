package topicmap

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{
		"product_id": "P", "device_name": "dev/1", "odd": "${product_id}$", "wild": "+", "nul": "\x00",
	}
	tests := []struct{ in, want, wantErr string }{
		{"plain/topic", "plain/topic", ""},
		{"", "", ""},
		{"${product_id}/${device_name}/event", "P/dev/1/event", ""},
		{"${product_id}${product_id}", "PP", ""},
		{"$ota/update/${product_id}", "$ota/update/P", ""},
		{"$", "$", ""},
		{"a$b}", "a$b}", ""},
		{"$${product_id}", "$P", ""},
		{"${odd}/x", "${product_id}$/x", ""},
		{"${produkt}/x", "", `"${produkt}/x": unknown variable ${produkt}; known: ` +
			"${device_name}, ${nul}, ${odd}, ${product_id}, ${wild}"},
		{"${}", "", "unknown variable ${}"},
		{"a/${product_id", "", `"${" without "}"`},
		{"a/${wild}", "", `${wild} is "+", which cannot be part of a topic`},
		{"a/${nul}", "", `${nul} is "\x00", which cannot`},
	}
	for _, tt := range tests {
		got, err := Expand(tt.in, vars)
		switch {
		case tt.wantErr == "" && (err != nil || got != tt.want):
			t.Errorf("Expand(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		case tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)):
			t.Errorf("Expand(%q) = %q, %v; want an error with %q", tt.in, got, err, tt.wantErr)
		}
	}
	if _, err := Expand("${x}", nil); err == nil || !strings.Contains(err.Error(), "there are no variables here") {
		t.Errorf("without variables: %v", err)
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("${a}/$x/${b}", "1", "2")
	f.Add("${a", "", "")
	f.Add("$${a}}", "${b}", "x")
	f.Fuzz(func(t *testing.T, s, a, b string) {
		got, err := Expand(s, map[string]string{"a": a, "b": b})
		if err != nil {
			if !strings.Contains(s, "${") {
				t.Fatalf("Expand(%q) without a variable: %v", s, err)
			}
			return
		}
		if want := strings.NewReplacer("${a}", a, "${b}", b).Replace(s); got != want {
			t.Fatalf("Expand(%q) = %q, want %q", s, got, want)
		}
	})
}
