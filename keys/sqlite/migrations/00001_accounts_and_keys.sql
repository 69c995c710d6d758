-- The tables that an administrator writes, by the sqlite3 shell too. That one
-- does not enforce foreign keys unless told to, so what keeps the tables
-- consistent is written as triggers, which always run.

-- +goose Up

-- Addresses match without regard to the case of ASCII letters: that is what
-- NOCASE means, in the joins and in the indexes alike.
CREATE TABLE accounts (
  address TEXT COLLATE NOCASE NOT NULL PRIMARY KEY,  -- the e-mail address
  enabled INTEGER NOT NULL DEFAULT 1,                -- 0: mail to this account is passed as it is, keys or not
  method  TEXT,                                      -- openpgp or smime; NULL leaves the choice to the configuration
  cipher  TEXT NOT NULL DEFAULT 'aes256',            -- aes256 or aes128
  options TEXT NOT NULL DEFAULT '{}',                -- further choices, a JSON object
  created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,   -- UTC
  CONSTRAINT enabled_neither_0_nor_1 CHECK (enabled IN (0, 1)),
  CONSTRAINT method_unknown          CHECK (method IN ('openpgp', 'smime')),
  CONSTRAINT cipher_unknown          CHECK (cipher IN ('aes256', 'aes128')),
  CONSTRAINT options_not_an_object   CHECK (json_valid(options) AND json_type(options) = 'object'),
  CONSTRAINT created_is_no_time      CHECK (datetime(created) IS NOT NULL),
  -- Each name says what is wrong, for it is all that the shell prints. The
  -- domain is what rtrim leaves off: everything that is no @, from the end.
  CONSTRAINT address_without_domain         CHECK (instr(address, '@') > 0 AND address NOT LIKE '%@'),
  CONSTRAINT address_without_local_part     CHECK (address NOT LIKE '@%'),
  CONSTRAINT address_with_blanks_around     CHECK (address = trim(address)),
  CONSTRAINT address_with_blank_in_domain
    CHECK (instr(substr(address, length(rtrim(address, replace(address, '@', ''))) + 1), ' ') = 0),
  CONSTRAINT address_with_control_character
    CHECK (address NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  CONSTRAINT address_in_angle_brackets      CHECK (instr(address, '<') = 0 AND instr(address, '>') = 0),
  -- Mail is looked up without them, so that an account that has them is never found.
  CONSTRAINT address_in_quotes              CHECK (NOT (address LIKE '"%' AND rtrim(address, replace(address, '@', '')) LIKE '"%"@')),
  CONSTRAINT address_with_final_dot         CHECK (address NOT LIKE '%.')
);

CREATE TABLE keys (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,         -- the number of the key, never given twice
  address TEXT COLLATE NOCASE NOT NULL REFERENCES accounts (address) ON UPDATE CASCADE ON DELETE CASCADE,
  key     TEXT NOT NULL,                             -- the public key as text, armored or base64
  added   TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,   -- UTC
  CONSTRAINT key_is_empty          CHECK (trim(key, ' ' || char(9, 10, 13)) <> ''),
  CONSTRAINT key_longer_than_1_mib CHECK (length(CAST(key AS BLOB)) <= 1048576),
  CONSTRAINT added_is_no_time      CHECK (datetime(added) IS NOT NULL)
);
CREATE INDEX keys_address ON keys (address, id);
-- A key that is there twice stays in use when it is deleted once. Of an index on
-- columns alone SQLite would print the columns and not the name.
CREATE UNIQUE INDEX key_is_enrolled_already ON keys (address, (key || ''));
CREATE INDEX keys_listed ON keys (address COLLATE BINARY, id);

-- +goose StatementBegin
CREATE TRIGGER accounts_lower_domain_on_insert AFTER INSERT ON accounts BEGIN
  UPDATE accounts
    SET address = rtrim(NEW.address, replace(NEW.address, '@', ''))
      || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1))
    WHERE address = NEW.address;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_lower_domain_on_update AFTER UPDATE OF address ON accounts
  WHEN NEW.address COLLATE BINARY <> rtrim(NEW.address, replace(NEW.address, '@', ''))
    || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1))
BEGIN
  UPDATE accounts
    SET address = rtrim(NEW.address, replace(NEW.address, '@', ''))
      || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1))
    WHERE address = NEW.address;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_rename_keys AFTER UPDATE OF address ON accounts BEGIN
  UPDATE keys SET address = (SELECT a.address FROM accounts AS a WHERE a.address = NEW.address)
    WHERE address IN (OLD.address, NEW.address);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_delete_keys AFTER DELETE ON accounts BEGIN
  DELETE FROM keys WHERE address = OLD.address;
END;
-- +goose StatementEnd

-- Not INSERT OR IGNORE: that would leave out an address that a CHECK refuses,
-- and a key inserted with OR REPLACE would replace its account.
-- +goose StatementBegin
CREATE TRIGGER keys_make_account_on_insert BEFORE INSERT ON keys BEGIN
  INSERT INTO accounts (address)
    SELECT NEW.address WHERE NOT EXISTS (SELECT 1 FROM accounts AS a WHERE a.address = NEW.address);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER keys_make_account_on_update BEFORE UPDATE OF address ON keys BEGIN
  INSERT INTO accounts (address)
    SELECT NEW.address WHERE NOT EXISTS (SELECT 1 FROM accounts AS a WHERE a.address = NEW.address);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER keys_find_account_on_insert AFTER INSERT ON keys BEGIN
  UPDATE keys SET address = (SELECT a.address FROM accounts AS a WHERE a.address = NEW.address) WHERE id = NEW.id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER keys_find_account_on_update AFTER UPDATE OF address ON keys
  WHEN NEW.address COLLATE BINARY <> (SELECT a.address FROM accounts AS a WHERE a.address = NEW.address)
BEGIN
  UPDATE keys SET address = (SELECT a.address FROM accounts AS a WHERE a.address = NEW.address) WHERE id = NEW.id;
END;
-- +goose StatementEnd

-- +goose Down

DROP TABLE keys;
DROP TABLE accounts;
