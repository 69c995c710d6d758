-- The tables that an administrator writes and the one function that the
-- daemon calls. Migrate has made the schema and has become its owner, so that
-- everything made here belongs to a role that is no superuser.

-- +goose Up

COMMENT ON SCHEMA sealmilter IS
  'Whose mail is sealed, and to which keys. One INSERT into sealmilter.keys is all that it takes.';

-- Text is compared and folded byte for byte ("C"), whatever the locale of the
-- database: in a Turkish one lower('INFO') is not 'info', and a key that is
-- not found is a message in plaintext.
CREATE TABLE sealmilter.accounts (
  address text COLLATE "C" PRIMARY KEY,
  enabled boolean NOT NULL DEFAULT true,
  method  text CONSTRAINT method_unknown CHECK (method IN ('openpgp', 'smime')),
  cipher  text NOT NULL DEFAULT 'aes256' CONSTRAINT cipher_unknown CHECK (cipher IN ('aes256', 'aes128')),
  options jsonb NOT NULL DEFAULT '{}' CONSTRAINT options_not_an_object CHECK (jsonb_typeof(options) = 'object'),
  created timestamptz NOT NULL DEFAULT now(),
  -- Each name says what is wrong, for it is all that psql prints.
  CONSTRAINT address_without_domain         CHECK (address ~ '@[^@]+$'),
  CONSTRAINT address_without_local_part     CHECK (address !~ '^@'),
  CONSTRAINT address_with_blanks_around     CHECK (address = btrim(address, E' \t\r\n')),
  CONSTRAINT address_with_blank_in_domain   CHECK (address !~ ' [^@]*$'),
  CONSTRAINT address_with_control_character CHECK (address !~ '[[:cntrl:]]'),
  CONSTRAINT address_in_angle_brackets      CHECK (address !~ '[<>]'),
  -- Mail is looked up without them, so that an account that has them is never found.
  CONSTRAINT address_in_quotes              CHECK (address !~ '^".*"@[^@]*$'),
  CONSTRAINT address_with_final_dot         CHECK (address !~ '[.]$')
);
CREATE UNIQUE INDEX accounts_address_any_case ON sealmilter.accounts (lower(address));

COMMENT ON TABLE sealmilter.accounts IS
  'One mailbox owner with choices of their own. The first key inserted for an address makes its account.';
COMMENT ON COLUMN sealmilter.accounts.address IS
  'The e-mail address, without angle brackets; letters match in either case.';
COMMENT ON COLUMN sealmilter.accounts.enabled IS 'false: mail to this account is passed as it is, keys or not.';
COMMENT ON COLUMN sealmilter.accounts.method IS 'openpgp or smime; NULL leaves the choice to the configuration and the keys.';
COMMENT ON COLUMN sealmilter.accounts.cipher IS 'aes256 or aes128: the cipher that messages are sealed with.';
COMMENT ON COLUMN sealmilter.accounts.options IS 'Further choices, a JSON object.';
COMMENT ON COLUMN sealmilter.accounts.created IS 'When the account was made.';

CREATE TABLE sealmilter.keys (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  address text COLLATE "C" NOT NULL REFERENCES sealmilter.accounts (address) ON UPDATE CASCADE ON DELETE CASCADE,
  key     text NOT NULL,
  added   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT key_is_empty          CHECK (key ~ '[^[:space:]]'),
  CONSTRAINT key_longer_than_1_mib CHECK (octet_length(key) <= 1048576)
);
CREATE INDEX keys_address ON sealmilter.keys (address, id);
-- A key that is there twice stays in use when it is deleted once. Of the text
-- only a hash fits into an index; md5() fails where the machine runs in FIPS mode.
CREATE UNIQUE INDEX key_is_enrolled_already ON sealmilter.keys (address, hashtextextended(key, 0));

COMMENT ON TABLE sealmilter.keys IS
  'The keys that mail is sealed to, any number for each account. Takes effect with the next message.';
COMMENT ON COLUMN sealmilter.keys.id IS 'The number of the key, for DELETE and for sealmilter key remove.';
COMMENT ON COLUMN sealmilter.keys.address IS 'The address of the account; an account is made where there is none.';
COMMENT ON COLUMN sealmilter.keys.key IS
  'The public key as text: an armored OpenPGP block, or base64 of a binary key; several in one text are several keys.';
COMMENT ON COLUMN sealmilter.keys.added IS 'When the key was inserted.';

COMMENT ON TABLE sealmilter.schema_version IS 'Which migrations of sealmilter have been applied; written by sealmilter migrate only.';
COMMENT ON COLUMN sealmilter.schema_version.id IS 'The order in which they were applied.';
COMMENT ON COLUMN sealmilter.schema_version.version_id IS 'The number of the migration.';
COMMENT ON COLUMN sealmilter.schema_version.is_applied IS 'Whether it was applied.';
COMMENT ON COLUMN sealmilter.schema_version.tstamp IS 'When it was applied.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.accounts_lower_domain() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  domain text := substring(NEW.address FROM '[^@]*$');
BEGIN
  NEW.address := left(NEW.address, -length(domain)) || lower(domain COLLATE "C");
  RETURN NEW;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.accounts_lower_domain() IS 'Puts the domain of an account''s address into lower case.';
CREATE TRIGGER lower_domain BEFORE INSERT OR UPDATE OF address ON sealmilter.accounts
  FOR EACH ROW EXECUTE FUNCTION sealmilter.accounts_lower_domain();

-- +goose StatementBegin
CREATE FUNCTION sealmilter.keys_find_account() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO sealmilter.accounts (address) VALUES (NEW.address) ON CONFLICT DO NOTHING;
  SELECT a.address INTO STRICT NEW.address
    FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(NEW.address COLLATE "C");
  RETURN NEW;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.keys_find_account() IS
  'Makes the account of a key where there is none, and gives the key''s address the account''s spelling.';
CREATE TRIGGER find_account BEFORE INSERT OR UPDATE OF address ON sealmilter.keys
  FOR EACH ROW EXECUTE FUNCTION sealmilter.keys_find_account();

-- The columns of this function are frozen; what comes later goes into options.
-- A site with tables of its own replaces it (contrib/postgres/postfixadmin.sql).
-- It runs with its owner's rights, so that the daemon's role needs none on the
-- tables; hence the pinned search_path and the qualified names. OFFSET 0 keeps
-- the planner from joining whole tables: it cannot know how many addresses are
-- asked, and has no statistics right after an import.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.recipient_keys(addresses text[])
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

REVOKE ALL ON FUNCTION sealmilter.recipient_keys(text[]), sealmilter.accounts_lower_domain(),
  sealmilter.keys_find_account() FROM PUBLIC;

-- +goose Down

DROP FUNCTION sealmilter.recipient_keys(text[]);
DROP TABLE sealmilter.keys, sealmilter.accounts;
DROP FUNCTION sealmilter.accounts_lower_domain(), sealmilter.keys_find_account();
