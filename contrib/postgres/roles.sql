-- Makes the role with which the daemon connects: it may call
-- sealmilter.recipient_keys, and the three functions that remember copies in
-- flight, and do nothing else. Load it as a superuser (or as a role that owns
-- the schema and may make roles), after sealmilter migrate or after
-- postfixadmin.sql and copies.sql, and after every later migrate: a function
-- that has come since is not the role's to call. It may be loaded again at any
-- time:
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

-- Where copies.sql has not been loaded there are none of them.
SELECT format('REVOKE EXECUTE ON FUNCTION %1$s FROM PUBLIC; GRANT EXECUTE ON FUNCTION %1$s TO sealmilter', f.oid::regprocedure)
  FROM unnest(ARRAY[to_regprocedure('sealmilter.copies_begin(text, bytea[], interval)'),
    to_regprocedure('sealmilter.copies_sent(text, bytea)'),
    to_regprocedure('sealmilter.copies_end(text, bytea[], boolean)')]) AS f (oid)
  WHERE f.oid IS NOT NULL \gexec
