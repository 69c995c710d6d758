-- The memory of copies in flight: which parts of a message that is split have
-- been sent already, while its transaction is unfinished. Sealmilter migrate
-- runs this text. Where you have tables of your own (postfixadmin.sql, or a
-- function that you wrote), load it as a superuser after them, and roles.sql
-- after it; it may be loaded again at any time:
--
--   psql -d mail -v ON_ERROR_STOP=1 -f copies.sql -f roles.sql
--
-- Without it the daemon looks keys up as ever, and defers what must be split.

BEGIN;

-- Names are looked up where nobody but a superuser can make any.
SET LOCAL search_path = pg_catalog, pg_temp;

CREATE TABLE IF NOT EXISTS sealmilter.copies (
  hash  bytea PRIMARY KEY CONSTRAINT hash_is_not_32_bytes CHECK (octet_length(hash) = 32),
  sent  boolean NOT NULL DEFAULT false,
  owner text COLLATE "C" CONSTRAINT owner_is_empty CHECK (owner <> ''),
  until timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS copies_until ON sealmilter.copies (until);

COMMENT ON TABLE sealmilter.copies IS
  'Copies of messages whose transaction is unfinished, so that a retry sends nobody a second one. Written by the daemon only.';
COMMENT ON COLUMN sealmilter.copies.hash IS 'A keyed hash of the copy; the key is the daemon''s.';
COMMENT ON COLUMN sealmilter.copies.sent IS 'Whether the re-injection server has accepted the copy.';
COMMENT ON COLUMN sealmilter.copies.owner IS 'The transaction that claims the copy; NULL where the last one has ended without success.';
COMMENT ON COLUMN sealmilter.copies.until IS
  'When the claim ends or has ended. Eight days later the row counts for nothing and is purged.';

-- The functions run with their owner's rights, so that the daemon's role needs
-- none on the table; hence the pinned search_path and the qualified names. What
-- they have answered must survive the server: where the site commits without
-- waiting for the disk, these transactions wait all the same.

-- All hashes are claimed, or none: a row that another's claim is alive on is
-- not updated, is then missing in the answer, and the inner block is undone.
-- Hashes are taken in their own order, so that two transactions that share some
-- cannot wait for each other.
CREATE OR REPLACE FUNCTION sealmilter.copies_begin(claimant text, hashes bytea[], lease interval) RETURNS boolean[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  kept CONSTANT interval := '8 days';
  answer boolean[];
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
  BEGIN
    WITH claimed AS (
      INSERT INTO sealmilter.copies AS c (hash, owner, until)
        SELECT DISTINCT u.hash, claimant, now() + lease FROM unnest(hashes) AS u (hash) ORDER BY u.hash
      ON CONFLICT (hash) DO UPDATE
        SET sent = c.sent AND c.until > now() - kept, owner = excluded.owner, until = excluded.until
        WHERE c.owner IS NULL OR c.owner = claimant OR c.until <= now()
      RETURNING c.hash, c.sent
    )
    SELECT array_agg(claimed.sent ORDER BY u.place) INTO answer
      FROM unnest(hashes) WITH ORDINALITY AS u (hash, place) JOIN claimed ON claimed.hash = u.hash;
    IF coalesce(cardinality(answer), 0) < cardinality(hashes) THEN
      RAISE EXCEPTION 'claimed by another' USING ERRCODE = 'SM001';
    END IF;
  EXCEPTION WHEN SQLSTATE 'SM001' THEN
    RETURN NULL;
  END;
  -- It waits for nobody, for it has locked rows already.
  DELETE FROM sealmilter.copies AS c WHERE c.hash = ANY (ARRAY(
    SELECT old.hash FROM sealmilter.copies AS old WHERE old.until < now() - kept
    ORDER BY old.until LIMIT 100 FOR UPDATE SKIP LOCKED));
  RETURN answer;
END
$$;
COMMENT ON FUNCTION sealmilter.copies_begin(text, bytea[], interval) IS
  'Claims all hashes for one transaction and says of each whether it was sent by an earlier one. '
  'NULL, and nothing is claimed, where another transaction''s claim on one is alive.';

-- That a copy has been accepted is true whoever claims it now.
CREATE OR REPLACE FUNCTION sealmilter.copies_sent(claimant text, accepted bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  held boolean;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
  UPDATE sealmilter.copies AS c SET sent = true WHERE c.hash = accepted
    RETURNING c.owner = claimant AND c.until > now() INTO held;
  RETURN coalesce(held, false);
END
$$;
COMMENT ON FUNCTION sealmilter.copies_sent(text, bytea) IS
  'Notes that the re-injection server has accepted a copy. False: the transaction does not hold the claim any more.';

CREATE OR REPLACE FUNCTION sealmilter.copies_end(claimant text, hashes bytea[], forget boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  held bigint;
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
  SELECT count(*) FILTER (WHERE mine.until > now()) INTO held FROM (
    SELECT c.until FROM sealmilter.copies AS c WHERE c.hash = ANY (hashes) AND c.owner = claimant
    ORDER BY c.hash FOR UPDATE) AS mine;
  DELETE FROM sealmilter.copies AS c WHERE c.hash = ANY (hashes) AND c.owner = claimant AND (forget OR NOT c.sent);
  UPDATE sealmilter.copies AS c SET owner = NULL, until = now() WHERE c.hash = ANY (hashes) AND c.owner = claimant;
  RETURN held = (SELECT count(DISTINCT u.hash) FROM unnest(hashes) AS u (hash));
END
$$;
COMMENT ON FUNCTION sealmilter.copies_end(text, bytea[], boolean) IS
  'Ends a claim, and forgets its copies or keeps those that were sent for a retry. '
  'False: the transaction did not hold all of the claim any more.';

REVOKE ALL ON FUNCTION sealmilter.copies_begin(text, bytea[], interval), sealmilter.copies_sent(text, bytea),
  sealmilter.copies_end(text, bytea[], boolean) FROM PUBLIC;

-- What a superuser has made here goes to the owner of the schema, or, where
-- that is a superuser too, to the role that migrate would have taken.
DO $$
DECLARE
  superuser CONSTANT boolean := (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user);
  owner name := (SELECT r.rolname FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
                 WHERE n.nspname = 'sealmilter' AND NOT r.rolsuper);
BEGIN
  IF NOT superuser THEN
    RETURN;
  END IF;
  IF owner IS NULL THEN
    owner := 'sealmilter_owner';
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = owner) THEN
      CREATE ROLE sealmilter_owner NOLOGIN;
    END IF;
    GRANT USAGE ON SCHEMA sealmilter TO sealmilter_owner;
  END IF;
  EXECUTE format('ALTER TABLE sealmilter.copies OWNER TO %I', owner);
  EXECUTE format('ALTER FUNCTION sealmilter.copies_begin(text, bytea[], interval) OWNER TO %I', owner);
  EXECUTE format('ALTER FUNCTION sealmilter.copies_sent(text, bytea) OWNER TO %I', owner);
  EXECUTE format('ALTER FUNCTION sealmilter.copies_end(text, bytea[], boolean) OWNER TO %I', owner);
END
$$;

COMMIT;
