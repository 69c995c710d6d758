-- Who is meant by an address: aliases, and accounts that a whole domain has.

-- +goose Up

-- '@example.org' is the account of a domain. What else begins with an @ lacks
-- something: a source route, "@relay:ann@example.org" as it was once written.
-- SQLite cannot alter a constraint. Where one becomes wider and no row changes,
-- its documentation (lang_altertable, "Making other kinds of table schema
-- changes") has the text of the table changed: nothing is copied, and the
-- triggers of both tables stay as they are.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
  SET sql = replace(sql, 'CHECK (address NOT LIKE ''@%'')', 'CHECK (address NOT LIKE ''@%@%'')')
  WHERE type = 'table' AND name = 'accounts';
PRAGMA writable_schema = RESET;

CREATE TABLE aliases (
  address TEXT COLLATE NOCASE NOT NULL,  -- what mail is addressed to; @example.org is whatever has no other entry there
  target  TEXT COLLATE NOCASE NOT NULL,  -- an address, another alias, the alias itself; @example.net keeps the local part
  PRIMARY KEY (address, target),
  CONSTRAINT address_without_domain         CHECK (instr(address, '@') > 0 AND address NOT LIKE '%@'),
  CONSTRAINT address_without_local_part     CHECK (address NOT LIKE '@%@%'),
  CONSTRAINT address_with_blanks_around     CHECK (address = trim(address)),
  CONSTRAINT address_with_blank_in_domain
    CHECK (instr(substr(address, length(rtrim(address, replace(address, '@', ''))) + 1), ' ') = 0),
  CONSTRAINT address_with_control_character
    CHECK (address NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  CONSTRAINT address_in_angle_brackets      CHECK (instr(address, '<') = 0 AND instr(address, '>') = 0),
  CONSTRAINT address_in_quotes              CHECK (NOT (address LIKE '"%' AND rtrim(address, replace(address, '@', '')) LIKE '"%"@')),
  CONSTRAINT address_with_final_dot         CHECK (address NOT LIKE '%.'),
  CONSTRAINT target_without_domain          CHECK (instr(target, '@') > 0 AND target NOT LIKE '%@'),
  -- Only of a whole domain there is a local part that a whole domain can keep.
  CONSTRAINT target_without_local_part      CHECK (target NOT LIKE '@%@%' AND (target NOT LIKE '@%' OR address LIKE '@%')),
  CONSTRAINT target_with_blanks_around      CHECK (target = trim(target)),
  CONSTRAINT target_with_blank_in_domain
    CHECK (instr(substr(target, length(rtrim(target, replace(target, '@', ''))) + 1), ' ') = 0),
  CONSTRAINT target_with_control_character
    CHECK (target NOT GLOB '*[' || char(1) || '-' || char(31) || char(127) || ']*'),
  CONSTRAINT target_in_angle_brackets       CHECK (instr(target, '<') = 0 AND instr(target, '>') = 0),
  CONSTRAINT target_in_quotes               CHECK (NOT (target LIKE '"%' AND rtrim(target, replace(target, '@', '')) LIKE '"%"@')),
  CONSTRAINT target_with_final_dot          CHECK (target NOT LIKE '%.')
);
CREATE INDEX aliases_listed ON aliases (address COLLATE BINARY, target COLLATE BINARY);

-- +goose StatementBegin
CREATE TRIGGER aliases_lower_domains_on_insert AFTER INSERT ON aliases BEGIN
  UPDATE aliases
    SET address = rtrim(NEW.address, replace(NEW.address, '@', ''))
        || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1)),
      target = rtrim(NEW.target, replace(NEW.target, '@', ''))
        || lower(substr(NEW.target, length(rtrim(NEW.target, replace(NEW.target, '@', ''))) + 1))
    WHERE address = NEW.address AND target = NEW.target;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER aliases_lower_domains_on_update AFTER UPDATE ON aliases
  WHEN (NEW.address || NEW.target) COLLATE BINARY <> rtrim(NEW.address, replace(NEW.address, '@', ''))
      || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1))
      || rtrim(NEW.target, replace(NEW.target, '@', ''))
      || lower(substr(NEW.target, length(rtrim(NEW.target, replace(NEW.target, '@', ''))) + 1))
BEGIN
  UPDATE aliases
    SET address = rtrim(NEW.address, replace(NEW.address, '@', ''))
        || lower(substr(NEW.address, length(rtrim(NEW.address, replace(NEW.address, '@', ''))) + 1)),
      target = rtrim(NEW.target, replace(NEW.target, '@', ''))
        || lower(substr(NEW.target, length(rtrim(NEW.target, replace(NEW.target, '@', ''))) + 1))
    WHERE address = NEW.address AND target = NEW.target;
END;
-- +goose StatementEnd

-- +goose Down

-- Aliases and domains go: version 1 has no place for them.
DROP TABLE aliases;
DELETE FROM accounts WHERE address LIKE '@%';
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
  SET sql = replace(sql, 'CHECK (address NOT LIKE ''@%@%'')', 'CHECK (address NOT LIKE ''@%'')')
  WHERE type = 'table' AND name = 'accounts';
PRAGMA writable_schema = RESET;
