package crash

import (
	"strings"
	"testing"
)

// What the other tests rely on notices what it should.
func TestOrder(t *testing.T) {
	t.Parallel()
	type links [][]int
	for name, c := range map[string]struct {
		came  links
		sent  []int
		again int    // if sent is not known
		want  string // of the fault, "" for none
	}{
		"in order":                {came: links{{0, 1, 2, 3}}, sent: []int{0, 1, 2, 3}},
		"again on the next":       {came: links{{0, 1, 2}, {0, 1, 2, 3}}, sent: []int{0, 1, 2, 3}},
		"sent again":              {came: links{{0, 1, 2, 1, 2, 3}}, sent: []int{0, 1, 2, 1, 2, 3}},
		"sent again, came twice":  {came: links{{0, 1, 2, 1, 2}, {1, 2, 1, 2, 3}}, sent: []int{0, 1, 2, 1, 2, 3}},
		"one was acknowledged":    {came: links{{0, 1, 2}, {0, 2, 3}}, sent: []int{0, 1, 2, 3}},
		"again without reason":    {came: links{{0, 1, 2, 1, 2, 3}}, sent: []int{0, 1, 2, 3}, want: "1 came where"},
		"twice without reason":    {came: links{{0, 1, 1, 2, 3}}, sent: []int{0, 1, 2, 3}, want: "1 came where"},
		"backwards":               {came: links{{0, 1, 2}, {2, 1, 0, 3}}, sent: []int{0, 1, 2, 1, 3}, want: "0 came where"},
		"lost":                    {came: links{{0, 1, 3}}, sent: []int{0, 1, 2, 3}, want: "are lost: [2]"},
		"late":                    {came: links{{0, 1, 3, 2}}, sent: []int{0, 1, 2, 3, 2}, want: "2 came late"},
		"the last is lost":        {came: links{{0, 1, 2}}, sent: []int{0, 1, 2, 3}, want: "those after 2"},
		"may have been again":     {came: links{{0, 1, 2, 1, 2, 3}}, again: 1},
		"more than may have been": {came: links{{0, 1, 0, 1, 2, 1, 2, 3}}, again: 1, want: "2 times"},
	} {
		o := order{device: "dev"}
		for i, numbers := range c.came {
			for _, n := range numbers {
				o.take(n, int64(i))
			}
		}
		err := o.check(4, source{sent: c.sent, repeats: c.again})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
