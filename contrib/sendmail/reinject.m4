dnl # Re-injection in sendmail.mc, beside sealmilter.m4 and in front of the MAILER
dnl # lines: with it a message can have recipients with a key and others in one
dnl # transaction. README.md says what the daemon is told.
dnl #
dnl # The service that takes the sealed copies: on loopback, and without filters.
dnl # The empty list is what keeps them away; without it the copies would come to
dnl # sealmilter again. For 127.0.0.1 Sendmail relays by itself.
dnl # Where sendmail.mc has no DAEMON_OPTIONS yet, it must get one for port 25 too,
dnl # DAEMON_OPTIONS(`Name=MTA')dnl: Sendmail adds it only where there is none.
DAEMON_OPTIONS(`Family=inet, Name=Reinject, Port=10026, Addr=127.0.0.1, InputMailFilters=')dnl
dnl # That sealmilter may leave a message in the clear for some and take the others
dnl # out of it. Sendmail finds whom it is to take out by what it makes of the
dnl # address, which sealmilter gives it byte for byte as it came. Without these
dnl # lines such recipients are asked for apart (452).
define(`confMILTER_MACROS_CONNECT', confMILTER_MACROS_CONNECT``, {sealmilter_deletes}'')dnl
LOCAL_CONFIG
D{sealmilter_deletes}yes
