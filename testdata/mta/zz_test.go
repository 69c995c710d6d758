package mta_test
import ("testing";"time";"fmt";"strings";"sealmilter/testdata/bed")
func TestZZPrefer(t *testing.T){
	for _, attrs := range []string{"", "&target_session_attrs=prefer-standby"} {
	t.Run("x"+attrs, func(t *testing.T){
	w := &written{writers: 4, schema: "sealmilter.", db: newReaders(t).db}
	w.near = w.db.StartStandby(t)
	w.near.CatchUp(t, w.db)
	url := bothServers(w.db, w.near, true)+attrs
	w.shell = func() *bed.Shell { return w.db.Shell(t, database) }
	w.daemon = bed.StartDaemon(t, fmt.Sprintf(writtenConfig, url))
	waitFor(t, "the daemon to hear of changes", func() bool { return strings.Contains(w.daemon.Log(), follows) })
	w.near.Delay(t, 1500*time.Millisecond)
	w.takesEffect(t, 20, 20, 1500*time.Millisecond+time.Second)
	})
	}
}
