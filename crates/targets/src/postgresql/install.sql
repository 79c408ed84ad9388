-- Writ: short-lived login roles in PostgreSQL 14 and later. Made by `writ target install {{target}} --print`.
--
-- Run by the database's administrator (a superuser) in database {{database}}, and then, unchanged, in every other
-- database of the cluster that credentials can connect to:   psql -X -v ON_ERROR_STOP=1 -d DATABASE -f THIS_FILE
-- It may be run again at any time; running it again also mends what was changed by hand.
--
-- What it makes: a role that owns the functions and that nobody can log in as, a schema with two tables that belong to
-- you, and the functions. The account {{broker}} gets the right to call them and nothing else. Which roles a
-- credential can join stands in writ_lease.template, which only you can write.
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog, pg_temp;

DO $writ$
BEGIN
  IF EXISTS (SELECT FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
             WHERE n.nspname = 'writ_lease' AND NOT r.rolsuper AND r.rolname <> current_user) THEN
    RAISE EXCEPTION 'schema writ_lease belongs to somebody who is no administrator: look at it before you go on';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'writ_lease_owner') THEN
    CREATE ROLE writ_lease_owner;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{broker_literal}}) THEN
    -- No password yet: set it with \password, or let it log in with a client certificate.
    CREATE ROLE {{broker}} LOGIN;
  END IF;
END $writ$;
-- CREATEROLE is an administrator's right up to PostgreSQL 15. Nobody can log in with it: it works inside the functions
-- below and nowhere else. From 16 on it reaches only roles that it made itself, and the templates.
ALTER ROLE writ_lease_owner NOLOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD NULL;
-- To end sessions, and to count the addresses that one login is used from.
GRANT pg_signal_backend, pg_read_all_stats TO writ_lease_owner;
ALTER ROLE {{broker}} NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS CONNECTION LIMIT {{broker_connections}};

CREATE SCHEMA IF NOT EXISTS writ_lease;
REVOKE ALL ON SCHEMA writ_lease FROM PUBLIC;
GRANT USAGE ON SCHEMA writ_lease TO writ_lease_owner, {{broker}};

-- What may be issued. Only you write here.
CREATE TABLE IF NOT EXISTS writ_lease.template (
  name text PRIMARY KEY,
  parent name NOT NULL,
  max_ttl_secs integer NOT NULL CHECK (max_ttl_secs BETWEEN 1 AND 604800),
  max_conn integer NOT NULL CHECK (max_conn BETWEEN 1 AND 1000),
  max_live integer NOT NULL CHECK (max_live BETWEEN 1 AND 1000000)
);
REVOKE ALL ON writ_lease.template FROM PUBLIC;
GRANT SELECT ON writ_lease.template TO writ_lease_owner;

-- What was issued. A row outlives its role until its deadline has passed, so that a call that was lost on the way
-- cannot bring back what was already taken back.
CREATE TABLE IF NOT EXISTS writ_lease.lease (
  role name PRIMARY KEY CHECK (length(role) = 36 AND role ~ '^jit_[0-9a-f]+$'),
  role_oid oid,
  broker name NOT NULL,
  template text,
  task text,
  slot integer,
  params jsonb NOT NULL DEFAULT '{}',
  expires timestamptz NOT NULL,
  closed_at timestamptz,
  dropped_at timestamptz
);
-- Every live role of a template has one of its `max_live` places to itself: a count that concurrent calls cannot pass, and
-- that need not be counted.
CREATE UNIQUE INDEX IF NOT EXISTS lease_slot ON writ_lease.lease (template, slot) WHERE dropped_at IS NULL;
CREATE INDEX IF NOT EXISTS lease_expires ON writ_lease.lease (expires);
REVOKE ALL ON writ_lease.lease FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON writ_lease.lease TO writ_lease_owner;

-- Makes one login role. The name is made of the grant's id by Writ; what it may do is the template's.
CREATE OR REPLACE FUNCTION writ_lease.issue(p_role text, p_template text, p_expires bigint, p_verifier text, p_params text, p_task text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
  t writ_lease.template;
  v_until timestamptz;
  v_iterations text;
  v_salt text;
  v_stored text;
  v_server text;
  v_oid oid;
  v_slot integer;
  v_rows integer := 0;
BEGIN
  IF p_role IS NULL OR length(p_role) <> 36 OR p_role !~ '^jit_[0-9a-f]+$' THEN
    RAISE EXCEPTION 'not a name for a leased role' USING ERRCODE = 'WL001';
  END IF;
  SELECT * INTO t FROM writ_lease.template WHERE name = p_template;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'no such template' USING ERRCODE = 'WL002';
  END IF;
  IF p_expires IS NULL OR p_expires <= extract(epoch FROM clock_timestamp())
     OR p_expires > extract(epoch FROM clock_timestamp()) + t.max_ttl_secs THEN
    RAISE EXCEPTION 'lifetime outside the template''s' USING ERRCODE = 'WL003';
  END IF;
  v_until := to_timestamp(p_expires);
  -- Only a verifier, and none that costs the server more than a usual one: it derives the key once to see that the
  -- password is not empty. What is no verifier would be taken for a password. (Counted repetitions in one pattern would
  -- cost more than making the role.)
  v_iterations := split_part(split_part(p_verifier, '$', 2), ':', 1);
  v_salt := split_part(split_part(p_verifier, '$', 2), ':', 2);
  v_stored := split_part(split_part(p_verifier, '$', 3), ':', 1);
  v_server := split_part(split_part(p_verifier, '$', 3), ':', 2);
  IF p_verifier IS NULL OR p_verifier <> 'SCRAM-SHA-256$' || v_iterations || ':' || v_salt || '$' || v_stored || ':' || v_server
     OR v_iterations !~ '^[1-9][0-9]?[0-9]?[0-9]?$' OR v_salt !~ '^[A-Za-z0-9+/]+=?=?$' OR length(v_salt) NOT BETWEEN 12 AND 64
     OR length(v_salt) % 4 <> 0 OR length(v_stored) <> 44 OR v_stored !~ '^[A-Za-z0-9+/]+=$'
     OR length(v_server) <> 44 OR v_server !~ '^[A-Za-z0-9+/]+=$' OR v_iterations::integer > 4096 THEN
    RAISE EXCEPTION 'a SCRAM-SHA-256 verifier of at most 4096 iterations is needed' USING ERRCODE = 'WL004';
  END IF;
  IF p_params IS NULL OR octet_length(p_params) > 16384 OR coalesce(length(p_task), 0) > 200 THEN
    RAISE EXCEPTION 'parameters or task too long' USING ERRCODE = 'WL010';
  END IF;
  -- The instant is written with its offset: the caller's TimeZone and DateStyle cannot move it.
  EXECUTE format('CREATE ROLE %I LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS'
                 ' CONNECTION LIMIT %s VALID UNTIL %L PASSWORD %L',
                 p_role, t.max_conn, to_char(v_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || '+00', p_verifier);
  EXECUTE format('GRANT %I TO %I', t.parent, p_role);
  v_oid := to_regrole(p_role)::oid;
  -- A place at random, which is mostly free; when nearly all are taken, one that is seen to be free, and another one if
  -- somebody was faster.
  FOR v_try IN 1..20 LOOP
    IF v_try < 10 THEN
      v_slot := 1 + floor(random() * t.max_live);
    ELSE
      SELECT s INTO v_slot FROM generate_series(1, t.max_live) AS s WHERE NOT EXISTS (
        SELECT FROM writ_lease.lease l WHERE l.template = p_template AND l.slot = s AND l.dropped_at IS NULL) ORDER BY random() LIMIT 1;
      EXIT WHEN v_slot IS NULL;
    END IF;
    INSERT INTO writ_lease.lease (role, role_oid, broker, template, slot, task, params, expires)
      VALUES (p_role, v_oid, session_user, p_template, v_slot, p_task, p_params::jsonb, v_until)
      ON CONFLICT (template, slot) WHERE dropped_at IS NULL DO NOTHING;
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    EXIT WHEN v_rows = 1;
  END LOOP;
  IF v_rows = 0 THEN
    RAISE EXCEPTION 'as many live roles as the template allows' USING ERRCODE = 'WL005';
  END IF;
END $writ$;

-- The row of a role that the caller issued, and that still is the role it was. For the other functions only.
CREATE OR REPLACE FUNCTION writ_lease.mine(p_role text) RETURNS writ_lease.lease
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
  l writ_lease.lease;
BEGIN
  IF p_role IS NULL OR length(p_role) <> 36 OR p_role !~ '^jit_[0-9a-f]+$' THEN
    RAISE EXCEPTION 'not a name for a leased role' USING ERRCODE = 'WL001';
  END IF;
  SELECT * INTO l FROM writ_lease.lease WHERE role = p_role;
  -- A role of this name, or of this row, that is not both was made or renamed by somebody else.
  IF EXISTS (SELECT FROM pg_roles WHERE (rolname = p_role OR oid = l.role_oid)
             AND (l.role_oid IS NULL OR rolname <> p_role OR oid <> l.role_oid))
     OR (l.broker <> session_user AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)) THEN
    RAISE EXCEPTION 'not a role that this account issued' USING ERRCODE = 'WL007';
  END IF;
  RETURN l;
END $writ$;

-- Lets nobody log in with it any more. Must be committed before kill: a client that reconnects in between stays in.
CREATE OR REPLACE FUNCTION writ_lease.close(p_role text, p_expires bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
  l writ_lease.lease;
  v_longest integer;
  v_rows integer;
BEGIN
  l := writ_lease.mine(p_role);
  -- Nothing was issued under this name, and from now on nothing will be. An issue that is under way is waited for here.
  SELECT coalesce(max(max_ttl_secs), 0) INTO v_longest FROM writ_lease.template;
  INSERT INTO writ_lease.lease (role, broker, expires, closed_at, dropped_at)
    VALUES (p_role, session_user, to_timestamp(least(p_expires, extract(epoch FROM clock_timestamp()) + v_longest)), now(), now())
    ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_rows = ROW_COUNT;
  l := writ_lease.mine(p_role);
  IF v_rows = 1 OR l.dropped_at IS NOT NULL OR NOT EXISTS (SELECT FROM pg_roles WHERE oid = l.role_oid) THEN
    RETURN 'not_found';
  END IF;
  EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', p_role);
  -- So that what it owns can be removed later, in other databases as well: there this membership is the mark.
  EXECUTE format('GRANT %I TO writ_lease_owner', p_role);
  UPDATE writ_lease.lease SET closed_at = coalesce(closed_at, now()) WHERE role = p_role;
  RETURN 'closed';
END $writ$;

-- Ends its sessions and says how many there were. To be called until it says 0.
CREATE OR REPLACE FUNCTION writ_lease.kill(p_role text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
  l writ_lease.lease;
  v_pid integer;
  v_seen integer := 0;
BEGIN
  l := writ_lease.mine(p_role);
  IF EXISTS (SELECT FROM pg_roles WHERE oid = l.role_oid AND rolcanlogin) THEN
    RAISE EXCEPTION 'it can still log in: close it first' USING ERRCODE = 'WL008';
  END IF;
  FOR v_pid IN SELECT pid FROM pg_stat_activity WHERE usesysid = l.role_oid LOOP
    v_seen := v_seen + 1;
    PERFORM pg_terminate_backend(v_pid);
  END LOOP;
  RETURN v_seen;
END $writ$;

-- Removes what a closed role owns in this database. Every database has this function.
CREATE OR REPLACE FUNCTION writ_lease.clean_here(p_role text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $writ$
DECLARE
  v_oid oid;
BEGIN
  IF p_role IS NULL OR length(p_role) <> 36 OR p_role !~ '^jit_[0-9a-f]+$' THEN
    RAISE EXCEPTION 'not a name for a leased role' USING ERRCODE = 'WL001';
  END IF;
  SELECT oid INTO v_oid FROM pg_roles WHERE rolname = p_role;
  IF NOT FOUND THEN
    RETURN 'not_found';
  END IF;
  IF NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.member
                 WHERE m.roleid = v_oid AND o.rolname = 'writ_lease_owner') THEN
    RAISE EXCEPTION 'not a role that was closed here' USING ERRCODE = 'WL007';
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE oid = v_oid AND rolcanlogin) THEN
    RAISE EXCEPTION 'it can still log in: close it first' USING ERRCODE = 'WL008';
  END IF;
  IF EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = v_oid) THEN
    RAISE EXCEPTION 'it still has sessions: end them first' USING ERRCODE = 'WL009';
  END IF;
  EXECUTE format('DROP OWNED BY %I', p_role);
  RETURN 'cleaned';
END $writ$;

-- Other databases in which it owns something or was granted something.
CREATE OR REPLACE FUNCTION writ_lease.elsewhere(p_role text) RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
  SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.refobjid
  WHERE r.rolname = p_role AND s.refclassid = 'pg_authid'::regclass AND d.datname <> current_database()
$writ$;

-- Removes what it owns here, and the role.
CREATE OR REPLACE FUNCTION writ_lease.purge(p_role text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '3s' AS $writ$
DECLARE
  l writ_lease.lease;
BEGIN
  l := writ_lease.mine(p_role);
  IF NOT EXISTS (SELECT FROM pg_roles WHERE oid = l.role_oid) THEN
    UPDATE writ_lease.lease SET dropped_at = coalesce(dropped_at, now()) WHERE role = p_role;
    RETURN 'not_found';
  END IF;
  PERFORM writ_lease.clean_here(p_role);
  EXECUTE format('DROP ROLE %I', p_role);
  UPDATE writ_lease.lease SET dropped_at = now() WHERE role = p_role;
  RETURN 'dropped';
END $writ$;

-- Whether it is dead: -1 if the role is still there, otherwise how many sessions outlived it (and are ended here).
CREATE OR REPLACE FUNCTION writ_lease.gone(p_role text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
DECLARE
  l writ_lease.lease;
  v_pid integer;
  v_seen integer := 0;
BEGIN
  l := writ_lease.mine(p_role);
  IF EXISTS (SELECT FROM pg_roles WHERE oid = l.role_oid) THEN
    RETURN -1;
  END IF;
  FOR v_pid IN SELECT pid FROM pg_stat_activity WHERE usesysid = l.role_oid LOOP
    v_seen := v_seen + 1;
    PERFORM pg_terminate_backend(v_pid);
  END LOOP;
  DELETE FROM writ_lease.lease WHERE role IN (
    SELECT role FROM writ_lease.lease WHERE expires < now() - interval '1 hour' AND dropped_at IS NOT NULL LIMIT 100);
  RETURN v_seen;
END $writ$;

-- What the caller issued and that still stands.
CREATE OR REPLACE FUNCTION writ_lease.list() RETURNS TABLE (role text, expires bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
  SELECT l.role::text, extract(epoch FROM l.expires)::bigint FROM writ_lease.lease l
  WHERE l.broker = session_user AND l.dropped_at IS NULL
$writ$;

-- What may be issued, for the examination.
CREATE OR REPLACE FUNCTION writ_lease.templates()
RETURNS TABLE (name text, parent text, max_ttl_secs integer, max_conn integer, max_live integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
  SELECT t.name, t.parent::text, t.max_ttl_secs, t.max_conn, t.max_live FROM writ_lease.template t
$writ$;

-- Login roles that stand without Writ: how many sessions and addresses use each now, and nothing of what they do.
CREATE OR REPLACE FUNCTION writ_lease.standing()
RETURNS TABLE (role text, is_super boolean, is_admin boolean, valid_until bigint, sessions bigint, addresses bigint,
               dependencies bigint, groups text[], comment text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
  SELECT r.rolname::text, r.rolsuper, r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls,
         CASE WHEN isfinite(r.rolvaliduntil) THEN extract(epoch FROM r.rolvaliduntil)::bigint END,
         (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.backend_type = 'client backend'),
         (SELECT count(DISTINCT coalesce(host(a.client_addr), 'local')) FROM pg_stat_activity a
          WHERE a.usesysid = r.oid AND a.backend_type = 'client backend'),
         (SELECT count(*) FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid),
         ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1),
         shobj_description(r.oid, 'pg_authid')
  FROM pg_roles r
  WHERE r.rolcanlogin AND r.rolname <> session_user AND NOT EXISTS (SELECT FROM writ_lease.lease l WHERE l.role_oid = r.oid)
  ORDER BY r.rolname
$writ$;

-- For row-level security: a parameter of the credential of this session; nothing once it is closed or past its deadline.
-- It asks who logged in, which no SET can change.
CREATE OR REPLACE FUNCTION writ_lease.param(p_name text) RETURNS text
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $writ$
  SELECT l.params ->> p_name FROM writ_lease.lease l
  WHERE l.role = session_user AND l.closed_at IS NULL AND l.expires > clock_timestamp()
$writ$;

-- Takes back what is past its deadline, without Writ. For pg_cron, as an administrator:
--   SELECT cron.schedule('writ-sweep', '* * * * *', 'CALL writ_lease.sweep()');
CREATE OR REPLACE PROCEDURE writ_lease.sweep() LANGUAGE plpgsql AS $writ$
DECLARE
  v_role text;
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false);
  FOR v_role IN SELECT l.role::text FROM writ_lease.lease l WHERE l.expires < now() AND l.dropped_at IS NULL LOOP
    PERFORM writ_lease.close(v_role, 0);
    COMMIT;
    FOR i IN 1..50 LOOP
      EXIT WHEN writ_lease.kill(v_role) = 0;
      COMMIT;
      PERFORM pg_sleep(0.1);
    END LOOP;
    COMMIT;
    BEGIN
      PERFORM writ_lease.purge(v_role);
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING '% is closed, but not removed: %', v_role, SQLERRM;
    END;
    COMMIT;
  END LOOP;
END $writ$;

{{owners}}
REVOKE ALL ON ALL ROUTINES IN SCHEMA writ_lease FROM PUBLIC, {{broker}};
GRANT EXECUTE ON FUNCTION writ_lease.clean_here(text) TO {{broker}};

DO $writ$
BEGIN
  -- Credentials are made in one database only.
  IF current_database() = {{database_literal}} THEN
    GRANT CONNECT ON DATABASE {{database}} TO {{broker}};
    GRANT EXECUTE ON FUNCTION {{broker_functions}} TO {{broker}};
{{templates}}  END IF;
END $writ$;
COMMIT;
