-- sealmilter on the tables of PostfixAdmin (3.x, PostgreSQL): the keys stand
-- beside the mailboxes, and no table of sealmilter's own is needed. Load it as
-- a superuser into PostfixAdmin's database, instead of sealmilter migrate, and
-- roles.sql after it; both may be loaded again at any time:
--
--   psql -d postfix -f postfixadmin.sql -f roles.sql
--
-- A key is then added by one INSERT, and sealing begins with the next message:
--
--   INSERT INTO public.openpgp_key (username, key)
--     VALUES ('ann@example.org', '-----BEGIN PGP PUBLIC KEY BLOCK----- ...');
--
-- Postfix shows a milter the recipient before it expands aliases, so that the
-- function below expands them, in the same order as the maps that PostfixAdmin
-- has for Postfix: the address itself, then its alias domain, then the
-- domain's catch-all. What becomes of an address asked:
--
--   a mailbox with keys         one row for each key, account is the mailbox
--   a mailbox without           one row, key is NULL
--   an alias                    the rows of all mailboxes that it leads to
--   an alias that leads away    one row, account is the address outside, key is
--                               NULL: whoever reads the rows can tell that not
--                               all of the alias' readers have a key
--   unknown, or alias inactive  one row, account is NULL
--
-- Mail to an alias of which only some readers have a key is deferred: sealed,
-- the others could not read it, and as it is, it would come in the clear to
-- those who enrolled. So enrol all members of an alias or none; one address
-- outside is a member without a key, for which this side table has no place,
-- so that an alias that leads outside too can have no member with a key. Find
-- them before you enrol: sealmilter check --address team@example.org.
--
-- sealmilter key and sealmilter migrate are for sealmilter's own tables and
-- refuse to work here: keys are enrolled, and taken back, by SQL.
--
-- An inactive mailbox keeps its keys: that Postfix should refuse its mail is
-- no reason to let some through in plaintext. Where owners are to choose, add a
-- column to mailbox and answer it in the place of "true" below.

\set ON_ERROR_STOP on
BEGIN;

CREATE TABLE IF NOT EXISTS public.openpgp_key (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  username varchar(255) NOT NULL REFERENCES public.mailbox (username) ON UPDATE CASCADE ON DELETE CASCADE,
  key      text NOT NULL CONSTRAINT key_is_empty CHECK (key ~ '[^[:space:]]'),
  added    timestamptz NOT NULL DEFAULT now()
);
-- A key that is there twice stays in use when it is deleted once.
CREATE UNIQUE INDEX IF NOT EXISTS key_is_enrolled_already ON public.openpgp_key (username, hashtextextended(key, 0));
COMMENT ON TABLE public.openpgp_key IS 'The OpenPGP keys that mail to a mailbox is sealed to, any number for each.';

-- The function runs with its owner's rights. They are to read what it reads,
-- column by column: no password, and nothing to write.
SELECT 'CREATE ROLE sealmilter_owner NOLOGIN'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sealmilter_owner') \gexec
GRANT USAGE ON SCHEMA public TO sealmilter_owner;
GRANT SELECT (username) ON public.mailbox TO sealmilter_owner;
GRANT SELECT (address, goto, active) ON public.alias TO sealmilter_owner;
GRANT SELECT (alias_domain, target_domain, active) ON public.alias_domain TO sealmilter_owner;
GRANT SELECT (username, key) ON public.openpgp_key TO sealmilter_owner;

CREATE SCHEMA IF NOT EXISTS sealmilter AUTHORIZATION sealmilter_owner;
COMMENT ON SCHEMA sealmilter IS 'Whose mail is sealed, and to which keys: one function on the tables of PostfixAdmin.';

-- PostfixAdmin stores its addresses in lower case, so the one asked is put
-- into lower case, by the rules of ASCII ("C") whatever the database's locale,
-- and then compared by the database's own rules, so that the indexes serve.
-- route holds every step from an address asked: UNION drops a step that was
-- there before, which ends a loop of aliases. An end is a target that leads no
-- further, or one that leads to itself, as every mailbox' own alias does.
-- OFFSET 0 keeps the planner, which cannot know how many addresses are asked,
-- from joining whole tables.
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE route (asked, source, target) AS (
      SELECT u.address, NULL::text, lower(u.address COLLATE "C") COLLATE "default"
      FROM unnest(addresses) AS u (address)
    UNION
      SELECT route.asked, route.target, step.target
      FROM route CROSS JOIN LATERAL (
        WITH exact AS (
          SELECT a.goto FROM public.alias AS a WHERE a.address = route.target AND a.active
        ), renamed AS (
          SELECT left(route.target, -length(d.alias_domain)) || d.target_domain AS goto
          FROM public.alias_domain AS d
          WHERE d.alias_domain = substring(route.target FROM '[^@]*$') AND d.active AND NOT EXISTS (SELECT FROM exact)
        ), catchall AS (
          SELECT a.goto FROM public.alias AS a
          WHERE a.address = '@' || substring(route.target FROM '[^@]*$') AND a.active
            AND NOT EXISTS (SELECT FROM exact) AND NOT EXISTS (SELECT FROM renamed)
        )
        SELECT CASE WHEN one.goto LIKE '@%' -- "@elsewhere" keeps the local part
          THEN left(route.target, -length(substring(route.target FROM '@[^@]*$'))) ELSE '' END || one.goto AS target
        FROM (SELECT e.goto FROM exact AS e UNION ALL SELECT r.goto FROM renamed AS r
              UNION ALL SELECT c.goto FROM catchall AS c) AS list
        CROSS JOIN LATERAL (
          SELECT lower(btrim(part, E' \t\r\n')) AS goto FROM unnest(string_to_array(list.goto, ',')) AS part
        ) AS one
        WHERE one.goto <> ''
      ) AS step
  ), ends AS (
    SELECT DISTINCT here.asked, here.target
    FROM route AS here
    LEFT JOIN route AS onward ON onward.asked = here.asked AND onward.source = here.target
    LEFT JOIN LATERAL (
      SELECT m.username FROM public.mailbox AS m WHERE m.username = here.target OFFSET 0
    ) AS own ON true
    WHERE (onward.asked IS NULL OR here.source = here.target)
      AND (here.source IS NOT NULL OR own.username IS NOT NULL)
  )
  SELECT asked.address, ends.target, CASE WHEN ends.target IS NOT NULL THEN true END,
    NULL::text, NULL::text, one.key, NULL::jsonb
  FROM (SELECT DISTINCT u.address FROM unnest(addresses) AS u (address)) AS asked
  LEFT JOIN ends ON ends.asked = asked.address
  LEFT JOIN LATERAL (
    SELECT k.key FROM public.openpgp_key AS k WHERE k.username = ends.target OFFSET 0
  ) AS one ON true
$$;
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that sealmilter asks: the keys of each address, on the tables of PostfixAdmin. At least one row for each address.';
ALTER FUNCTION sealmilter.recipient_keys(text[]) OWNER TO sealmilter_owner;
REVOKE ALL ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC;

COMMIT;
