# make demo    one message there and back, in seconds
# make test    everything that must hold, with real servers
# make soak interop bench scale fuzz    what takes longer
# make install DESTDIR= PREFIX=   the program, its manual and its sample configuration

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
TIME    ?= 30s

STRIP    = -s -w
LDFLAGS  = $(STRIP) -X main.version=$(VERSION)
# "./..." leaves out what lies below a testdata folder.
PACKAGES = ./... ./testdata/bed ./testdata/bench ./testdata/hostile ./testdata/interop ./testdata/messages ./testdata/mta ./testdata/report ./testdata/scale
MANPAGES = sealmilter.8 sealmilter.toml.5

.PHONY: build demo test test-packages test-breaking test-splitting test-systems deps lint soak interop bench scale fuzz man install clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sealmilter ./cmd/sealmilter

demo: build
	@bin/sealmilter demo testdata/messages/multipart.eml

# Real Postfix, PostgreSQL and gpg are part of the bargain here: a test that
# would be skipped for want of one fails instead. Nothing comes out of the test
# cache: it does not know that the servers are inputs too.
#
# The daemons of testdata/mta are processes of their own, in which the race
# detector of the tests sees nothing. Those tests wait more than they compute:
# thirds of them run beside the others.
BREAKING  = ^Test(Interrupted|Equal|Failover|Change)
SPLITTING = ^Test(Sendmail|Split)
SYSTEMS   = REQUIRE_SERVERS=1 $(GO) test -count 1 -timeout 20m

test: deps lint
	@$(MAKE) --no-print-directory -j4 --output-sync=target test-packages test-breaking test-splitting test-systems
	@GO=$(GO) sh testdata/fuzz.sh 2s brief

test-packages:
	REQUIRE_SERVERS=1 $(GO) test -race -count 1 -timeout 20m $(filter-out ./testdata/mta,$(PACKAGES))

test-breaking:
	$(SYSTEMS) -run '$(BREAKING)' ./testdata/mta

test-splitting:
	$(SYSTEMS) -run '$(SPLITTING)' ./testdata/mta

test-systems:
	$(SYSTEMS) -skip '$(BREAKING)|$(SPLITTING)' ./testdata/mta

deps:
	@sh testdata/bed/install.sh

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) tool staticcheck $(PACKAGES)

# The load test again and again, which finds what happens once in a thousand
# times; and the long versions of interruption, bulk and load, the last of them
# without the race detector, which makes the test slower than what it measures.
soak: deps
	REQUIRE_SERVERS=1 $(GO) test -race -timeout 60m -count 20 -run 'TestLoad|TestReuse|TestBrokenOff|TestShutdown' ./milter
	REQUIRE_SERVERS=1 $(GO) test -race -timeout 60m -count 10 -run TestReload ./testdata/mta
	REQUIRE_SERVERS=1 SEALMILTER_SOAK=1 $(GO) test -timeout 60m -count 1 -v -run 'TestInterrupted|TestEqualMessages|TestBulk|TestSplitLoad|TestChangesUnderLoad' ./testdata/mta

# Everything that reads what we write, by way of real servers, and then the
# matrix: each way to seal against each program that reads.
interop:
	@INTEROP=1 sh testdata/bed/install.sh
	REQUIRE_SERVERS=1 SEALMILTER_INTEROP=1 $(GO) test -count 1 -v -run 'TestPostfix|TestCorpus|TestChoices|TestSMIME|TestThunderbird' ./testdata/mta
	REQUIRE_SERVERS=1 SEALMILTER_INTEROP=1 $(GO) test -count 1 -v -run TestMatrix ./testdata/interop

# Sealing beside gpg, rnp, sqop and openssl, and beside what the ciphers take
# alone: make bench BENCH='--json FILE', --strict, --quick, --only GROUP.
bench: deps build
	@$(GO) run ./testdata/bench $(BENCH)

# The keys of very many users in a real PostgreSQL, started for it: how fast
# they go in, are found, and change. make scale SCALE='--json FILE', --strict,
# --quick, --only GROUP, --profile FOLDER.
ACCOUNTS ?= 1000000

scale: deps
	@$(GO) run ./testdata/scale --accounts $(ACCOUNTS) $(SCALE)

# Each target for TIME, and no further than the first that fails.
fuzz:
	@GO=$(GO) sh testdata/fuzz.sh $(TIME)

man: $(MANPAGES:%=bin/%)

bin/%: contrib/man/%.scd
	@mkdir -p bin
	scdoc <$< >$@

# Nothing is built here: this may run as root, without Go in its path. The
# manual needs scdoc; without it the program is installed all the same, but
# not a package.
DOC = $(DESTDIR)$(PREFIX)/share/doc/sealmilter
MAN = $(DESTDIR)$(PREFIX)/share/man
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd

install:
	@test -x bin/sealmilter || { echo "there is no bin/sealmilter: run make first"; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/sbin $(DOC)/postgres $(DOC)/postfix $(DOC)/sendmail $(DOC)/notify
	install -m 0755 bin/sealmilter $(DESTDIR)$(PREFIX)/sbin/sealmilter
	install -m 0644 README.md CHANGELOG.md SECURITY.md LICENSE contrib/sealmilter.toml $(DOC)
	install -m 0644 contrib/postgres/* $(DOC)/postgres
	install -m 0644 contrib/postfix/* $(DOC)/postfix
	install -m 0644 contrib/sendmail/* $(DOC)/sendmail
	install -m 0644 contrib/notify/* $(DOC)/notify
	install -d $(UNITS)/system $(DESTDIR)$(PREFIX)/lib/sysusers.d
	sed 's|/usr/local/sbin|$(PREFIX)/sbin|' contrib/systemd/sealmilter.service >$(UNITS)/system/sealmilter.service
	sed 's|/usr/local/sbin|$(PREFIX)/sbin|' contrib/systemd/sealmilter-notify.service >$(UNITS)/system/sealmilter-notify.service
	chmod 0644 $(UNITS)/system/sealmilter.service $(UNITS)/system/sealmilter-notify.service
	install -m 0644 contrib/systemd/sealmilter.socket contrib/systemd/sealmilter-notify.timer $(UNITS)/system/
	install -m 0644 contrib/systemd/sealmilter.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/sealmilter.conf
	@if command -v scdoc >/dev/null; then \
		$(MAKE) man && install -d $(MAN)/man5 $(MAN)/man8 && \
		install -m 0644 bin/sealmilter.8 $(MAN)/man8/ && \
		install -m 0644 bin/sealmilter.toml.5 $(MAN)/man5/; \
	elif [ -n "$(DESTDIR)" ]; then echo "scdoc is not installed, and a package needs the manual"; exit 1; \
	else echo "scdoc is not installed: the manual pages are left out"; fi

clean:
	rm -rf bin
