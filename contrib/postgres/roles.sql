-- Makes the role with which the daemon connects: it may call
-- sealmilter.recipient_keys and do nothing else. Load it as a superuser (or as
-- a role that owns the schema and may make roles), after sealmilter migrate or
-- after postfixadmin.sql; it may be loaded again at any time:
--
--   psql -d mail -f roles.sql
--
-- The role has no password. Either give it one, and name it in the daemon's
-- connection string,
--
--   \password sealmilter
--   postgres://sealmilter:...@db.example.org/mail?sslmode=verify-full
--
-- or let the system's user sealmilter in without one, over the unix socket of
-- the same machine; pg_hba.conf (peer is Debian's default for local):
--
--   local   mail   sealmilter   peer
--   host=/run/postgresql dbname=mail user=sealmilter

\set ON_ERROR_STOP on

SELECT 'CREATE ROLE sealmilter LOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sealmilter') \gexec

-- Every role may connect to a new database; some sites take that right away.
SELECT format('GRANT CONNECT ON DATABASE %I TO sealmilter', current_database()) \gexec

GRANT USAGE ON SCHEMA sealmilter TO sealmilter;
REVOKE EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]) TO sealmilter;
