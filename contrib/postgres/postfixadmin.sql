-- sealmilter on the tables of PostfixAdmin (3.x, PostgreSQL): the keys stand
-- beside the mailboxes, and of sealmilter's own tables only the one for copies
-- in flight is needed. Load it as a superuser into PostfixAdmin's database,
-- instead of sealmilter migrate, and copies.sql and roles.sql after it; all may
-- be loaded again at any time:
--
--   psql -d postfix -f postfixadmin.sql -f copies.sql -f roles.sql
--
-- A key is then added by one INSERT, and sealing begins with the next message:
--
--   INSERT INTO public.openpgp_key (username, key)
--     VALUES ('ann@example.org', '-----BEGIN PGP PUBLIC KEY BLOCK----- ...');
--
-- A certificate may stand there as well. What a key's reader has chosen goes into
-- options, such as '{"aead": "gcm"}': the names are those of sealmilter key set.
--
-- Postfix shows a milter the recipient before it expands aliases, so that the
-- function below expands them, as the maps that PostfixAdmin has for Postfix
-- do. A name is looked up by itself alone: that ann+list@example.org may be
-- ann's, and that @example.org may stand for her, the daemon knows, and asks
-- for those names too. What becomes of a name asked:
--
--   a mailbox with keys         one row for each key, account is the mailbox
--   a mailbox without           one row, key is NULL
--   an alias                    the rows of all mailboxes that it leads to
--   an alias that leads away    one row, account is the address outside, key and
--                               enabled are NULL: whoever reads the rows can
--                               tell that not all of the alias' readers have a
--                               key
--   aliases in a circle         one row, account is the name asked, key and
--                               enabled are NULL, options {"circle": true}
--   unknown, or alias inactive  one row, account is NULL
--   @old.example, an alias      one row, account is @new.example: the daemon
--   domain                      asks for the same local part there
--   @example.org with a         the rows of where that leads; a goto
--   catch-all                   "@elsewhere.example" is one row like that of an
--                               alias domain
--
-- Mail to an alias of which only some readers have a key is deferred, unless
-- the daemon's policy says otherwise: sealed, the others could not read it, and
-- as it is, it would come in the clear to those who enrolled. So enrol all
-- members of an alias or none; one address outside is a member without a key,
-- for which this side table has no place. Find them before you enrol:
-- sealmilter check --address team@example.org.
--
-- sealmilter key and sealmilter migrate are for sealmilter's own tables and
-- refuse to work here: keys are enrolled, and taken back, by SQL.
--
-- An inactive mailbox keeps its keys: that Postfix should refuse its mail is
-- no reason to let some through in plaintext. Where owners are to choose, add a
-- column to mailbox and answer it in the place of "true" below.

\set ON_ERROR_STOP on
BEGIN;

-- Names are looked up where nobody but a superuser can make any.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE TABLE IF NOT EXISTS public.openpgp_key (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  username varchar(255) NOT NULL REFERENCES public.mailbox (username) ON UPDATE CASCADE ON DELETE CASCADE,
  key      text NOT NULL CONSTRAINT key_is_empty CHECK (key ~ '[^[:space:]]'),
  added    timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE public.openpgp_key ADD COLUMN IF NOT EXISTS options jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT options_not_an_object         CHECK (jsonb_typeof(options) = 'object')
  CONSTRAINT aead_neither_gcm_nor_ocb      CHECK (options -> 'aead' IN ('"gcm"', '"ocb"'))
  CONSTRAINT oaep_neither_true_nor_false   CHECK (jsonb_typeof(options -> 'oaep') = 'boolean')
  CONSTRAINT ml_kem_neither_true_nor_false CHECK (jsonb_typeof(options -> 'ml_kem') = 'boolean');
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
GRANT SELECT (username, key, options) ON public.openpgp_key TO sealmilter_owner;

CREATE SCHEMA IF NOT EXISTS sealmilter AUTHORIZATION sealmilter_owner;
COMMENT ON SCHEMA sealmilter IS 'Whose mail is sealed, and to which keys: functions on the tables of PostfixAdmin.';

-- PostfixAdmin stores its addresses in lower case, so the one asked is put
-- into lower case, by the rules of ASCII ("C") whatever the database's locale,
-- and then compared by the database's own rules, so that the indexes serve.
-- OFFSET 0 and the inner WITH keep the planner, which cannot know how many
-- addresses are asked, from joining whole tables; jit would compile for longer
-- than a lookup takes.

-- Where an alias leads in the end. way holds every step from the name asked:
-- UNION drops a step that was there before, which ends a circle of aliases. An
-- end is a target that leads no further: it is no alias, or a whole domain, or
-- leads to itself, as every mailbox' own alias does. A mailbox that its alias
-- leads back to, around some others, is one as well. Both searches stop at a
-- bound, and then there is no answer and the message waits: half of a group is
-- no group. It is the bound at which Postfix gives up and defers as well
-- (virtual_alias_expansion_limit).
CREATE OR REPLACE FUNCTION sealmilter.alias_ends(alias text) RETURNS SETOF text
LANGUAGE plpgsql STABLE STRICT ROWS 5 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  most    CONSTANT integer := 1000;
  sources text[];
  targets text[];
  circles text[];
  steps   integer;
BEGIN
  WITH RECURSIVE way (source, target) AS (
      SELECT NULL::text, lower(alias COLLATE "C") COLLATE "default"
    UNION
      SELECT way.target, step.target
      FROM way CROSS JOIN LATERAL (
        WITH renamed AS (
          SELECT '@' || d.target_domain AS goto FROM public.alias_domain AS d
          WHERE d.alias_domain = substring(way.target FROM '^@(.*)$') AND d.active
        ), list AS (
          SELECT r.goto FROM renamed AS r UNION ALL
          SELECT a.goto FROM public.alias AS a WHERE a.address = way.target AND a.active AND NOT EXISTS (SELECT FROM renamed)
        )
        SELECT lower(btrim(part, E' \t\r\n') COLLATE "C") COLLATE "default" AS target
        FROM list CROSS JOIN LATERAL unnest(string_to_array(list.goto, ',')) AS part
      ) AS step
      WHERE step.target <> '' AND (way.source IS NULL OR left(way.target, 1) <> '@')
  )
  SELECT array_agg(found.source), array_agg(found.target) INTO sources, targets
    FROM (SELECT way.source, way.target FROM way WHERE way.source IS NOT NULL LIMIT most + 1) AS found;

  WITH RECURSIVE way (source, target) AS (
      SELECT w.source, w.target FROM unnest(sources, targets) AS w (source, target) WHERE cardinality(sources) <= most
  ), walk (mailbox, name) AS (
      SELECT way.source, way.target FROM way
      WHERE way.source <> way.target
        AND EXISTS (SELECT FROM public.mailbox AS m WHERE m.username = way.source OFFSET 0)
    UNION
      SELECT walk.mailbox, way.target FROM walk JOIN way ON way.source = walk.name WHERE walk.name <> walk.mailbox
  )
  SELECT count(*), array_agg(step.mailbox) FILTER (WHERE step.name = step.mailbox) INTO steps, circles
    FROM (SELECT walk.mailbox, walk.name FROM walk LIMIT 20 * most + 1) AS step;

  IF cardinality(sources) > most OR steps > 20 * most THEN
    RAISE EXCEPTION 'an alias leads to more than % addresses, or around in too large circles', most
      USING ERRCODE = 'program_limit_exceeded', DETAIL = format('The alias is %s.', alias);
  END IF;
  RETURN QUERY SELECT DISTINCT w.target FROM unnest(sources, targets) AS w (source, target)
    WHERE w.target <> ALL (sources) OR w.target = ANY (circles) OR w.target = w.source OR left(w.target, 1) = '@';
END
$$;
COMMENT ON FUNCTION sealmilter.alias_ends(text) IS
  'Where an alias of PostfixAdmin leads in the end. No row: in a circle, or the address is no alias.';

-- It is in PL/pgSQL because the server makes a plan of that once for each
-- session; of SQL that runs with its owner's rights it would make one for each
-- call. The plan may be older than most of the rows, hence indexes whatever it
-- thinks of their number.
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY SELECT asked.address,
    CASE WHEN asked.is_alias THEN coalesce(ends.name, asked.address) ELSE own.username::text END,
    CASE WHEN own.username IS NOT NULL THEN true END, NULL::text, NULL::text, one.key,
    CASE WHEN asked.is_alias AND ends.name IS NULL THEN '{"circle": true}'::jsonb
      WHEN one.options <> '{}' THEN jsonb_build_object('key', one.options) END
  FROM (
    SELECT DISTINCT u.address, here.name,
      EXISTS (
        SELECT FROM public.alias AS a WHERE a.address = here.name AND a.active AND a.goto ~ '[^,[:space:]]' OFFSET 0
      ) OR EXISTS (
        SELECT FROM public.alias_domain AS d WHERE d.alias_domain = substring(here.name FROM '^@(.*)$') AND d.active OFFSET 0
      ) AS is_alias
    FROM unnest(addresses) AS u (address)
    CROSS JOIN LATERAL (SELECT lower(u.address COLLATE "C") COLLATE "default") AS here (name)
  ) AS asked
  LEFT JOIN LATERAL sealmilter.alias_ends(CASE WHEN asked.is_alias THEN asked.name END) AS ends (name) ON true
  LEFT JOIN LATERAL (
    SELECT m.username FROM public.mailbox AS m
    WHERE m.username = CASE WHEN asked.is_alias THEN ends.name ELSE asked.name END OFFSET 0
  ) AS own ON true
  LEFT JOIN LATERAL (
    SELECT k.key, k.options FROM public.openpgp_key AS k WHERE k.username = own.username OFFSET 0
  ) AS one ON true;
END
$$;
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that sealmilter asks: the keys of each address, on the tables of PostfixAdmin. At least one row for each address.';

ALTER FUNCTION sealmilter.alias_ends(text) OWNER TO sealmilter_owner;
ALTER FUNCTION sealmilter.recipient_keys(text[]) OWNER TO sealmilter_owner;
REVOKE ALL ON FUNCTION sealmilter.alias_ends(text), sealmilter.recipient_keys(text[]) FROM PUBLIC;

COMMIT;
