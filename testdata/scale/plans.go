package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sealmilter/testdata/report"
)

// plans asks the server how it finds what lookups ask for, within the functions
// too: by auto_explain, which only a superuser may load. It is asked often
// enough for plans that are kept for every argument.
func plans(ctx context.Context, b *scale) ([]report.Line, error) {
	config, err := pgx.ParseConfig(b.server.url("postgres"))
	if err != nil {
		return nil, err
	}
	seen, indexed := 0, 0
	var scanned string
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) {
		if !strings.Contains(notice.Message, "plan:") {
			return
		}
		seen++
		if strings.Contains(notice.Message, "Seq Scan") {
			scanned = notice.Message
			return
		}
		indexed++
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	const explain = `LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
		SET auto_explain.log_level = notice; SET client_min_messages = notice`
	if _, err := conn.Exec(ctx, explain); err != nil {
		return nil, err
	}
	for range 20 {
		for _, names := range [][]string{
			{address(rand.IntN(b.accounts))},
			{address(rand.IntN(b.accounts)), "@" + domain(rand.IntN(domains))},
			{alias(rand.IntN(b.accounts / aliasOne)), "@" + domain(rand.IntN(domains))},
			{nobody(0), nobody(1), nobody(2), address(3), address(4), alias(5), alias(6), "@" + domain(7)},
		} {
			rows, err := conn.Query(ctx, `SELECT * FROM sealmilter.recipient_keys($1::text[])`, names)
			if err != nil {
				return nil, err
			}
			rows.Close()
			if err := rows.Err(); err != nil {
				return nil, err
			}
		}
	}
	if seen == 0 {
		return nil, fmt.Errorf("auto_explain showed no plan")
	}
	if scanned != "" {
		fmt.Fprintf(os.Stderr, "a plan that does not use the indexes:\n%s\n", scanned)
	}
	return []report.Line{{What: "plans of lookups that read by indexes alone", Kind: report.Count, Ours: float64(indexed), Beside: "plans seen", Theirs: float64(seen), Bar: 1}}, nil
}
