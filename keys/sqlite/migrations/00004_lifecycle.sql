-- What becomes of a key between its enrolment and its end, and who did what to
-- it.

-- +goose Up

ALTER TABLE keys ADD COLUMN state TEXT NOT NULL DEFAULT 'active'  -- pending, active, retired or revoked
  CONSTRAINT state_unknown CHECK (state IN ('pending', 'active', 'retired', 'revoked'));
ALTER TABLE keys ADD COLUMN state_since TEXT                      -- UTC; NULL: since it was added
  CONSTRAINT state_since_is_no_time CHECK (datetime(state_since) IS NOT NULL OR state_since IS NULL);
ALTER TABLE keys ADD COLUMN fingerprint TEXT                      -- NULL until sealmilter has read the key as it is now
  CONSTRAINT fingerprint_not_in_upper_case_hexadecimal CHECK (fingerprint NOT GLOB '*[^0-9A-F]*' AND fingerprint <> '');
ALTER TABLE keys ADD COLUMN problem TEXT                          -- what key check has found last; NULL is nothing
  CONSTRAINT problem_is_empty CHECK (problem <> '');
ALTER TABLE keys ADD COLUMN checked TEXT;                         -- when it has looked last, UTC
ALTER TABLE keys ADD COLUMN challenge BLOB                        -- SHA-256 of the nonce that has to come back
  CONSTRAINT challenge_is_not_32_bytes CHECK (length(challenge) = 32);
ALTER TABLE keys ADD COLUMN challenge_until INTEGER;              -- until when, in seconds since 1970
ALTER TABLE keys ADD COLUMN challenge_tries INTEGER NOT NULL DEFAULT 0;

-- The warnings that sealmilter notify has sent.
CREATE TABLE warnings (
  key_id  INTEGER NOT NULL REFERENCES keys (id) ON DELETE CASCADE,
  kind    TEXT NOT NULL,
  expires INTEGER NOT NULL,                          -- the end that was warned of, in seconds since 1970
  sent    TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,   -- UTC
  PRIMARY KEY (key_id, kind, expires),
  CONSTRAINT kind_is_empty CHECK (kind <> '')
);
-- +goose StatementBegin
CREATE TRIGGER keys_delete_warnings AFTER DELETE ON keys BEGIN
  DELETE FROM warnings WHERE key_id = OLD.id;
END;
-- +goose StatementEnd

-- Whose changes these are: one row, for the length of a transaction. SQLite
-- knows no users, so that what the sqlite3 shell does is nobody's.
CREATE TABLE actor (name TEXT NOT NULL);

-- Written by triggers. SQLite has no SHA-256: where nobody has read a key, its
-- text is kept here when it goes.
CREATE TABLE events (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  at          TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,  -- UTC
  who         TEXT,
  action      TEXT NOT NULL,
  address     TEXT COLLATE NOCASE,
  key_id      INTEGER,
  fingerprint TEXT,
  detail      TEXT NOT NULL DEFAULT '{}',               -- a JSON object; what was changed is [before, after]
  key         TEXT                                      -- as it was before
);
CREATE INDEX events_address ON events (address, id);
CREATE INDEX events_key ON events (key_id, id) WHERE key IS NOT NULL;

-- Says since when a key has its state, and forgets what was known of the text
-- that it had before.
-- +goose StatementBegin
CREATE TRIGGER keys_note_state AFTER UPDATE OF state ON keys WHEN NEW.state <> OLD.state BEGIN
  UPDATE keys SET challenge = NULL, challenge_until = NULL,
    state_since = CASE WHEN NEW.state_since IS OLD.state_since THEN CURRENT_TIMESTAMP ELSE NEW.state_since END
    WHERE id = NEW.id;
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER keys_note_text AFTER UPDATE OF key ON keys WHEN NEW.key <> OLD.key BEGIN
  UPDATE keys SET challenge = NULL, challenge_until = NULL,
    fingerprint = CASE WHEN NEW.fingerprint IS NOT OLD.fingerprint THEN NEW.fingerprint END,
    problem = CASE WHEN NEW.problem IS NOT OLD.problem THEN NEW.problem END,
    checked = CASE WHEN NEW.checked IS NOT OLD.checked THEN NEW.checked END
    WHERE id = NEW.id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER keys_added AFTER INSERT ON keys BEGIN
  INSERT INTO events (who, action, address, key_id, fingerprint, detail)
    VALUES ((SELECT name FROM actor), 'key added', (SELECT a.address FROM accounts AS a WHERE a.address = NEW.address), NEW.id, NEW.fingerprint,
      json_patch(CASE WHEN NEW.state = 'active' THEN '{}' ELSE json_object('state', NEW.state) END,
        CASE WHEN NEW.options = '{}' THEN '{}' ELSE json_object('options', json(NEW.options)) END));
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER keys_removed AFTER DELETE ON keys BEGIN
  INSERT INTO events (who, action, address, key_id, fingerprint, detail, key)
    VALUES ((SELECT name FROM actor), 'key removed', OLD.address, OLD.id, OLD.fingerprint,
      json_patch(CASE WHEN OLD.state = 'active' THEN '{}' ELSE json_object('state', OLD.state) END,
        CASE WHEN OLD.options = '{}' THEN '{}' ELSE json_object('options', json(OLD.options)) END),
      CASE WHEN OLD.fingerprint IS NULL THEN OLD.key END);
END;
-- +goose StatementEnd
-- That a fingerprint is forgotten with the text that had it is no event of its
-- own, and neither is the spelling of an address. A merge patch drops what is
-- null, so that each change is an array.
-- +goose StatementBegin
CREATE TRIGGER keys_changed AFTER UPDATE ON keys
  WHEN NEW.address <> OLD.address OR NEW.key <> OLD.key OR NEW.options <> OLD.options OR NEW.state <> OLD.state
    OR (NEW.fingerprint IS NOT OLD.fingerprint AND NEW.fingerprint IS NOT NULL) OR (NEW.problem IS NOT OLD.problem AND NEW.checked IS NOT NULL)
    OR (NEW.challenge IS NOT OLD.challenge AND NEW.challenge IS NOT NULL) OR NEW.challenge_tries <> OLD.challenge_tries
BEGIN
  INSERT INTO events (who, action, address, key_id, fingerprint, detail, key)
    SELECT (SELECT name FROM actor), CASE WHEN NEW.state <> OLD.state THEN 'key ' || NEW.state ELSE 'key changed' END,
      NEW.address, NEW.id, CASE WHEN NEW.key <> OLD.key AND NEW.fingerprint IS OLD.fingerprint THEN NULL ELSE NEW.fingerprint END,
      (SELECT json_group_object(c.name, json_array(json(c.before), json(c.after))) FROM (
        SELECT 'address' AS name, json_quote(OLD.address) AS before, json_quote(NEW.address) AS after WHERE NEW.address <> OLD.address
        UNION ALL SELECT 'options', OLD.options, NEW.options WHERE NEW.options <> OLD.options
        UNION ALL SELECT 'state', json_quote(OLD.state), json_quote(NEW.state) WHERE NEW.state <> OLD.state
        UNION ALL SELECT 'fingerprint', json_quote(OLD.fingerprint), json_quote(NEW.fingerprint) WHERE NEW.fingerprint IS NOT OLD.fingerprint
        UNION ALL SELECT 'problem', json_quote(OLD.problem), json_quote(NEW.problem) WHERE NEW.problem IS NOT OLD.problem
        UNION ALL SELECT 'challenge_until', json_quote(strftime('%Y-%m-%dT%H:%M:%SZ', OLD.challenge_until, 'unixepoch')),
          json_quote(strftime('%Y-%m-%dT%H:%M:%SZ', NEW.challenge_until, 'unixepoch')) WHERE NEW.challenge_until IS NOT OLD.challenge_until
        UNION ALL SELECT 'challenge_tries', OLD.challenge_tries, NEW.challenge_tries WHERE NEW.challenge_tries <> OLD.challenge_tries
      ) AS c),
      CASE WHEN NEW.key <> OLD.key AND OLD.fingerprint IS NULL THEN OLD.key END;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER accounts_added AFTER INSERT ON accounts BEGIN
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'account added', rtrim(NEW.address, replace(NEW.address, '@', ''))
        || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1)),
      CASE WHEN NEW.enabled AND NEW.method IS NULL AND NEW.cipher = 'aes256' AND NEW.options = '{}' THEN '{}'
        ELSE json_object('enabled', json(CASE WHEN NEW.enabled THEN 'true' ELSE 'false' END), 'method', NEW.method,
          'cipher', NEW.cipher, 'options', json(NEW.options)) END);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER accounts_removed AFTER DELETE ON accounts BEGIN
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'account removed', OLD.address,
      CASE WHEN OLD.enabled AND OLD.method IS NULL AND OLD.cipher = 'aes256' AND OLD.options = '{}' THEN '{}'
        ELSE json_object('enabled', json(CASE WHEN OLD.enabled THEN 'true' ELSE 'false' END), 'method', OLD.method,
          'cipher', OLD.cipher, 'options', json(OLD.options)) END);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER accounts_changed AFTER UPDATE ON accounts
  WHEN NEW.address <> OLD.address OR NEW.enabled <> OLD.enabled OR NEW.method IS NOT OLD.method OR NEW.cipher <> OLD.cipher
    OR NEW.options <> OLD.options
BEGIN
  INSERT INTO events (who, action, address, detail)
    SELECT (SELECT name FROM actor), 'account changed', NEW.address,
      (SELECT json_group_object(c.name, json_array(json(c.before), json(c.after))) FROM (
        SELECT 'address' AS name, json_quote(OLD.address) AS before, json_quote(NEW.address) AS after WHERE NEW.address <> OLD.address
        UNION ALL SELECT 'enabled', CASE WHEN OLD.enabled THEN 'true' ELSE 'false' END, CASE WHEN NEW.enabled THEN 'true' ELSE 'false' END
          WHERE NEW.enabled <> OLD.enabled
        UNION ALL SELECT 'method', json_quote(OLD.method), json_quote(NEW.method) WHERE NEW.method IS NOT OLD.method
        UNION ALL SELECT 'cipher', json_quote(OLD.cipher), json_quote(NEW.cipher) WHERE NEW.cipher <> OLD.cipher
        UNION ALL SELECT 'options', OLD.options, NEW.options WHERE NEW.options <> OLD.options
      ) AS c);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER aliases_added AFTER INSERT ON aliases BEGIN
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'alias added', NEW.address, json_object('target', NEW.target));
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER aliases_removed AFTER DELETE ON aliases BEGIN
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'alias removed', OLD.address, json_object('target', OLD.target));
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER aliases_changed AFTER UPDATE ON aliases WHEN NEW.address <> OLD.address OR NEW.target <> OLD.target BEGIN
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'alias removed', OLD.address, json_object('target', OLD.target));
  INSERT INTO events (who, action, address, detail)
    VALUES ((SELECT name FROM actor), 'alias added', NEW.address, json_object('target', NEW.target));
END;
-- +goose StatementEnd

-- Events only grow. To forget those before a time (UTC):
-- INSERT INTO forget_events (before) VALUES ('2027-01-01');
CREATE TABLE forgetting (before TEXT NOT NULL, count INTEGER NOT NULL);
-- +goose StatementBegin
CREATE TRIGGER events_never_change BEFORE UPDATE ON events BEGIN
  SELECT RAISE(ABORT, 'events_are_never_changed');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER events_only_grow BEFORE DELETE ON events WHEN NOT EXISTS (SELECT 1 FROM forgetting AS f WHERE OLD.at < f.before) BEGIN
  SELECT RAISE(ABORT, 'events_are_forgotten_by_forget_events_only');
END;
-- +goose StatementEnd
CREATE VIEW forget_events (before) AS SELECT NULL WHERE 0;
-- +goose StatementBegin
CREATE TRIGGER forget_events_before INSTEAD OF INSERT ON forget_events BEGIN
  SELECT RAISE(ABORT, 'before_is_no_time') WHERE datetime(NEW.before) IS NULL;
  INSERT INTO forgetting (before, count) SELECT datetime(NEW.before), count(*) FROM events WHERE at < datetime(NEW.before);
  DELETE FROM events WHERE at < datetime(NEW.before);
  INSERT INTO events (who, action, detail)
    SELECT (SELECT name FROM actor), 'events forgotten', json_object('before', f.before, 'count', f.count) FROM forgetting AS f;
  DELETE FROM forgetting;
END;
-- +goose StatementEnd

-- +goose Down

DROP VIEW forget_events;
DROP TABLE forgetting;
DROP TRIGGER keys_delete_warnings;
DROP TRIGGER keys_note_state;
DROP TRIGGER keys_note_text;
DROP TRIGGER keys_added;
DROP TRIGGER keys_removed;
DROP TRIGGER keys_changed;
DROP TRIGGER accounts_added;
DROP TRIGGER accounts_removed;
DROP TRIGGER accounts_changed;
DROP TRIGGER aliases_added;
DROP TRIGGER aliases_removed;
DROP TRIGGER aliases_changed;
DROP TABLE warnings;
-- Dropping the table deletes its rows, which its triggers would refuse.
DROP TRIGGER events_only_grow;
DROP TRIGGER events_never_change;
DROP TABLE events;
DROP TABLE actor;
-- Version 3 seals to every key that is there. What nobody has shown to be able
-- to read goes; so does what another has replaced. A revoked key leaves an
-- entry that cannot be read, so that its owner still counts as enrolled.
DELETE FROM keys WHERE state = 'pending'
  OR state = 'retired' AND EXISTS (SELECT 1 FROM keys AS other WHERE other.address = keys.address AND other.state = 'active');
UPDATE keys SET key = 'revoked, number ' || id WHERE state = 'revoked';
ALTER TABLE keys DROP COLUMN challenge_tries;
ALTER TABLE keys DROP COLUMN challenge_until;
ALTER TABLE keys DROP COLUMN challenge;
ALTER TABLE keys DROP COLUMN checked;
ALTER TABLE keys DROP COLUMN problem;
ALTER TABLE keys DROP COLUMN fingerprint;
ALTER TABLE keys DROP COLUMN state_since;
ALTER TABLE keys DROP COLUMN state;
