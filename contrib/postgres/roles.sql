-- Makes the roles that are none of the owner's:
--
--   sealmilter         the daemon: it may call sealmilter.recipient_keys, and
--                      the three functions that remember copies in flight
--   sealmilter_portal  the self-service page: it may call the functions whose
--                      names begin with portal_, each for one user
--   sealmilter_admin   administrators of the keys, by GRANT sealmilter_admin TO
--                      ann: they write accounts, keys and aliases, and read
--                      what was done
--
-- The last two only where the tables are sealmilter's own. Load it as a
-- superuser (or as a role that owns the schema and may make roles), after
-- sealmilter migrate or after postfixadmin.sql and copies.sql, and after every
-- later migrate: a function that has come since is nobody's to call. It may be
-- loaded again at any time:
--
--   psql -d mail -f roles.sql
--
-- The roles have no password. Either give one to the role, and name it in the
-- daemon's connection string,
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

-- Names are looked up where nobody but a superuser can make any. What a function
-- of somebody else answered here would be run as a superuser.
SET search_path = pg_catalog, pg_temp;

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

-- What follows is for sealmilter's own tables, as the present version has them.
SELECT to_regprocedure('sealmilter.portal_keys(text)') IS NOT NULL AS own \gset
\if :own

SELECT 'CREATE ROLE sealmilter_portal LOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sealmilter_portal') \gexec
SELECT 'CREATE ROLE sealmilter_admin NOLOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sealmilter_admin') \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO sealmilter_portal, sealmilter_admin', current_database()) \gexec
GRANT USAGE ON SCHEMA sealmilter TO sealmilter_portal, sealmilter_admin;

GRANT EXECUTE ON FUNCTION sealmilter.portal_keys(text), sealmilter.portal_propose(text, text, text),
  sealmilter.portal_challenge(text, bigint, bytea, timestamptz), sealmilter.portal_confirm(text, bigint, bytea, boolean),
  sealmilter.portal_retire(text, bigint), sealmilter.portal_remove(text, bigint),
  sealmilter.portal_enabled(text, boolean), sealmilter.portal_choices(text, text, text) TO sealmilter_portal;

GRANT SELECT, INSERT, UPDATE, DELETE ON sealmilter.accounts, sealmilter.keys, sealmilter.aliases TO sealmilter_admin;
GRANT SELECT, INSERT, DELETE ON sealmilter.warnings TO sealmilter_admin;
GRANT SELECT ON sealmilter.events, sealmilter.schema_version TO sealmilter_admin;
GRANT EXECUTE ON FUNCTION sealmilter.recipient_keys(text[]), sealmilter.alias_ends(text),
  sealmilter.rotate_key(text, text, text, jsonb), sealmilter.retire_others(bigint), sealmilter.method_of(text),
  sealmilter.challenge_key(bigint, bytea, timestamptz), sealmilter.confirm_key(bigint, bytea, boolean) TO sealmilter_admin;
\endif

RESET search_path;
