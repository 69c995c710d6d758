package postgres

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sealmilter/testdata/bed"
)

// TestImport measures what the triggers cost an import, beside version 4, which
// had neither events nor notifications: SEALMILTER_IMPORT=1000000 is how many keys.
func TestImport(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("SEALMILTER_IMPORT"))
	if err != nil {
		t.Skip("SEALMILTER_IMPORT says how many keys to import")
	}
	server := bed.StartPostgres(t)
	ctx := context.Background()
	random := rand.NewChaCha8([32]byte{})
	key := func(i int) string { // as long as one of Curve25519 with a name, and no shorter in the table
		data := make([]byte, 600)
		random.Read(data)
		return fmt.Sprintf("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n%s\n-----END PGP PUBLIC KEY BLOCK-----\n", base64.StdEncoding.EncodeToString(data))
	}
	least := make(map[bool]time.Duration)
	for range 3 {
		for _, current := range []bool{false, true} {
			database := migrated(t, server)
			if !current {
				goDown(t, server, database, 5)
			}
			conn, err := pgx.Connect(ctx, server.URL("postgres", database))
			if err != nil {
				t.Fatal(err)
			}
			before, began := cpuOf(t, conn.PgConn().PID()), time.Now()
			_, err = conn.CopyFrom(ctx, pgx.Identifier{"sealmilter", "keys"}, []string{"address", "key"}, pgx.CopyFromSlice(count, func(i int) ([]any, error) {
				return []any{fmt.Sprintf("user%d@example.org", i), key(i)}, nil
			}))
			if err != nil {
				t.Fatal(err)
			}
			took := cpuOf(t, conn.PgConn().PID()) - before
			t.Logf("current %v: %d keys in %v of CPU, %v by the clock", current, count, took, time.Since(began).Round(time.Millisecond))
			if least[current] == 0 || took < least[current] {
				least[current] = took
			}
			conn.Close(ctx)
		}
	}
	if least[true] > 2*least[false] {
		t.Errorf("the import takes %v, and took %v", least[true], least[false])
	}
}

// cpuOf is the time that a server's process has computed.
func cpuOf(t *testing.T, pid uint32) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
