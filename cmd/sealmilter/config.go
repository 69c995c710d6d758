package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sealmilter/milter"
	"sealmilter/policy"
)

// Config is the effective configuration. Its tree and its toml tags are the
// keys of the configuration file; contrib/sealmilter.toml explains them.
type Config struct {
	Milter     MilterConfig     `toml:"milter"`
	Store      StoreConfig      `toml:"store"`
	Storage    StorageConfig    `toml:"storage"`
	Recipients RecipientsConfig `toml:"recipients"`
	Policy     PolicyConfig     `toml:"policy"`
	Reinject   ReinjectConfig   `toml:"reinject"`
	Sealing    SealingConfig    `toml:"sealing"`
	Notify     NotifyConfig     `toml:"notify"`
	Spool      SpoolConfig      `toml:"spool"`
	Log        LogConfig        `toml:"log"`

	// File is the configuration file that was read, "" where there is none.
	File string `toml:"-"`

	// origins names the place that each setting comes from, as an error
	// should: "FILE:LINE:COL", "--store" or "SEALMILTER_STORE". What is not
	// in it has its default.
	origins map[string]string

	// policy is what storage.encryption.enable and [policy] say, with the
	// global keys read from their files, of which the fingerprints are here.
	policy      policy.Policy
	globalFiles map[string][]string

	// actor is who stands behind what a command does, for the store's events.
	actor string
}

// MilterConfig is how the MTA reaches the daemon.
type MilterConfig struct {
	Listen          listenList `toml:"listen"`
	Mode            fileMode   `toml:"mode"`
	Group           string     `toml:"group"`
	ShutdownTimeout duration   `toml:"shutdown_timeout"`
	MaxConnections  int        `toml:"max_connections"`
	SizeLimit       size       `toml:"size_limit"`
}

// StoreConfig is where the keys are.
type StoreConfig struct {
	URL     string      `toml:"url"`
	Timeout duration    `toml:"timeout"`
	Cache   CacheConfig `toml:"cache"`
}

// CacheConfig is what the daemon remembers of the store.
type CacheConfig struct {
	Size         size     `toml:"size"`
	TTL          duration `toml:"ttl"`
	NoKeyTTL     duration `toml:"no_key_ttl"`
	OwnTablesTTL duration `toml:"own_tables_ttl"`
}

// StorageConfig has the names that Stalwart gives the same settings.
type StorageConfig struct {
	Encryption EncryptionConfig `toml:"encryption"`
}

// EncryptionConfig switches sealing on and off for everybody.
type EncryptionConfig struct {
	Enable bool `toml:"enable"`
	Append bool `toml:"append"`
}

// SpoolConfig is where sealed mail is held until its end is seen.
type SpoolConfig struct {
	Directory string `toml:"directory"`
	Memory    size   `toml:"memory"`
	Total     size   `toml:"total"`
}

// minSpoolTotal is room for one ordinary message.
const minSpoolTotal size = 1 << 20

// LogConfig is what is logged, and how.
type LogConfig struct {
	Level     logLevel `toml:"level"`
	Format    string   `toml:"format"`
	Addresses bool     `toml:"addresses"`
}

// The environment variables that name what the file names too.
const (
	envStore  = "SEALMILTER_STORE"
	envListen = "SEALMILTER_LISTEN"
)

// The settings that the environment and flags can give.
const (
	keyStoreURL = "store.url"
	keyListen   = "milter.listen"
)

func defaultConfig() Config {
	return Config{
		Milter: MilterConfig{
			Listen:          listenList{"inet:127.0.0.1:8890"},
			Mode:            0o660,
			ShutdownTimeout: duration(60 * time.Second),
			MaxConnections:  500,
		},
		Store: StoreConfig{
			Timeout: duration(5 * time.Second),
			Cache:   CacheConfig{Size: 64 << 20, TTL: duration(time.Hour), NoKeyTTL: duration(10 * time.Second)},
		},
		Storage:    StorageConfig{Encryption: EncryptionConfig{Enable: true}},
		Recipients: RecipientsConfig{Delimiter: "+", Separate: separates[milter.SeparateUndisclosed]},
		Policy:     defaultPolicyConfig(),
		Reinject:   ReinjectConfig{Protocol: "smtp", Timeout: duration(60 * time.Second)},
		Sealing:    SealingConfig{HeaderProtection: protectionOff},
		Notify:     defaultNotifyConfig(),
		Spool:      SpoolConfig{Memory: 1 << 20, Total: 256 << 20},
		Log:        LogConfig{Level: logLevel(slog.LevelInfo), Format: "text"},
	}
}

// addListenFlag adds --listen, which loadConfig reads where it is there.
func addListenFlag(cmd *cobra.Command) {
	cmd.Flags().StringArray("listen", nil, "`address` to listen on: inet:HOST:PORT, inet6:[ADDRESS]:PORT, unix:/PATH or systemd: for the sockets that systemd passes; may be given several times")
}

// loadConfig reads the configuration file and lays the environment and the
// command line over it. Every error is a configuration error, exit code 78.
func loadConfig(cmd *cobra.Command) (Config, error) {
	cfg := defaultConfig()
	cfg.origins = make(map[string]string)
	if err := cfg.readFile(cmd); err != nil {
		return Config{}, err
	}
	cfg.readEnvironment()
	cfg.readFlags(cmd)
	if err := cfg.validate(); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

// readFile reads the file that --config names, which must be there, or the
// default one, which need not be.
func (c *Config) readFile(cmd *cobra.Command) error {
	flag := cmd.Flag("config")
	name := flag.Value.String()
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !flag.Changed {
		return nil
	}
	if err != nil {
		return configError("reading the configuration: %w", err)
	}
	c.File = name
	return c.parse(name, data)
}

// readEnvironment takes an empty variable for one that is not set, as systemd
// and shells clear them.
func (c *Config) readEnvironment() {
	if url := os.Getenv(envStore); url != "" {
		c.Store.URL, c.origins[keyStoreURL] = url, envStore
	}
	if listen := strings.Fields(os.Getenv(envListen)); len(listen) > 0 {
		c.Milter.Listen, c.origins[keyListen] = listen, envListen
	}
}

func (c *Config) readFlags(cmd *cobra.Command) {
	if flag := cmd.Flag("store"); flag != nil && flag.Changed {
		c.Store.URL, c.origins[keyStoreURL] = flag.Value.String(), "--store"
	}
	if flag := cmd.Flag("listen"); flag != nil && flag.Changed {
		listen, _ := cmd.Flags().GetStringArray("listen") // cannot fail: addListenFlag made it
		c.Milter.Listen, c.origins[keyListen] = listen, "--listen"
	}
}

// validate checks what a type alone cannot: ranges, and what belongs together.
func (c *Config) validate() error {
	for _, address := range c.Milter.Listen {
		if _, _, err := parseListen(address); err != nil {
			return c.invalid(keyListen, "%w", err)
		}
	}
	switch {
	case len(c.Milter.Listen) == 0:
		return c.invalid(keyListen, "it names no address, expected at least one such as \"inet:127.0.0.1:8890\"")
	case c.Milter.ShutdownTimeout < 0:
		return c.invalid("milter.shutdown_timeout", "%s is less than nothing, expected 0s or more", c.Milter.ShutdownTimeout)
	case c.Milter.MaxConnections < 1:
		return c.invalid("milter.max_connections", "%d connections are too few, expected 1 or more", c.Milter.MaxConnections)
	case c.Store.Timeout <= 0:
		return c.invalid("store.timeout", "%s is no time to answer in, expected more than 0s", c.Store.Timeout)
	case c.Store.Cache.Size > maxSize:
		return c.invalid("store.cache.size", "%d bytes are more than any machine has, expected %s", int64(c.Store.Cache.Size), c.Store.Cache.Size.expects())
	case c.Store.Cache.TTL <= 0:
		return c.invalid("store.cache.ttl", "%s is no time to remember, expected more than 0s; size = 0 switches the cache off", c.Store.Cache.TTL)
	case c.Store.Cache.NoKeyTTL < 0:
		return c.invalid("store.cache.no_key_ttl", "%s is less than nothing, expected 0s or more", c.Store.Cache.NoKeyTTL)
	case c.Store.Cache.OwnTablesTTL < 0:
		return c.invalid("store.cache.own_tables_ttl", "%s is less than nothing, expected 0s or more", c.Store.Cache.OwnTablesTTL)
	case c.Spool.Memory > maxSize:
		return c.invalid("spool.memory", "%d bytes are more than any machine has, expected %s", int64(c.Spool.Memory), c.Spool.Memory.expects())
	case c.Spool.Total < minSpoolTotal:
		return c.invalid("spool.total", "%s is less than one message may take, expected %s or more", c.Spool.Total, minSpoolTotal)
	case c.Spool.Total > maxSize:
		return c.invalid("spool.total", "%d bytes are more than any machine has, expected %s", int64(c.Spool.Total), c.Spool.Total.expects())
	case c.Storage.Encryption.Append:
		return c.invalid("storage.encryption.append", "true is not possible: sealing appended messages is not built yet, expected false")
	case !slices.Contains(logFormats, c.Log.Format):
		return c.invalid("log.format", "%q is no format, expected %s", c.Log.Format, quotedList(logFormats))
	}
	for _, validate := range []func() error{c.validateRecipients, c.validateReinject, c.validateNotify} {
		if err := validate(); err != nil {
			return err
		}
	}
	if err := c.makePolicy(time.Now()); err != nil {
		return err
	}
	return c.validateStore()
}

// validateStore wants a store named. A daemon that took no name for an empty
// store would deliver everything plaintext.
func (c *Config) validateStore() error {
	if strings.TrimSpace(c.Store.URL) == "" {
		file := c.File
		if file == "" {
			file = defaultConfigFile
		}
		return configError("no key store is named: add 'url = \"postgres://…\"' under [store] in %s, or set %s, or give --store", file, envStore)
	}
	if _, err := parseStoreURL(c.Store.URL); err != nil {
		return c.invalid(keyStoreURL, "%w", err)
	}
	return nil
}

// invalid is a configuration error that names the place and the setting.
func (c *Config) invalid(key, format string, args ...any) error {
	place := c.origins[key]
	switch {
	case strings.HasPrefix(place, c.File+":") && c.File != "":
		place += ": " + key
	case place == "":
		place = key
	}
	return configError("%s: "+format, append([]any{place}, args...)...)
}
