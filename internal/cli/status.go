package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bridged/internal/admin"
	"bridged/internal/config"
	"bridged/internal/control"
)

// statusFlags are those of the command.
type statusFlags struct {
	states, clouds []string
	search, sort   string
	failing        bool
	watch, asJSON  bool
	url, tokenFile string
}

// watchEvery is how often --watch looks again.
const watchEvery = 2 * time.Second

func newStatus(o *options) *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status [DEVICE]",
		Short: "Show how the running bridge and its devices are",
		Long: `status asks the bridge that is running how it is: the fleet at a glance, what keeps devices
offline and what to do, and a table of the devices. With a device it tells why that device is
how it is.

Which bridge is meant follows from the state_dir in the configuration file; then no token is
needed, but the user has to be the one that bridged runs as, or root. --url asks another
machine, with the token in --token-file.`,
		Example: `  bridged status
  bridged status boiler-1
  bridged status --failing --sort state
  bridged status --cloud shanghai --state waiting --watch
  bridged status --json | jq '.devices[] | select(.failure)'
  bridged status --url http://192.168.10.2:9883 --token-file token`,
		Args:              takesAtMost("DEVICE"),
		ValidArgsFunction: o.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.adminClient(&f)
			if err != nil {
				return err
			}
			defer c.http.CloseIdleConnections()
			show := func(ctx context.Context, w io.Writer) error { return f.showFleet(ctx, c, w, o.lookupEnv) }
			if len(args) > 0 {
				show = func(ctx context.Context, w io.Writer) error {
					return f.showDevice(ctx, c, args[0], w, o.lookupEnv)
				}
			}
			if !f.watch {
				return show(cmd.Context(), cmd.OutOrStdout())
			}
			return untilSignal(cmd.Context(), terminalEndings, func(ctx context.Context) error {
				return watch(ctx, cmd.OutOrStdout(), show)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.states, "state", nil, "only devices in these `states`")
	flags.StringSliceVar(&f.clouds, "cloud", nil, "only devices of these `clouds`")
	flags.StringVar(&f.search, "search", "", "only devices whose name, cloud, reason or failure has this `text`")
	flags.BoolVar(&f.failing, "failing", false, "only devices that a failure keeps offline")
	flags.StringVar(&f.sort, "sort", "",
		"sort by `what`: "+strings.Join(admin.Orders(), ", ")+`; with "-" before it downwards`)
	flags.BoolVar(&f.watch, "watch", false, "look again every two seconds")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON, as the API gives it")
	flags.StringVar(&f.url, "url", "", "ask the bridge at this `URL` instead of the one on this machine")
	flags.StringVar(&f.tokenFile, "token-file", "", "a `file` with the token for --url")
	_ = cmd.MarkFlagFilename("token-file") // fails for unknown flags only
	complete := func(flag string, words func() []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, // the same
			func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return words(), cobra.ShellCompDirectiveNoFileComp
			})
	}
	complete("state", stateNames)
	complete("cloud", o.cloudNames)
	complete("sort", admin.Orders)
	complete("search", func() []string { return nil })
	complete("url", func() []string { return nil })
	return cmd
}

func stateNames() (names []string) {
	for _, s := range admin.States {
		names = append(names, string(s))
	}
	return names
}

// cloudNames are those of the configuration; one that does not load has none.
func (o *options) cloudNames() (names []string) {
	cfg, err := o.load()
	if err != nil {
		return nil
	}
	for name := range cfg.Clouds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// watch shows something again and again until ctx ends. A terminal shows the latest only.
func watch(ctx context.Context, w io.Writer, show func(context.Context, io.Writer) error) error {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		var page strings.Builder
		err := show(ctx, colourOf{&page, w})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case isTerminal(w):
			fmt.Fprint(w, "\x1b[H\x1b[2J", page.String())
		default:
			fmt.Fprintln(w, page.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// colourOf is a writer that is styled as another one.
type colourOf struct {
	io.Writer
	as io.Writer
}

func isTerminal(w io.Writer) bool {
	if out, ok := w.(*output); ok {
		w = out.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (f *statusFlags) showFleet(ctx context.Context, c *adminClient, w io.Writer, env LookupEnv) error {
	var fleet struct {
		Status  admin.Status          `json:"status"`
		Devices []admin.DeviceSummary `json:"devices"`
	}
	if err := c.get(ctx, "/api/v1/status", nil, &fleet.Status); err != nil {
		return err
	}
	var err error
	if fleet.Devices, err = c.devices(ctx, f.query()); err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(w, fleet)
	}
	p := newStatusPrinter(w, env, fleet.Status.At)
	p.fleet(&fleet.Status)
	p.table(fleet.Devices)
	return nil
}

func (f *statusFlags) query() url.Values {
	q := url.Values{"cloud": f.clouds, "state": f.states}
	if f.search != "" {
		q.Set("q", f.search)
	}
	if f.failing {
		q.Set("failing", "true")
	}
	if f.sort != "" {
		q.Set("sort", f.sort)
	}
	return q
}

func (f *statusFlags) showDevice(ctx context.Context, c *adminClient, name string, w io.Writer, env LookupEnv) error {
	var d admin.Device
	err := c.get(ctx, "/api/v1/devices/"+url.PathEscape(name), nil, &d)
	var refused *refusal
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return misused(refused, cmp.Or(didYouMean(c.similar(ctx, name)), `"bridged status" lists the devices`))
	}
	if err != nil {
		return err
	}
	if f.asJSON {
		return printJSON(w, &d)
	}
	newStatusPrinter(w, env, d.At).device(&d)
	return nil
}

// adminClient asks a running bridge.
type adminClient struct {
	http    *http.Client
	base    string
	token   string
	explain func(error) error
}

// askWithin is how long an answer may take.
const askWithin = 30 * time.Second

func (o *options) adminClient(f *statusFlags) (*adminClient, error) {
	if f.url == "" {
		if f.tokenFile != "" {
			return nil, misused(errors.New("--token-file is for --url"), "without --url no token is needed")
		}
		dir, err := config.StateDir(o.configFile)
		if err != nil {
			return nil, badConfig(err)
		}
		return &adminClient{
			http: &http.Client{Transport: control.Transport(dir), Timeout: askWithin}, base: control.URL,
			explain: func(err error) error { return explainReload(err, dir) },
		}, nil
	}
	u, err := url.Parse(f.url)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, misused(fmt.Errorf("--url %q is no URL of a bridge", f.url), "write for example http://192.168.10.2:9883")
	}
	c := &adminClient{
		http: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}, Timeout: askWithin},
		base: strings.TrimRight(u.Scheme+"://"+u.Host+u.Path, "/"),
		explain: func(err error) error {
			return failed(err, "check the address, and admin.listen in the configuration of that bridge")
		},
	}
	if f.tokenFile != "" {
		token, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return nil, misused(fmt.Errorf("--token-file: %w", err), "")
		}
		c.token = strings.TrimSpace(string(token))
	}
	return c, nil
}

// refusal is an answer that is none.
type refusal struct{ admin.Fault }

func (r *refusal) Error() string {
	return cmp.Or(r.Detail, r.Title, fmt.Sprintf("status %d", r.Status))
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 20

func (c *adminClient) get(ctx context.Context, path string, q url.Values, to any) error {
	address := c.base + path
	if len(q) > 0 {
		address += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		r := &refusal{admin.Fault{Status: resp.StatusCode, Title: resp.Status}}
		_ = body.Decode(&r.Fault) // something else may be there
		switch resp.StatusCode {
		case http.StatusBadRequest:
			return misused(r, `"bridged status --help" tells what it takes`)
		case http.StatusUnauthorized: // what is said there is for browsers and programs
			r.Remedy = "write --token-file FILE; the token is admin.token in the configuration of that bridge"
		}
		return failed(r, r.Remedy)
	}
	if err := body.Decode(to); err != nil {
		return fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	return nil
}

// devicesAtOnce is how many devices are asked for at once.
const devicesAtOnce = 5000

// devices are all that a query finds.
func (c *adminClient) devices(ctx context.Context, q url.Values) ([]admin.DeviceSummary, error) {
	all := []admin.DeviceSummary{}
	q.Set("limit", strconv.Itoa(devicesAtOnce))
	for {
		q.Set("offset", strconv.Itoa(len(all)))
		var list admin.DeviceList
		if err := c.get(ctx, "/api/v1/devices", q, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Devices...)
		if len(list.Devices) == 0 || len(all) >= list.Matching {
			return all, nil
		}
	}
}

// similar are devices that may have been meant.
func (c *adminClient) similar(ctx context.Context, name string) []string {
	devices, err := c.devices(ctx, url.Values{})
	if err != nil {
		return nil
	}
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name
	}
	return nearest(name, names)
}
