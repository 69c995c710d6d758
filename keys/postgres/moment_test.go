package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sealmilter/keys"
	"sealmilter/testdata/bed"
)

// TestWatchMove: a key that is moved within a mailbox, by one transaction, is
// there at every moment, for whoever asks the cache as well.
func TestWatchMove(t *testing.T) {
	server := bed.StartPostgres(t)
	database := migrated(t, server)
	for _, hosts := range []int{1, 2} {
		t.Run(fmt.Sprint(hosts, " hosts"), func(t *testing.T) {
			server.SQL(t, database, `DELETE FROM sealmilter.accounts; INSERT INTO sealmilter.keys (address, key) VALUES ('ann@xn--bcher-kva.example', 'ANN')`)
			dsn := fmt.Sprintf("postgres://sealmilter@127.0.0.1:%d/%s?sslmode=disable", server.Port, database)
			if hosts == 2 {
				dsn = fmt.Sprintf("postgres://sealmilter@127.0.0.1:%d,%s:%d/%s?sslmode=disable", server.Port, "localhost", server.Port, database)
			}
			s := opened(t, dsn, Options{})
			cache, _, _ := remembering(t, s)
			admin := opened(t, server.URL("postgres", database), Options{})
			var clear, asked atomic.Int64
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan bool, 3)
			for range 3 {
				go func() {
					for ctx.Err() == nil {
						found, err := keys.Lookup(context.Background(), cache, keys.Naming{}, []string{"ann@bücher.example"})
						if err != nil {
							t.Error(err)
							break
						}
						asked.Add(1)
						if a := found["ann@bücher.example"].Accounts; len(a) == 0 || !a[0].Enrolled() {
							clear.Add(1)
						}
					}
					done <- true
				}()
			}
			for end := time.Now().Add(8 * time.Second); time.Now().Before(end) && clear.Load() == 0; {
				for _, to := range []string{"ann@bücher.example", "ann@xn--bcher-kva.example"} {
					if _, err := admin.pool.Exec(ctx, `UPDATE sealmilter.accounts SET address = $1`, to); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			cancel()
			for range 3 {
				<-done
			}
			if n := clear.Load(); n > 0 {
				t.Errorf("%d of %d lookups found no key, which was there all the time", n, asked.Load())
			}
		})
	}
}
