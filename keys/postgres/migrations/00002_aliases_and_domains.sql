-- Who is meant by an address: aliases, and accounts that a whole domain has.

-- +goose Up

-- A site may have put a function of its own in the place of ours, beside our
-- tables. It is not overwritten: its aliases would be lost without a word.
-- sha256() and not md5(), which fails where the machine runs in FIPS mode.
-- +goose StatementBegin
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_proc AS p
             WHERE p.oid = to_regprocedure('sealmilter.recipient_keys(text[])')
               AND encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex') <> '355effb7c92784be07f3a49d75faeffa319cd00eedddc1097040f2cb1ac11619') THEN
    RAISE EXCEPTION 'sealmilter.recipient_keys is not as sealmilter has made it'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'drop the function and migrate; then load yours again, and roles.sql after it';
  END IF;
END
$$;
-- +goose StatementEnd

-- '@example.org' is the account of a domain. What else begins with an @ lacks
-- something: a source route, "@relay:ann@example.org" as it was once written.
ALTER TABLE sealmilter.accounts
  DROP CONSTRAINT address_without_local_part,
  ADD CONSTRAINT address_without_local_part CHECK (address !~ '^@.*@');
COMMENT ON TABLE sealmilter.accounts IS
  'One mailbox owner with choices of their own, or a domain. The first key inserted for an address makes its account.';
COMMENT ON COLUMN sealmilter.accounts.address IS
  'The e-mail address, without angle brackets; letters match in either case. '
  '@example.org is the domain: its keys are for whoever has none there, its enabled and options count for all of it.';

CREATE TABLE sealmilter.aliases (
  address text COLLATE "C" NOT NULL,
  target  text COLLATE "C" NOT NULL,
  PRIMARY KEY (address, target),
  CONSTRAINT address_without_domain         CHECK (address ~ '@[^@]+$'),
  CONSTRAINT address_without_local_part     CHECK (address !~ '^@.*@'),
  CONSTRAINT address_with_blanks_around     CHECK (address = btrim(address, E' \t\r\n')),
  CONSTRAINT address_with_blank_in_domain   CHECK (address !~ ' [^@]*$'),
  CONSTRAINT address_with_control_character CHECK (address !~ '[[:cntrl:]]'),
  CONSTRAINT address_in_angle_brackets      CHECK (address !~ '[<>]'),
  CONSTRAINT address_in_quotes              CHECK (address !~ '^".*"@[^@]*$'),
  CONSTRAINT address_with_final_dot         CHECK (address !~ '[.]$'),
  CONSTRAINT target_without_domain          CHECK (target ~ '@[^@]+$'),
  -- Only of a whole domain there is a local part that a whole domain can keep.
  CONSTRAINT target_without_local_part      CHECK (target !~ '^@.*@' AND (target !~ '^@' OR address ~ '^@')),
  CONSTRAINT target_with_blanks_around      CHECK (target = btrim(target, E' \t\r\n')),
  CONSTRAINT target_with_blank_in_domain    CHECK (target !~ ' [^@]*$'),
  CONSTRAINT target_with_control_character  CHECK (target !~ '[[:cntrl:]]'),
  CONSTRAINT target_in_angle_brackets       CHECK (target !~ '[<>]'),
  CONSTRAINT target_in_quotes               CHECK (target !~ '^".*"@[^@]*$'),
  CONSTRAINT target_with_final_dot          CHECK (target !~ '[.]$')
);
-- It is the index of lookups too.
CREATE UNIQUE INDEX alias_is_there_already ON sealmilter.aliases (lower(address), lower(target));

COMMENT ON TABLE sealmilter.aliases IS
  'Where mail to an address goes instead, as the MTA''s alias maps have it; several rows for one address are a group.';
COMMENT ON COLUMN sealmilter.aliases.address IS
  'What mail is addressed to. @example.org is whatever has no entry of its own there.';
COMMENT ON COLUMN sealmilter.aliases.target IS
  'An address, or another alias; the alias itself where it keeps a copy. @example.net is the same local part in that domain.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.aliases_lower_domains() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  domain text := substring(NEW.address FROM '[^@]*$');
BEGIN
  NEW.address := left(NEW.address, -length(domain)) || lower(domain COLLATE "C");
  domain := substring(NEW.target FROM '[^@]*$');
  NEW.target := left(NEW.target, -length(domain)) || lower(domain COLLATE "C");
  RETURN NEW;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.aliases_lower_domains() IS 'Puts the domains of an alias and its target into lower case.';
CREATE TRIGGER lower_domains BEFORE INSERT OR UPDATE ON sealmilter.aliases
  FOR EACH ROW EXECUTE FUNCTION sealmilter.aliases_lower_domains();

-- Where an alias leads in the end. A way is one row of aliases; UNION drops a
-- way that was gone before, which ends a circle. An end is a target that leads
-- no further: it is no alias, or is a whole domain (whose local part only the
-- caller knows), or is the alias itself, which MTAs then leave as it is. An
-- account that its own alias leads back to, around some others, is one as well.
--
-- An alias table that somebody has filled must not keep the server busy, so
-- that both searches stop at a bound, and then there is no answer: half of a
-- group is no group. The bound is the one at which Postfix gives up and defers
-- as well (virtual_alias_expansion_limit). The LIMITs stand directly above the
-- recursion, which goes no further than rows are fetched from it. OFFSET 0
-- keeps the planner from joining whole tables, and jit would compile for
-- longer than the search takes where there are no statistics.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.alias_ends(alias text) RETURNS SETOF text
LANGUAGE plpgsql STABLE STRICT ROWS 5 SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  most    CONSTANT integer := 1000;
  sources text[] COLLATE "C";  -- in lower case
  targets text[] COLLATE "C";  -- in the table's spelling
  circles text[] COLLATE "C";
  steps   integer;
BEGIN
  WITH RECURSIVE way (source, target) AS (
      SELECT lower(a.address), a.target FROM sealmilter.aliases AS a WHERE lower(a.address) = lower(alias COLLATE "C")
    UNION
      SELECT next.source, next.target FROM way CROSS JOIN LATERAL (
        SELECT lower(a.address), a.target FROM sealmilter.aliases AS a
        WHERE lower(a.address) = lower(way.target) AND left(way.target, 1) <> '@' OFFSET 0
      ) AS next (source, target)
  )
  SELECT array_agg(found.source), array_agg(found.target) INTO sources, targets
    FROM (SELECT way.source, way.target FROM way LIMIT most + 1) AS found;

  WITH RECURSIVE way (source, target) AS (
      SELECT w.source, lower(w.target) FROM unnest(sources, targets) AS w (source, target)
      WHERE cardinality(sources) <= most
  ), walk (account, name) AS (
      SELECT way.source, way.target FROM way
      WHERE way.source <> way.target
        AND EXISTS (SELECT FROM sealmilter.accounts AS a WHERE lower(a.address) = way.source OFFSET 0)
    UNION
      SELECT walk.account, way.target FROM walk JOIN way ON way.source = walk.name WHERE walk.name <> walk.account
  )
  SELECT count(*), array_agg(step.account) FILTER (WHERE step.name = step.account) INTO steps, circles
    FROM (SELECT walk.account, walk.name FROM walk LIMIT 20 * most + 1) AS step;

  IF cardinality(sources) > most OR steps > 20 * most THEN
    RAISE EXCEPTION 'an alias leads to more than % addresses, or around in too large circles', most
      USING ERRCODE = 'program_limit_exceeded', DETAIL = format('The alias is %s.', alias);
  END IF;
  RETURN QUERY SELECT min(w.target) FROM unnest(sources, targets) AS w (source, target)
    WHERE lower(w.target) <> ALL (sources) OR lower(w.target) = ANY (circles)
      OR lower(w.target) = w.source OR left(w.target, 1) = '@'
    GROUP BY lower(w.target);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.alias_ends(text) IS
  'Where an alias leads in the end, over any number of aliases. No row: in a circle, or the address is no alias.';

-- The columns are those of version 1. An address is looked up by its name
-- alone; the daemon knows of delimiters and domains, and asks for those names
-- itself. The choices of a domain count for every account in it, except where
-- an option is the account's own.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT asked.address,
    CASE WHEN asked.is_alias THEN coalesce(account.address, ends.name, asked.address) ELSE account.address END,
    account.enabled AND coalesce(domain.enabled, true), account.method, account.cipher, one.key,
    CASE WHEN asked.is_alias AND ends.name IS NULL THEN '{"circle": true}'
      ELSE coalesce(domain.options, '{}') || account.options END
  FROM (
    SELECT DISTINCT u.address, EXISTS (
      SELECT FROM sealmilter.aliases AS a WHERE lower(a.address) = lower(u.address COLLATE "C") OFFSET 0
    ) AS is_alias
    FROM unnest(addresses) AS u (address)
  ) AS asked
  LEFT JOIN LATERAL sealmilter.alias_ends(CASE WHEN asked.is_alias THEN asked.address END) AS ends (name) ON true
  LEFT JOIN LATERAL (
    SELECT a.address, a.enabled, a.method, a.cipher, a.options FROM sealmilter.accounts AS a
    WHERE lower(a.address) = lower(CASE WHEN asked.is_alias THEN ends.name ELSE asked.address END COLLATE "C") OFFSET 0
  ) AS account ON true
  LEFT JOIN LATERAL (
    SELECT a.enabled, a.options FROM sealmilter.accounts AS a
    WHERE lower(a.address) = lower(substring(account.address FROM '@[^@]*$')) OFFSET 0
  ) AS domain ON true
  LEFT JOIN LATERAL (
    SELECT k.key FROM sealmilter.keys AS k WHERE k.address = account.address OFFSET 0
  ) AS one ON true
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that the daemon asks: the keys of each address, or of all that it leads to as an alias. One row for each key, '
  'and one with key NULL for an account without any; enabled is NULL where an alias leads to somebody not enrolled; '
  'account is NULL where an address is neither account nor alias. An address without a row is a failed lookup.';

REVOKE ALL ON FUNCTION sealmilter.aliases_lower_domains(), sealmilter.alias_ends(text),
  sealmilter.recipient_keys(text[]) FROM PUBLIC;

-- +goose Down

-- Aliases and domains go: version 1 has no place for them.
DROP TABLE sealmilter.aliases;
DELETE FROM sealmilter.accounts WHERE address ~ '^@';
ALTER TABLE sealmilter.accounts
  DROP CONSTRAINT address_without_local_part,
  ADD CONSTRAINT address_without_local_part CHECK (address !~ '^@');
COMMENT ON TABLE sealmilter.accounts IS
  'One mailbox owner with choices of their own. The first key inserted for an address makes its account.';
COMMENT ON COLUMN sealmilter.accounts.address IS
  'The e-mail address, without angle brackets; letters match in either case.';

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT asked.address, account.address, account.enabled, account.method, account.cipher, one.key, account.options
  FROM (SELECT DISTINCT u.address FROM unnest(addresses) AS u (address)) AS asked
  LEFT JOIN LATERAL (
    SELECT a.address, a.enabled, a.method, a.cipher, a.options FROM sealmilter.accounts AS a
    WHERE lower(a.address) = lower(asked.address COLLATE "C") OFFSET 0
  ) AS account ON true
  LEFT JOIN LATERAL (
    SELECT k.key FROM sealmilter.keys AS k WHERE k.address = account.address OFFSET 0
  ) AS one ON true
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that the daemon asks: the keys of each address. One row for each key, and one with key NULL for an '
  'address without any; account is NULL where nobody is enrolled. An address without a row is a failed lookup.';
DROP FUNCTION sealmilter.alias_ends(text), sealmilter.aliases_lower_domains();
