package page

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"bridged/internal/failure"
)

func evaluate(expression string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](expression)
}

// The keyboard gets everywhere, and one sees where it is.
func TestKeyboard(t *testing.T) {
	f := fleet(3)
	f.change(2, failing(failure.ProxyAuthRequired))
	p := open(t, serve(t, f, "").url())
	p.until("document.querySelectorAll('.devices tbody tr').length === 3")
	visible := func() {
		t.Helper()
		p.until(`(() => {
			const e = document.activeElement;
			const styles = [getComputedStyle(e), getComputedStyle(e, "::after")];
			return styles.some((s) => s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2);
		})()`)
	}
	p.tabTo("#skip", 1)
	visible()
	p.until("document.activeElement.getBoundingClientRect().left >= 0")
	p.press("\r")
	p.until("document.activeElement.id === 'main'")
	for _, stop := range []string{".banner a", ".banner summary", ".tiles a", ".wide", ".clouds a", "#search"} {
		p.tabTo(stop, 8)
		visible()
	}
	p.press("dev-0002")
	p.says(".count", "1 of 3 devices")
	p.tabTo("#state", 1)
	visible()
	p.tabTo(".clear", 4)
	visible()
	p.tabTo(".devices thead button", 1)
	visible()
	p.press("\r")
	p.until("document.querySelector('.devices th[aria-sort]').innerText.startsWith('Device')")
	p.tabTo(".devices tbody a", 10)
	visible()
	// The focus stays when rows move.
	f.change(0, failing(failure.ProxyUnreachable))
	p.says(".tiles [data-group=offline] .n", "1")
	p.until("document.activeElement.matches('.devices tbody a')")
	p.press("\r")
	p.says("h1", "dev-0002")
	p.until("document.activeElement.matches('h1')")
	p.do(chromedp.NavigateBack())
	p.says(".count", "1 of 3 devices")
	p.until("document.activeElement.matches('h1')")
}

// axe-core finds nothing that keeps people from using the page, whichever view it is.
func TestAccessible(t *testing.T) {
	f := troubled(30)
	open1, closed := serve(t, f, ""), serve(t, f, "token")
	for _, tc := range []struct {
		name, url, ready string
		expected         []string
	}{
		{"fleet", open1.url(), ".devices tbody tr", nil},
		{"filtered", open1.url() + "#/?state=offline&kind=proxy_unreachable", ".devices tbody tr", nil},
		{"empty", open1.url() + "#/?q=nothing", ".empty:not([hidden])", nil},
		{"device", open1.url() + "#/devices/dev-0003", ".timeline li", nil},
		{"online", open1.url() + "#/devices/dev-0000", ".timeline li", nil},
		{"none", open1.url() + "#/devices/none", ".device .titles", []string{"404"}},
		{"login", closed.url(), "#token", []string{"401"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := open(t, tc.url, tc.expected...)
			p.until("document.querySelector('" + tc.ready + "')")
			accessible(p)
		})
	}
}

// accessible holds what is shown against axe-core's rules, in light and dark, on a desktop's screen and on a phone's,
// where nothing may be wider than the screen.
func accessible(p *tab) {
	p.t.Helper()
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		p.t.Fatalf("%v; npm ci in test/page installs it", err)
	}
	p.do(evaluate(string(axe)))
	for _, look := range []struct {
		name  string
		width int64
		dark  bool
	}{{"light", 1280, false}, {"dark", 1280, true}, {"phone", 360, false}, {"phone-dark", 360, true}} {
		p.size(look.width, 800, look.width < 500)
		p.dark(look.dark)
		p.shot(strings.ReplaceAll(p.t.Name(), "/", "-") + "-" + look.name)
		for _, v := range violations(p) {
			p.t.Errorf("%s: %s (%s): %s\n%s", look.name, v.ID, v.Impact, v.Help, v.Nodes)
		}
		if wide := eval[int](p, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); wide > 0 {
			p.t.Errorf("%s: it is %d pixels too wide", look.name, wide)
		}
	}
	p.size(1280, 900, false)
	p.dark(false)
}

type violation struct {
	ID, Impact, Help string
	Nodes            json.RawMessage
}

// violations are all that axe-core finds but trifles.
func violations(p *tab) []violation {
	p.t.Helper()
	return eval[[]violation](p, `axe.run(document, { resultTypes: ["violations"] }).then((found) => found.violations
		.filter((v) => v.impact !== "minor")
		.map((v) => ({
			id: v.id, impact: v.impact, help: v.help,
			nodes: v.nodes.map((n) => n.html.slice(0, 200) + " " + n.failureSummary),
		})))`)
}

// On a phone a device's subscriptions are there to be read, not to be scrolled sideways for.
func TestSubscriptionsOnPhone(t *testing.T) {
	p := open(t, serve(t, fleet(1), "").url()+"#/devices/dev-0000")
	p.until("document.querySelector('.subscriptions tbody tr')")
	p.size(360, 800, true)
	p.until("matchMedia('(max-width: 46rem)').matches")
	if wide := eval[int](p, `(() => {
		const box = document.querySelector(".subscriptions").parentElement;
		return box.scrollWidth - box.clientWidth;
	})()`); wide > 0 {
		t.Errorf("the table is %d pixels too wide", wide)
	}
	if lines := eval[float64](p, `(() => {
		const cell = document.querySelector(".subscriptions tbody th");
		return cell.getBoundingClientRect().height / parseFloat(getComputedStyle(cell).lineHeight);
	})()`); lines > 2.5 {
		t.Errorf("a filter takes %.1f lines", lines)
	}
}
