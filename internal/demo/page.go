package demo

import (
	"context"
	"net"
	"sync"

	"bridged/internal/admin"
	"bridged/internal/admin/page"
)

const usualPage = "127.0.0.1:9883"

// listenPage binds the usual address of the status page, or another port of this machine if that one is taken.
func listenPage() (net.Listener, error) {
	l, err := net.Listen("tcp", usualPage)
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return l, err
}

// showPage serves the status page until the returned function is called.
func (s *stage) showPage() (end func()) {
	a := admin.New(admin.Options{Source: s.bridge, Version: s.opts.Version, Page: page.Handler(), Log: s.log})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { a.Run(ctx) })
	wg.Go(func() {
		if err := a.Serve(ctx, s.page, new(admin.Guard)); err != nil {
			s.fault("the status page: " + err.Error())
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
