package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sealmilter/keys/postgres"
	"sealmilter/keys/sqlite"
)

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Create the key store's tables, or bring them up to date",
		Long: `migrate creates the tables and functions of the key store where there are
none, and brings those of an earlier version up to date. Run again, it does
nothing.

It runs with the rights of the user that the store's URL names. In PostgreSQL
that must be one who may create tables and functions, while the daemon's own
user should not be: name the administrator's with --store.`,
		Args: positional(cobra.NoArgs),
		RunE: runMigrate,
	}
}

func runMigrate(cmd *cobra.Command, _ []string) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	name, err := parseStoreURL(cfg.Store.URL)
	if err != nil {
		return cfg.invalid(keyStoreURL, "%w", err)
	}
	from, to, err := migrateStore(cmd.Context(), cfg, name)
	if err != nil {
		return err
	}
	outcome := fmt.Sprintf("brought from version %d to version %d", from, to)
	switch from {
	case to:
		outcome = fmt.Sprintf("is at version %d already, nothing was to be done", to)
	case 0:
		outcome = fmt.Sprintf("created at version %d", to)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, outcome)
	return err
}

// migrateStore creates or upgrades the store.
func migrateStore(ctx context.Context, cfg Config, name storeName) (from, to int64, err error) {
	if name.kind == kindSQLite {
		from, to, err = sqlite.Migrate(ctx, name.target)
		return from, to, storeError(name, err)
	}
	// Opening reads the connection string and connects to nothing: one that
	// cannot be read is the configuration's fault and not the server's.
	st, err := openStore(ctx, cfg)
	if err != nil {
		return 0, 0, err
	}
	st.Close()
	from, to, err = postgres.Migrate(ctx, name.target)
	return from, to, storeError(name, err)
}
