-- What becomes of a key between its enrolment and its end, who did what to
-- it, and how those who remember keys hear of it.

-- +goose Up

-- As in version 2: what a site has written is not overwritten without a word.
-- +goose StatementBegin
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_proc AS p
             WHERE p.oid = to_regprocedure('sealmilter.recipient_keys(text[])')
               AND encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex') <> '1e12ecd23f50465373b1f5e533c2421dccb9662012f28d6532a8d43e2f490cde') THEN
    RAISE EXCEPTION 'sealmilter.recipient_keys is not as sealmilter has made it'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'drop the function and migrate; then load yours again, and roles.sql after it';
  END IF;
END
$$;
-- +goose StatementEnd

ALTER TABLE sealmilter.keys
  ADD COLUMN state text NOT NULL DEFAULT 'active'
    CONSTRAINT state_unknown CHECK (state IN ('pending', 'active', 'retired', 'revoked')),
  ADD COLUMN state_since timestamptz,
  ADD COLUMN fingerprint text COLLATE "C"
    CONSTRAINT fingerprint_not_in_upper_case_hexadecimal CHECK (fingerprint ~ '^[0-9A-F]+$'),
  ADD COLUMN problem text CONSTRAINT problem_is_empty CHECK (problem <> ''),
  ADD COLUMN checked timestamptz,
  ADD COLUMN challenge bytea CONSTRAINT challenge_is_not_32_bytes CHECK (octet_length(challenge) = 32),
  ADD COLUMN challenge_until timestamptz,
  ADD COLUMN challenge_tries integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN sealmilter.keys.state IS
  'pending: nobody has shown yet that they can read; active; retired: not sealed to any more, and its owner still counts as '
  'enrolled, so that without another key their mail waits; revoked: withdrawn, as if its holder had revoked it.';
COMMENT ON COLUMN sealmilter.keys.state_since IS 'When the state became what it is; NULL: when the key was added. Set by a trigger.';
COMMENT ON COLUMN sealmilter.keys.fingerprint IS
  'As sealmilter has read it from the key, in upper-case hexadecimal; NULL until it has, and again when the key is changed.';
COMMENT ON COLUMN sealmilter.keys.problem IS 'What sealmilter key check has found last; NULL is nothing.';
COMMENT ON COLUMN sealmilter.keys.checked IS 'When sealmilter key check has looked last.';
COMMENT ON COLUMN sealmilter.keys.challenge IS 'SHA-256 of the nonce that was sealed to a pending key and has to come back.';
COMMENT ON COLUMN sealmilter.keys.challenge_until IS 'Until when it may come back.';
COMMENT ON COLUMN sealmilter.keys.challenge_tries IS 'How often something else came back; ten times are the end of it.';

-- Which warnings of a key's end have been sent.
CREATE TABLE sealmilter.warnings (
  key_id  bigint NOT NULL REFERENCES sealmilter.keys (id) ON DELETE CASCADE,
  kind    text COLLATE "C" NOT NULL CONSTRAINT kind_is_empty CHECK (kind <> ''),
  expires timestamptz NOT NULL,
  sent    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (key_id, kind, expires)
);
COMMENT ON TABLE sealmilter.warnings IS 'The warnings that sealmilter notify has sent, each of them once for a key and its end.';
COMMENT ON COLUMN sealmilter.warnings.key_id IS 'The number of the key.';
COMMENT ON COLUMN sealmilter.warnings.kind IS 'Which of the warnings.';
COMMENT ON COLUMN sealmilter.warnings.expires IS 'The end that was warned of: a key that is prolonged is warned of again.';
COMMENT ON COLUMN sealmilter.warnings.sent IS 'When it was sent.';

CREATE TABLE sealmilter.events (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at          timestamptz NOT NULL DEFAULT now(),
  who         text NOT NULL DEFAULT coalesce(nullif(current_setting('sealmilter.actor', true), ''), session_user),
  action      text NOT NULL,
  address     text COLLATE "C",
  key_id      bigint,
  fingerprint text COLLATE "C",
  detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX events_address ON sealmilter.events (lower(address), id);
COMMENT ON TABLE sealmilter.events IS
  'What was done to accounts, keys and aliases. Written by triggers; never changed, and deleted by forget_events() only.';
COMMENT ON COLUMN sealmilter.events.id IS 'The number of the event.';
COMMENT ON COLUMN sealmilter.events.at IS 'When the transaction began that did it.';
COMMENT ON COLUMN sealmilter.events.who IS
  'The setting sealmilter.actor of that transaction, or else the role that was logged in; beside a setting the role is in detail.';
COMMENT ON COLUMN sealmilter.events.action IS
  'key added, changed, removed, pending, active, retired or revoked; account or alias added, changed or removed; events forgotten.';
COMMENT ON COLUMN sealmilter.events.address IS 'The address of the account or the alias.';
COMMENT ON COLUMN sealmilter.events.key_id IS 'The number of the key.';
COMMENT ON COLUMN sealmilter.events.fingerprint IS 'The key''s fingerprint, where it was known.';
COMMENT ON COLUMN sealmilter.events.detail IS
  'What was changed, as [before, after]; sha256 is that of a key''s text, where its fingerprint was not known.';

-- What a change was, of two rows as objects.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.difference(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(name, jsonb_build_array(before -> name, after -> name)), '{}')
  FROM jsonb_object_keys(before || after) AS name
  WHERE before -> name IS DISTINCT FROM after -> name
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.difference(jsonb, jsonb) IS 'What is another in two objects, each as [before, after].';

-- Who is behind an actor that only says its name. This function and the two
-- that make objects for events have no search_path of their own, which would
-- make calls of them where the planner can put their text in the place; those
-- who use them have one.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.behind_actor() RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN nullif(current_setting('sealmilter.actor', true), '') IS NULL THEN '{}'
    ELSE jsonb_build_object('role', session_user) END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.behind_actor() IS 'The role that was logged in, where sealmilter.actor names somebody.';

-- Whoever listens is told of each address, or, where those are many, that
-- anything may have changed: an import must not fill the server's queue. What
-- is longer than a notification may be is no address that mail can have.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.tell(addresses text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF cardinality(addresses) > 100 OR EXISTS (SELECT FROM unnest(addresses) AS a WHERE octet_length(a) > 1000) THEN
    addresses := '{""}';
  END IF;
  PERFORM pg_notify('sealmilter_changes', a) FROM unnest(addresses) AS a;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.tell(text[]) IS 'Tells whoever listens to sealmilter_changes that these addresses, or many, have changed.';

-- What identifies a key's text in an event, and what is not as usual with it.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.key_detail(key text, fingerprint text, state text, options jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT sealmilter.behind_actor()
    || CASE WHEN key_detail.fingerprint IS NULL THEN jsonb_build_object('sha256', encode(sha256(convert_to(key_detail.key, 'UTF8')), 'hex')) ELSE '{}' END
    || CASE WHEN key_detail.state <> 'active' THEN jsonb_build_object('state', key_detail.state) ELSE '{}' END
    || CASE WHEN key_detail.options <> '{}' THEN jsonb_build_object('options', key_detail.options) ELSE '{}' END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.key_detail(text, text, text, jsonb) IS 'What an event says of a key that was added or removed.';

-- The triggers run once for a statement, on all its rows, so that an import
-- pays little for them. They write events with their owner's rights: nobody
-- else may.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.keys_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  touched text[];
BEGIN
  CASE TG_OP
  WHEN 'INSERT' THEN
    INSERT INTO sealmilter.events (action, address, key_id, fingerprint, detail)
      SELECT 'key added', n.address, n.id, n.fingerprint, sealmilter.key_detail(n.key, n.fingerprint, n.state, n.options) FROM new_rows AS n;
    touched := ARRAY(SELECT DISTINCT lower(n.address) FROM new_rows AS n LIMIT 101);
  WHEN 'DELETE' THEN
    INSERT INTO sealmilter.events (action, address, key_id, fingerprint, detail)
      SELECT 'key removed', o.address, o.id, o.fingerprint, sealmilter.key_detail(o.key, o.fingerprint, o.state, o.options) FROM old_rows AS o;
    touched := ARRAY(SELECT DISTINCT lower(o.address) FROM old_rows AS o LIMIT 101);
  WHEN 'UPDATE' THEN
    INSERT INTO sealmilter.events (action, address, key_id, fingerprint, detail)
      SELECT CASE WHEN o.state <> n.state THEN 'key ' || n.state ELSE 'key changed' END,
        coalesce(n.address, o.address), coalesce(n.id, o.id), n.fingerprint,
        sealmilter.difference(
          jsonb_build_object('id', o.id, 'address', o.address, 'options', o.options, 'state', o.state, 'fingerprint', o.fingerprint,
            'problem', o.problem, 'challenge_until', o.challenge_until, 'challenge_tries', o.challenge_tries,
            'sha256', CASE WHEN o.key IS DISTINCT FROM n.key THEN encode(sha256(convert_to(o.key, 'UTF8')), 'hex') END),
          jsonb_build_object('id', n.id, 'address', n.address, 'options', n.options, 'state', n.state, 'fingerprint', n.fingerprint,
            'problem', n.problem, 'challenge_until', n.challenge_until, 'challenge_tries', n.challenge_tries,
            'sha256', CASE WHEN o.key IS DISTINCT FROM n.key THEN encode(sha256(convert_to(n.key, 'UTF8')), 'hex') END))
        || sealmilter.behind_actor()
      FROM old_rows AS o FULL JOIN new_rows AS n ON n.id = o.id
      WHERE (o.id, o.address, o.key, o.options, o.state, o.fingerprint, o.problem, o.challenge, o.challenge_tries) IS DISTINCT FROM
            (n.id, n.address, n.key, n.options, n.state, n.fingerprint, n.problem, n.challenge, n.challenge_tries);
    touched := ARRAY(SELECT DISTINCT lower(a.address)
      FROM old_rows AS o FULL JOIN new_rows AS n ON n.id = o.id CROSS JOIN LATERAL (VALUES (o.address), (n.address)) AS a (address)
      WHERE (o.address, o.key, o.options, o.state, o.state_since) IS DISTINCT FROM (n.address, n.key, n.options, n.state, n.state_since)
        AND a.address IS NOT NULL LIMIT 101);
  ELSE
    INSERT INTO sealmilter.events (action, detail) VALUES ('all keys removed', sealmilter.behind_actor());
    touched := '{""}';
  END CASE;
  PERFORM sealmilter.tell(touched);
  RETURN NULL;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.keys_changed() IS 'Writes the events of keys, and tells of the addresses.';
CREATE TRIGGER inserted AFTER INSERT ON sealmilter.keys REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.keys_changed();
CREATE TRIGGER updated AFTER UPDATE ON sealmilter.keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.keys_changed();
CREATE TRIGGER deleted AFTER DELETE ON sealmilter.keys REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.keys_changed();
CREATE TRIGGER truncated AFTER TRUNCATE ON sealmilter.keys
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.keys_changed();

-- +goose StatementBegin
CREATE FUNCTION sealmilter.accounts_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  touched text[];
BEGIN
  CASE TG_OP
  WHEN 'INSERT' THEN
    INSERT INTO sealmilter.events (action, address, detail)
      SELECT 'account added', n.address, sealmilter.behind_actor() || sealmilter.choices(n.enabled, n.method, n.cipher, n.options) FROM new_rows AS n;
    touched := ARRAY(SELECT DISTINCT lower(n.address) FROM new_rows AS n LIMIT 101);
  WHEN 'DELETE' THEN
    INSERT INTO sealmilter.events (action, address, detail)
      SELECT 'account removed', o.address, sealmilter.behind_actor() || sealmilter.choices(o.enabled, o.method, o.cipher, o.options) FROM old_rows AS o;
    touched := ARRAY(SELECT DISTINCT lower(o.address) FROM old_rows AS o LIMIT 101);
  WHEN 'UPDATE' THEN
    touched := ARRAY(SELECT DISTINCT lower(a.address) FROM
      ((SELECT o.address, o.enabled, o.method, o.cipher, o.options FROM old_rows AS o
        EXCEPT SELECT n.address, n.enabled, n.method, n.cipher, n.options FROM new_rows AS n)
       UNION ALL
       (SELECT n.address, n.enabled, n.method, n.cipher, n.options FROM new_rows AS n
        EXCEPT SELECT o.address, o.enabled, o.method, o.cipher, o.options FROM old_rows AS o)) AS a LIMIT 101);
  ELSE
    INSERT INTO sealmilter.events (action, detail) VALUES ('all accounts removed', sealmilter.behind_actor());
    touched := '{""}';
  END CASE;
  PERFORM sealmilter.tell(touched);
  RETURN NULL;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.accounts_changed() IS 'Writes the events of accounts, and tells of the addresses.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.choices(enabled boolean, method text, cipher text, options jsonb) RETURNS jsonb
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN choices.enabled AND choices.method IS NULL AND choices.cipher = 'aes256' AND choices.options = '{}' THEN '{}'
    ELSE jsonb_build_object('enabled', choices.enabled, 'method', choices.method, 'cipher', choices.cipher, 'options', choices.options) END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.choices(boolean, text, text, jsonb) IS 'What an event says of an account''s choices, if there are any.';

-- A row of accounts has no number by which its old and new state could be
-- matched where the address is changed. The accounts that keys bring along are
-- made one by one, within the statement that inserts the keys; of those only
-- the statement tells.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.account_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    INSERT INTO sealmilter.events (action, address, detail) VALUES ('account changed', NEW.address, sealmilter.difference(
        jsonb_build_object('address', OLD.address, 'enabled', OLD.enabled, 'method', OLD.method, 'cipher', OLD.cipher, 'options', OLD.options),
        jsonb_build_object('address', NEW.address, 'enabled', NEW.enabled, 'method', NEW.method, 'cipher', NEW.cipher, 'options', NEW.options))
      || sealmilter.behind_actor());
    RETURN NULL;
  END IF;
  INSERT INTO sealmilter.events (action, address, detail)
    VALUES ('account added', NEW.address, sealmilter.behind_actor() || sealmilter.choices(NEW.enabled, NEW.method, NEW.cipher, NEW.options));
  IF current_setting('sealmilter.account_of_key', true) IS DISTINCT FROM NEW.address THEN
    PERFORM sealmilter.tell(ARRAY[lower(NEW.address)]);
  END IF;
  RETURN NULL;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.account_changed() IS 'Writes the event of one account, where they cannot be told apart together.';
CREATE TRIGGER inserted AFTER INSERT ON sealmilter.accounts REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION sealmilter.accounts_changed();
CREATE TRIGGER inserted_by_another AFTER INSERT ON sealmilter.accounts
  FOR EACH ROW WHEN (pg_trigger_depth() > 0) EXECUTE FUNCTION sealmilter.account_changed();
CREATE TRIGGER updated AFTER UPDATE ON sealmilter.accounts REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.accounts_changed();
CREATE TRIGGER updated_one AFTER UPDATE ON sealmilter.accounts
  FOR EACH ROW WHEN ((OLD.address, OLD.enabled, OLD.method, OLD.cipher, OLD.options) IS DISTINCT FROM
    (NEW.address, NEW.enabled, NEW.method, NEW.cipher, NEW.options)) EXECUTE FUNCTION sealmilter.account_changed();
CREATE TRIGGER deleted AFTER DELETE ON sealmilter.accounts REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.accounts_changed();
CREATE TRIGGER truncated AFTER TRUNCATE ON sealmilter.accounts
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.accounts_changed();

-- As before, but that it inserts nothing where there is nothing to insert.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.keys_find_account() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found_as text;
BEGIN
  SELECT a.address INTO found_as FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(NEW.address COLLATE "C");
  IF NOT FOUND THEN
    PERFORM set_config('sealmilter.account_of_key',
      left(NEW.address, -length(substring(NEW.address FROM '[^@]*$'))) || lower(substring(NEW.address FROM '[^@]*$') COLLATE "C"), true);
    INSERT INTO sealmilter.accounts (address) VALUES (NEW.address) ON CONFLICT DO NOTHING RETURNING address INTO found_as;
    IF NOT FOUND THEN -- another has made it at this moment
      SELECT a.address INTO STRICT found_as FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(NEW.address COLLATE "C");
    END IF;
  END IF;
  NEW.address := found_as;
  RETURN NEW;
END
$$;
-- +goose StatementEnd

-- Whatever is known of a key was known of its text.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.keys_note_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NEW.state <> OLD.state THEN
    NEW.challenge := NULL;
    NEW.challenge_until := NULL;
    IF NEW.state_since IS NOT DISTINCT FROM OLD.state_since THEN
      NEW.state_since := now();
    END IF;
  END IF;
  IF NEW.key <> OLD.key THEN
    NEW.challenge := NULL;
    NEW.challenge_until := NULL;
    NEW.problem := CASE WHEN NEW.problem IS DISTINCT FROM OLD.problem THEN NEW.problem END;
    NEW.checked := CASE WHEN NEW.checked IS DISTINCT FROM OLD.checked THEN NEW.checked END;
    NEW.fingerprint := CASE WHEN NEW.fingerprint IS DISTINCT FROM OLD.fingerprint THEN NEW.fingerprint END;
  END IF;
  RETURN NEW;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.keys_note_change() IS
  'Says since when a key has its state, and forgets what was known of the text that it had before.';
CREATE TRIGGER note_change BEFORE UPDATE ON sealmilter.keys
  FOR EACH ROW WHEN (OLD.state <> NEW.state OR OLD.key <> NEW.key) EXECUTE FUNCTION sealmilter.keys_note_change();

-- Any alias may stand between an address and its keys.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.aliases_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  behind CONSTANT jsonb := sealmilter.behind_actor();
BEGIN
  CASE TG_OP
  WHEN 'INSERT' THEN
    INSERT INTO sealmilter.events (action, address, detail)
      SELECT 'alias added', n.address, behind || jsonb_build_object('target', n.target) FROM new_rows AS n;
  WHEN 'DELETE' THEN
    INSERT INTO sealmilter.events (action, address, detail)
      SELECT 'alias removed', o.address, behind || jsonb_build_object('target', o.target) FROM old_rows AS o;
  WHEN 'UPDATE' THEN
    INSERT INTO sealmilter.events (action, address, detail)
      SELECT 'alias removed', a.address, behind || jsonb_build_object('target', a.target) FROM
        (SELECT o.address, o.target FROM old_rows AS o EXCEPT SELECT n.address, n.target FROM new_rows AS n) AS a
      UNION ALL
      SELECT 'alias added', a.address, behind || jsonb_build_object('target', a.target) FROM
        (SELECT n.address, n.target FROM new_rows AS n EXCEPT SELECT o.address, o.target FROM old_rows AS o) AS a;
  ELSE
    INSERT INTO sealmilter.events (action, detail) VALUES ('all aliases removed', behind);
  END CASE;
  IF FOUND OR TG_OP = 'TRUNCATE' THEN
    PERFORM sealmilter.tell('{""}');
  END IF;
  RETURN NULL;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.aliases_changed() IS 'Writes the events of aliases, and tells that any address may lead elsewhere.';
CREATE TRIGGER inserted AFTER INSERT ON sealmilter.aliases REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.aliases_changed();
CREATE TRIGGER updated AFTER UPDATE ON sealmilter.aliases REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.aliases_changed();
CREATE TRIGGER deleted AFTER DELETE ON sealmilter.aliases REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.aliases_changed();
CREATE TRIGGER truncated AFTER TRUNCATE ON sealmilter.aliases
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.aliases_changed();

-- The triggers above do not run for a session that writes what another server, or
-- a dump, already has (session_replication_role = replica): its events come along.
-- But whoever remembers keys has to hear of it, and of that it was anything.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.replicated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM sealmilter.tell('{""}');
  RETURN NULL;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.replicated() IS 'Tells of what is written with session_replication_role = replica.';
CREATE TRIGGER replicated AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sealmilter.keys
  FOR EACH STATEMENT WHEN (current_setting('session_replication_role') = 'replica') EXECUTE FUNCTION sealmilter.replicated();
CREATE TRIGGER replicated AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sealmilter.accounts
  FOR EACH STATEMENT WHEN (current_setting('session_replication_role') = 'replica') EXECUTE FUNCTION sealmilter.replicated();
CREATE TRIGGER replicated AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sealmilter.aliases
  FOR EACH STATEMENT WHEN (current_setting('session_replication_role') = 'replica') EXECUTE FUNCTION sealmilter.replicated();
ALTER TABLE sealmilter.keys ENABLE ALWAYS TRIGGER replicated;
ALTER TABLE sealmilter.accounts ENABLE ALWAYS TRIGGER replicated;
ALTER TABLE sealmilter.aliases ENABLE ALWAYS TRIGGER replicated;

-- Nobody but the owner has a right to events, and this keeps the owner, and a
-- superuser, from changing them by mistake.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.events_only_grow() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('sealmilter.forgetting', true) = pg_current_xact_id()::text THEN
    RETURN NULL;
  END IF;
  RAISE EXCEPTION 'events are never changed, and forgotten by sealmilter.forget_events() only' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.events_only_grow() IS 'Refuses to change events.';
CREATE TRIGGER only_grow BEFORE UPDATE OR DELETE OR TRUNCATE ON sealmilter.events
  FOR EACH STATEMENT EXECUTE FUNCTION sealmilter.events_only_grow();

-- +goose StatementBegin
CREATE FUNCTION sealmilter.forget_events(before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  forgotten bigint;
BEGIN
  PERFORM set_config('sealmilter.forgetting', pg_current_xact_id()::text, true);
  DELETE FROM sealmilter.events AS e WHERE e.at < before;
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  PERFORM set_config('sealmilter.forgetting', '', true);
  INSERT INTO sealmilter.events (action, detail)
    VALUES ('events forgotten', jsonb_build_object('before', before, 'count', forgotten) || sealmilter.behind_actor());
  RETURN forgotten;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.forget_events(timestamptz) IS
  'Deletes the events before a time, says how many those were, and leaves an event that it did.';

-- The columns are those of version 1. What a row's key is stands under "key"
-- in the options, and those names are the key's alone.
--
-- It is in PL/pgSQL because the server makes a plan of that once for each session;
-- of SQL that runs with its owner's rights it would make one for each call, which
-- takes four times as long as the answer. The plan may be older than the tables'
-- millions of rows, hence indexes whatever it thinks of their size.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.recipient_keys(addresses text[])
RETURNS TABLE (address text, account text, enabled boolean, method text, cipher text, key text, options jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
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
    SELECT CASE WHEN k.state = 'retired' THEN k.state ELSE k.key END AS key, k.options - '{state,since}'::text[] || CASE k.state
        WHEN 'active' THEN '{}'
        WHEN 'revoked' THEN jsonb_build_object('state', k.state, 'since',
          to_char(coalesce(k.state_since, k.added) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
        ELSE jsonb_build_object('state', k.state) END AS options
    FROM sealmilter.keys AS k WHERE k.address = account.address AND k.state <> 'pending' OFFSET 0
  ) AS one ON true;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.recipient_keys(text[]) IS
  'All that the daemon asks: the keys of each address, or of all that it leads to as an alias. One row for each key, '
  'and one with key NULL for an account without any; enabled is NULL where an alias leads to somebody not enrolled; '
  'account is NULL where an address is neither account nor alias. An address without a row is a failed lookup. '
  'Pending keys are left out; of retired and revoked ones the options say so under "key", and of a retired one the text is not given.';

-- What of a text's format can be told without reading it: armor says so, and
-- base64 of DER begins with M, while that of an OpenPGP packet never does.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.method_of(key text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN strpos(key, '-----BEGIN PGP') > 0 THEN 'openpgp'
    WHEN strpos(key, '-----BEGIN ') > 0 OR key ~ '^[[:space:]]*M' THEN 'smime' ELSE 'openpgp' END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.method_of(text) IS 'openpgp or smime, as the text of a key looks.';

-- The new key comes before the old ones go, and both at once for whoever looks.
-- Of two who do so at the same moment one waits for the other at the account, and
-- then retires the other's key: it is locked before anything else, so that no two
-- wait for each other.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.rotate_key(address text, key text, fingerprint text DEFAULT NULL, options jsonb DEFAULT '{}',
  OUT id bigint, OUT retired bigint[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(rotate_key.address COLLATE "C") FOR NO KEY UPDATE;
  INSERT INTO sealmilter.keys AS k (address, key, fingerprint, options)
    VALUES (rotate_key.address, rotate_key.key, rotate_key.fingerprint, rotate_key.options)
    RETURNING k.id INTO rotate_key.id;
  rotate_key.retired := sealmilter.retire_others(rotate_key.id);
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.rotate_key(text, text, text, jsonb) IS
  'Enrols a key and retires the account''s other active keys of the same method; the number of the one, and those of the others.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.retire_others(number bigint) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  numbers bigint[];
BEGIN
  -- What another has made active meanwhile is seen by the statement after this one.
  PERFORM FROM sealmilter.accounts AS a
    WHERE a.address = (SELECT k.address FROM sealmilter.keys AS k WHERE k.id = number) FOR NO KEY UPDATE;
  WITH retired AS (
    UPDATE sealmilter.keys AS k SET state = 'retired' FROM sealmilter.keys AS one
    WHERE one.id = number AND k.address = one.address AND k.id <> number AND k.state = 'active'
      AND sealmilter.method_of(k.key) = sealmilter.method_of(one.key)
    RETURNING k.id
  )
  SELECT coalesce(array_agg(retired.id ORDER BY retired.id), '{}') INTO numbers FROM retired;
  RETURN numbers;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.retire_others(bigint) IS 'Retires the active keys beside one, of its account and its method; their numbers.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.challenge_key(number bigint, hash bytea, until timestamptz) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one sealmilter.keys;
BEGIN
  SELECT k.* INTO one FROM sealmilter.keys AS k WHERE k.id = number FOR UPDATE;
  CASE
  WHEN NOT FOUND THEN RETURN 'no such key';
  WHEN one.state <> 'pending' THEN RETURN 'not pending';
  ELSE
    UPDATE sealmilter.keys AS k SET challenge = hash, challenge_until = until, challenge_tries = 0 WHERE k.id = number;
    RETURN 'challenged';
  END CASE;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.challenge_key(bigint, bytea, timestamptz) IS
  'Notes SHA-256 of the nonce that was sealed to a pending key, and until when it may come back: challenged, not pending or no such key.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.confirm_key(number bigint, hash bytea, alone boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most CONSTANT integer := 10;
  one sealmilter.keys;
BEGIN
  IF alone THEN
    PERFORM FROM sealmilter.accounts AS a
      WHERE a.address = (SELECT k.address FROM sealmilter.keys AS k WHERE k.id = number) FOR NO KEY UPDATE;
  END IF;
  SELECT k.* INTO one FROM sealmilter.keys AS k WHERE k.id = number FOR UPDATE;
  CASE
  WHEN NOT FOUND THEN RETURN 'no such key';
  WHEN one.state <> 'pending' THEN RETURN 'not pending';
  WHEN one.challenge IS NULL OR one.challenge_until IS NULL OR one.challenge_until <= clock_timestamp() THEN RETURN 'expired';
  WHEN one.challenge_tries >= most THEN RETURN 'too many tries';
  WHEN hash IS DISTINCT FROM one.challenge THEN
    UPDATE sealmilter.keys AS k SET challenge_tries = k.challenge_tries + 1 WHERE k.id = number;
    RETURN 'wrong';
  ELSE
    UPDATE sealmilter.keys AS k SET state = 'active' WHERE k.id = number;
    IF alone THEN
      PERFORM sealmilter.retire_others(number);
    END IF;
    RETURN 'confirmed';
  END CASE;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.confirm_key(bigint, bytea, boolean) IS
  'Makes a pending key active whose nonce has come back, alone if others are to be retired: confirmed, wrong, expired, '
  'too many tries, not pending or no such key.';

-- What the self-service page may do, and all of it for the owner of one
-- address, whom the page has asked for a password. A whole domain has no owner.
-- portal_account locks, so that it is called once and never in a WHERE, where it
-- would be for every row of the table.
-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_account(address text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found_as text;
BEGIN
  IF address ~ '^@' THEN
    RAISE EXCEPTION 'a domain is not its users'' to change' USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT a.address INTO found_as FROM sealmilter.accounts AS a
    WHERE lower(a.address) = lower(portal_account.address COLLATE "C") FOR UPDATE;
  RETURN found_as;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_account(text) IS 'The account of one user as it is spelled, locked; NULL where there is none.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_key(address text, number bigint) RETURNS sealmilter.keys
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one sealmilter.keys;
BEGIN
  SELECT k.* INTO one FROM sealmilter.keys AS k
    WHERE k.id = number AND k.address = sealmilter.portal_account(portal_key.address) FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no such key' USING ERRCODE = 'no_data_found';
  END IF;
  RETURN one;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_key(text, bigint) IS 'One user''s key of a number, or an error.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_keys(address text)
RETURNS TABLE (id bigint, key text, state text, since timestamptz, fingerprint text, problem text, added timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT k.id, k.key, k.state, coalesce(k.state_since, k.added), k.fingerprint, k.problem, k.added
  FROM sealmilter.keys AS k
  WHERE k.address = (SELECT a.address FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(portal_keys.address COLLATE "C"))
    AND portal_keys.address !~ '^@'
  ORDER BY k.id
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_keys(text) IS 'The keys of one user.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_propose(address text, key text, fingerprint text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  most CONSTANT integer := 5;
  most_in_all CONSTANT integer := 30;
  owner text COLLATE "C" := sealmilter.portal_account(portal_propose.address);
  number bigint;
BEGIN
  IF owner IS NULL THEN
    INSERT INTO sealmilter.accounts (address) VALUES (portal_propose.address) ON CONFLICT DO NOTHING;
    owner := sealmilter.portal_account(portal_propose.address);
  END IF;
  IF most <= (SELECT count(*) FROM sealmilter.keys AS k WHERE k.address = owner AND k.state = 'pending') THEN
    RAISE EXCEPTION 'too many keys are waiting to be confirmed, the most are %', most USING ERRCODE = 'program_limit_exceeded';
  END IF;
  -- Each of them is in the answer of every lookup, that of a group among them.
  IF most_in_all <= (SELECT count(*) FROM sealmilter.keys AS k WHERE k.address = owner) THEN
    RAISE EXCEPTION 'too many keys, the most are %: remove some that are not used any more', most_in_all USING ERRCODE = 'program_limit_exceeded';
  END IF;
  INSERT INTO sealmilter.keys AS k (address, key, fingerprint, state)
    VALUES (portal_propose.address, portal_propose.key, portal_propose.fingerprint, 'pending') RETURNING k.id INTO number;
  RETURN number;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_propose(text, text, text) IS
  'Takes a key of one user, which counts when its nonce has come back, and returns its number.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_challenge(address text, number bigint, hash bytea, until timestamptz) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT sealmilter.challenge_key(one.id, portal_challenge.hash, portal_challenge.until)
  FROM sealmilter.portal_key(portal_challenge.address, portal_challenge.number) AS one
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_challenge(text, bigint, bytea, timestamptz) IS 'Is challenge_key() for one user''s key.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_confirm(address text, number bigint, hash bytea, alone boolean DEFAULT false) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT sealmilter.confirm_key(one.id, portal_confirm.hash, portal_confirm.alone)
  FROM sealmilter.portal_key(portal_confirm.address, portal_confirm.number) AS one
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_confirm(text, bigint, bytea, boolean) IS 'Is confirm_key() for one user''s key.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_retire(address text, number bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  one CONSTANT sealmilter.keys := sealmilter.portal_key(portal_retire.address, portal_retire.number);
BEGIN
  IF one.state <> 'active' THEN
    RAISE EXCEPTION 'the key is %, and only an active one can be retired', one.state USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  UPDATE sealmilter.keys AS k SET state = 'retired' WHERE k.id = one.id;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_retire(text, bigint) IS 'Retires one user''s active key.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_remove(address text, number bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM sealmilter.keys AS k WHERE k.id = (SELECT one.id FROM sealmilter.portal_key(portal_remove.address, portal_remove.number) AS one)
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_remove(text, bigint) IS 'Removes one user''s key.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_enabled(address text, enabled boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owner CONSTANT text COLLATE "C" := sealmilter.portal_account(portal_enabled.address);
BEGIN
  UPDATE sealmilter.accounts AS a SET enabled = portal_enabled.enabled WHERE a.address = owner;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no such account' USING ERRCODE = 'no_data_found';
  END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_enabled(text, boolean) IS 'Switches sealing on or off for one user.';

-- +goose StatementBegin
CREATE FUNCTION sealmilter.portal_choices(address text, method text, cipher text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  owner CONSTANT text COLLATE "C" := sealmilter.portal_account(portal_choices.address);
BEGIN
  UPDATE sealmilter.accounts AS a SET method = portal_choices.method, cipher = coalesce(portal_choices.cipher, 'aes256')
    WHERE a.address = owner;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no such account' USING ERRCODE = 'no_data_found';
  END IF;
END
$$;
-- +goose StatementEnd
COMMENT ON FUNCTION sealmilter.portal_choices(text, text, text) IS 'Sets the method and the cipher of one user; NULL is no choice.';

-- Where a site has dropped its own function, that one is new as well.
REVOKE ALL ON FUNCTION sealmilter.difference(jsonb, jsonb), sealmilter.behind_actor(), sealmilter.tell(text[]),
  sealmilter.key_detail(text, text, text, jsonb), sealmilter.keys_changed(), sealmilter.accounts_changed(),
  sealmilter.choices(boolean, text, text, jsonb), sealmilter.account_changed(), sealmilter.keys_note_change(),
  sealmilter.aliases_changed(), sealmilter.replicated(), sealmilter.events_only_grow(), sealmilter.forget_events(timestamptz),
  sealmilter.recipient_keys(text[]), sealmilter.method_of(text), sealmilter.rotate_key(text, text, text, jsonb),
  sealmilter.retire_others(bigint), sealmilter.challenge_key(bigint, bytea, timestamptz),
  sealmilter.confirm_key(bigint, bytea, boolean), sealmilter.portal_account(text),
  sealmilter.portal_key(text, bigint), sealmilter.portal_keys(text), sealmilter.portal_propose(text, text, text),
  sealmilter.portal_challenge(text, bigint, bytea, timestamptz),
  sealmilter.portal_confirm(text, bigint, bytea, boolean), sealmilter.portal_retire(text, bigint),
  sealmilter.portal_remove(text, bigint), sealmilter.portal_enabled(text, boolean),
  sealmilter.portal_choices(text, text, text) FROM PUBLIC;

-- +goose Down

DROP FUNCTION sealmilter.portal_keys(text), sealmilter.portal_propose(text, text, text), sealmilter.portal_retire(text, bigint),
  sealmilter.portal_challenge(text, bigint, bytea, timestamptz), sealmilter.portal_confirm(text, bigint, bytea, boolean),
  sealmilter.portal_remove(text, bigint), sealmilter.portal_enabled(text, boolean), sealmilter.portal_choices(text, text, text),
  sealmilter.portal_account(text), sealmilter.portal_key(text, bigint);
DROP FUNCTION sealmilter.confirm_key(bigint, bytea, boolean), sealmilter.challenge_key(bigint, bytea, timestamptz),
  sealmilter.rotate_key(text, text, text, jsonb), sealmilter.retire_others(bigint), sealmilter.method_of(text),
  sealmilter.forget_events(timestamptz);
DROP TRIGGER inserted ON sealmilter.keys;
DROP TRIGGER updated ON sealmilter.keys;
DROP TRIGGER deleted ON sealmilter.keys;
DROP TRIGGER truncated ON sealmilter.keys;
DROP TRIGGER note_change ON sealmilter.keys;
DROP TRIGGER inserted ON sealmilter.accounts;
DROP TRIGGER inserted_by_another ON sealmilter.accounts;
DROP TRIGGER updated ON sealmilter.accounts;
DROP TRIGGER updated_one ON sealmilter.accounts;
DROP TRIGGER deleted ON sealmilter.accounts;
DROP TRIGGER truncated ON sealmilter.accounts;
DROP TRIGGER inserted ON sealmilter.aliases;
DROP TRIGGER updated ON sealmilter.aliases;
DROP TRIGGER deleted ON sealmilter.aliases;
DROP TRIGGER truncated ON sealmilter.aliases;
DROP TRIGGER replicated ON sealmilter.keys;
DROP TRIGGER replicated ON sealmilter.accounts;
DROP TRIGGER replicated ON sealmilter.aliases;
DROP TABLE sealmilter.events, sealmilter.warnings;
DROP FUNCTION sealmilter.replicated(), sealmilter.events_only_grow(), sealmilter.aliases_changed(), sealmilter.keys_note_change(), sealmilter.keys_changed(),
  sealmilter.accounts_changed(), sealmilter.account_changed(), sealmilter.choices(boolean, text, text, jsonb),
  sealmilter.key_detail(text, text, text, jsonb), sealmilter.tell(text[]), sealmilter.behind_actor(), sealmilter.difference(jsonb, jsonb);

-- Version 4 seals to every key that is there. What nobody has shown to be able
-- to read goes; so does what another has replaced. A revoked key leaves an
-- entry that cannot be read, so that its owner still counts as enrolled.
DELETE FROM sealmilter.keys AS k WHERE k.state = 'pending'
  OR k.state = 'retired' AND EXISTS (SELECT FROM sealmilter.keys AS other WHERE other.address = k.address AND other.state = 'active');
UPDATE sealmilter.keys SET key = 'revoked, number ' || id WHERE state = 'revoked';
ALTER TABLE sealmilter.keys DROP COLUMN state, DROP COLUMN state_since, DROP COLUMN fingerprint, DROP COLUMN problem,
  DROP COLUMN checked, DROP COLUMN challenge, DROP COLUMN challenge_until, DROP COLUMN challenge_tries;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION sealmilter.keys_find_account() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO sealmilter.accounts (address) VALUES (NEW.address) ON CONFLICT DO NOTHING;
  SELECT a.address INTO STRICT NEW.address
    FROM sealmilter.accounts AS a WHERE lower(a.address) = lower(NEW.address COLLATE "C");
  RETURN NEW;
END
$$;
-- +goose StatementEnd
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
