package page

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

var shots = flag.String("shots", "", "directory for screenshots; none are made without it")

// chromium is the browser; each test has a tab of its own.
var chromium context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "bridged-page-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	allocator, release := chromedp.NewExecAllocator(context.Background(), browserOptions(dir)...)
	browser, closeBrowser := chromedp.NewContext(allocator)
	chromium = browser
	if err := chromedp.Do(browser); err != nil {
		fmt.Fprintln(os.Stderr, "chromium does not start:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(running{m, func() {
		if err := chromedp.Cancel(browser); err != nil { // waits for it to end
			fmt.Fprintln(os.Stderr, "chromium does not end:", err)
		}
		closeBrowser()
		release()
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}})
}

// running ends the browser before leaks are looked for.
type running struct {
	*testing.M
	end func()
}

func (r running) Run() int {
	defer r.end()
	return r.M.Run()
}

func browserOptions(dir string) []chromedp.ExecAllocatorOption {
	return []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(dir),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-default-apps", true),
		chromedp.Flag("disable-extensions", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), // nothing but loopback
		chromedp.WSURLReadTimeout(patience),
	}
}

// patience is how long something that must happen may take.
const patience = 30 * time.Second
