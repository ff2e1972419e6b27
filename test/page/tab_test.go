package page

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// tab is one of the browser's, as wide as a desktop's, in light colours.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu   sync.Mutex // protects the following field
	said []string   // in the console
}

// open opens an address. What the console says fails the test in the end, unless it has one of the texts that are
// expected.
func open(t *testing.T, url string, expected ...string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium)
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			b.shot(strings.ReplaceAll(t.Name(), "/", "-") + "-failed")
		}
		cancel()
		b.quiet(expected)
	})
	b.do(chromedp.Steps())
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	b.size(1280, 900, false)
	b.dark(false)
	b.do(chromedp.Navigate(url))
	return b
}

func (b *tab) listen(event any) {
	var says string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		says = e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			says += " " + x.Description
		}
	case *runtime.EventConsoleAPICalled:
		says = string(e.Type)
		for _, a := range e.Args {
			says += " " + string(a.Value) + a.Description
		}
	case *log.EventEntryAdded:
		says = fmt.Sprintf("%s: %s (%s)", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, says)
}

func (b *tab) quiet(expected []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
says:
	for _, s := range b.said {
		for _, e := range expected {
			if strings.Contains(s, e) {
				continue says
			}
		}
		b.t.Errorf("the console says: %s", s)
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if len(steps) > 0 && b.ctx.Err() == nil && chromedp.FromContext(b.ctx).Target == nil {
		ctx = b.ctx // the first one's context is the tab's
	}
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval evaluates an expression, or waits for its promise.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !eval[bool](b, "Boolean("+expression+")") {
		if time.Now().After(deadline) {
			b.t.Fatalf("still not so after %s: %s\nthe page says: %s", patience, expression, b.text("body"))
		}
		<-time.After(10 * time.Millisecond)
	}
}

// says waits until the first element that a selector finds shows a text.
func (b *tab) says(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`((e) => e?.checkVisibility() && e.innerText.replaceAll(/\s+/g, " ").includes(%q))`+
		`(document.querySelector(%q))`, text, selector))
}

// text is what an element shows.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return eval[string](b, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// names are the devices in the table.
func (b *tab) names() []string {
	b.t.Helper()
	return eval[[]string](b, "[...document.querySelectorAll('.devices tbody a')].map((a) => a.innerText)")
}

// row is what the row of a device shows.
func (b *tab) row(name string) string {
	return fmt.Sprintf("[...document.querySelectorAll('.devices tbody tr')]"+
		".find((r) => r.querySelector('a').innerText === %q)?.innerText.replaceAll(/\\s+/g, ' ')", name)
}

// set enters something into a field of the form.
func (b *tab) set(id, value string) {
	b.t.Helper()
	eval[bool](b, fmt.Sprintf(`(() => {
		const field = document.getElementById(%q);
		field.value = %q;
		field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
		return true;
	})()`, id, value))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// press presses keys, as a person would.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// tabTo presses the tabulator until a selector has the focus, at most so many times.
func (b *tab) tabTo(selector string, most int) {
	b.t.Helper()
	for range most {
		b.press(kb.Tab)
		if eval[bool](b, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			return
		}
	}
	has := eval[string](b, "document.activeElement.outerHTML.slice(0, 200)")
	b.t.Fatalf("%s does not get the focus; %s has it", selector, has)
}

func (b *tab) size(width, height int64, phone bool) {
	b.t.Helper()
	if phone {
		b.do(chromedp.EmulateViewport(width, height, chromedp.EmulateMobile))
		return
	}
	b.do(chromedp.EmulateViewport(width, height))
}

func (b *tab) dark(yes bool) {
	b.t.Helper()
	scheme := "light"
	if yes {
		scheme = "dark"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// shot makes a screenshot, if they are wanted.
func (b *tab) shot(name string) {
	b.t.Helper()
	if *shots == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o600)
	}
	if err != nil {
		b.t.Error(err)
	}
}
