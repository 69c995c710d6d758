package bed

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStandby(t *testing.T) {
	primary := StartPostgres(t)
	standby := primary.StartStandby(t)
	shell := standby.Shell(t, "postgres")
	ask := func(sql string) string {
		t.Helper()
		said, err := shell.Do(sql)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(said)
	}
	primary.SQL(t, "postgres", "CREATE TABLE t AS SELECT 1 AS n")
	standby.CatchUp(t, primary)
	if got := ask("SELECT n FROM t;"); got != "1" {
		t.Errorf("the standby has %s", got)
	}
	if got := ask("UPDATE t SET n = 2;"); !strings.Contains(got, "read-only transaction") {
		t.Errorf("the standby can be written to: %s", got)
	}

	standby.Delay(t, 400*time.Millisecond)
	begun := time.Now()
	primary.SQL(t, "postgres", "UPDATE t SET n = 3")
	standby.CatchUp(t, primary)
	if took := time.Since(begun); took < 400*time.Millisecond {
		t.Errorf("the standby was as far after %v", took)
	}

	primary.Freeze(t)
	answered := make(chan error, 1)
	other := primary.Shell(t, "postgres")
	go func() {
		_, err := other.Do("SELECT 1;")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("what is frozen has answered, error %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	primary.Thaw(t)
	if err := <-answered; err != nil {
		t.Error(err)
	}

	primary.StopFast(t)
	standby.Promote(t)
	if got := ask("UPDATE t SET n = n + 1 RETURNING n;"); got != "4" {
		t.Errorf("the promoted standby says %s", got)
	}
}

func TestSQLiteShell(t *testing.T) {
	shell := SQLiteShell(t, filepath.Join(Dir(t), "db"))
	for n := range 3 {
		said, err := shell.Do("CREATE TABLE IF NOT EXISTS t (n); INSERT INTO t VALUES (1); SELECT count(*) FROM t;")
		if want := fmt.Sprintf("%d\n", n+1); said != want || err != nil {
			t.Errorf("it says %q, error %v, want %q", said, err, want)
		}
	}
	if said, err := shell.Do("SELECT absent;"); !strings.Contains(said, "no such column") || err != nil {
		t.Errorf("it says %q, error %v", said, err)
	}
}
