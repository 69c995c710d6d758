-- What the owner of a key, or its administrator, has chosen for what is sealed
-- to it.

-- +goose Up

-- As in version 2: what a site has written is not overwritten without a word.
-- +goose StatementBegin
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_proc AS p
             WHERE p.oid = to_regprocedure('sealmilter.recipient_keys(text[])')
               AND encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex') <> 'd3125be4be4eff92c3497410436d18f0a73f7fe82a72673cde0ad8a9d1b00e4f') THEN
    RAISE EXCEPTION 'sealmilter.recipient_keys is not as sealmilter has made it'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'drop the function and migrate; then load yours again, and roles.sql after it';
  END IF;
END
$$;
-- +goose StatementEnd

-- What has no such name in it makes a CHECK NULL, which passes.
ALTER TABLE sealmilter.keys ADD COLUMN options jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT options_not_an_object         CHECK (jsonb_typeof(options) = 'object')
  CONSTRAINT aead_neither_gcm_nor_ocb      CHECK (options -> 'aead' IN ('"gcm"', '"ocb"'))
  CONSTRAINT oaep_neither_true_nor_false   CHECK (jsonb_typeof(options -> 'oaep') = 'boolean')
  CONSTRAINT ml_kem_neither_true_nor_false CHECK (jsonb_typeof(options -> 'ml_kem') = 'boolean');
COMMENT ON COLUMN sealmilter.keys.options IS
  'Choices for what is sealed to this key, a JSON object: aead (gcm or ocb), oaep (of a certificate) and ml_kem (true or false).';

-- The columns are those of version 1. The options of a row's key stand under
-- "key" in those of its account, and that name is the key's alone.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT asked.address,
    CASE WHEN asked.is_alias THEN coalesce(account.address, ends.name, asked.address) ELSE account.address END,
    account.enabled AND coalesce(domain.enabled, true), account.method, account.cipher, one.key,
    CASE WHEN asked.is_alias AND ends.name IS NULL THEN '{"circle": true}'
      ELSE (coalesce(domain.options, '{}') || account.options) - 'key'
        || CASE WHEN one.options <> '{}' THEN jsonb_build_object('key', one.options) ELSE '{}' END END
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
    SELECT k.key, k.options FROM sealmilter.keys AS k WHERE k.address = account.address OFFSET 0
  ) AS one ON true
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that the daemon asks: the keys of each address, or of all that it leads to as an alias. One row for each key, '
  'and one with key NULL for an account without any; enabled is NULL where an alias leads to somebody not enrolled; '
  'account is NULL where an address is neither account nor alias. An address without a row is a failed lookup.';

-- Where a site has dropped its own function, this one is new.
REVOKE ALL ON FUNCTION sealmilter.recipient_keys(text[]) FROM PUBLIC;

-- +goose Down

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
ALTER TABLE sealmilter.keys DROP COLUMN options;
