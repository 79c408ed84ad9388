-- Writ: short-lived accounts in MariaDB 10.6 and later. Made by `writ target install {{target}} --print`.
--
-- Run by the server's administrator with the `mariadb` client:   mariadb < THIS_FILE
-- It may be run again at any time; running it again also mends what was changed by hand.
--
-- What it makes: a locked account that owns the procedures, a database with two tables, and the procedures. The account
-- {{broker}} gets the right to call them and nothing else. Which roles a credential can join stands in
-- writ_lease.template, which only you can write.
SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';
SET SESSION time_zone = '+00:00';
SET NAMES utf8mb4;

-- Nobody can log in with these rights: they work inside the procedures below and nowhere else. UPDATE on mysql is what
-- MariaDB wants for setting somebody else's default role.
CREATE USER IF NOT EXISTS writ_lease_owner@localhost ACCOUNT LOCK;
ALTER USER writ_lease_owner@localhost IDENTIFIED VIA mysql_native_password USING 'invalid' ACCOUNT LOCK;
GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO writ_lease_owner@localhost;
GRANT SELECT, UPDATE ON mysql.* TO writ_lease_owner@localhost;
-- No password yet: ALTER USER {{broker}} IDENTIFIED BY '…';
CREATE USER IF NOT EXISTS {{broker}} IDENTIFIED VIA mysql_native_password USING 'invalid';
REVOKE ALL PRIVILEGES, GRANT OPTION FROM {{broker}};
ALTER USER {{broker}} WITH MAX_USER_CONNECTIONS {{broker_connections}};

CREATE DATABASE IF NOT EXISTS writ_lease CHARACTER SET utf8mb4;
CREATE TABLE IF NOT EXISTS writ_lease.template (
  name varchar(64) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
  role varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  max_ttl_secs int NOT NULL CHECK (max_ttl_secs BETWEEN 1 AND 604800),
  max_conn int NOT NULL CHECK (max_conn BETWEEN 1 AND 1000),
  max_live int NOT NULL CHECK (max_live BETWEEN 1 AND 1000000),
  require_tls tinyint NOT NULL
) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS writ_lease.lease (
  usr char(36) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY,
  broker varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  template varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
  task varchar(200),
  params text CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '{}',
  expires bigint NOT NULL,
  closed_at bigint,
  dropped_at bigint,
  KEY (template, dropped_at),
  KEY (expires)
) ENGINE = InnoDB;
GRANT SELECT ON writ_lease.template TO writ_lease_owner@localhost;
GRANT SELECT, INSERT, UPDATE, DELETE ON writ_lease.lease TO writ_lease_owner@localhost;
GRANT EXECUTE, EVENT ON writ_lease.* TO writ_lease_owner@localhost;

DELIMITER //
CREATE OR REPLACE DEFINER = writ_lease_owner@localhost FUNCTION writ_lease.clock() RETURNS bigint
NOT DETERMINISTIC READS SQL DATA SQL SECURITY DEFINER
BEGIN
  RETURN unix_timestamp(sysdate());
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost FUNCTION writ_lease.caller() RETURNS varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
NOT DETERMINISTIC READS SQL DATA SQL SECURITY DEFINER
BEGIN
  RETURN left(user(), char_length(user()) - char_length(substring_index(user(), '@', -1)) - 1);
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost FUNCTION writ_lease.there(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin) RETURNS int
NOT DETERMINISTIC READS SQL DATA SQL SECURITY DEFINER
BEGIN
  RETURN (SELECT count(*) FROM mysql.global_priv WHERE User = p_usr AND Host = '%');
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost FUNCTION writ_lease.sessions(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin) RETURNS int
NOT DETERMINISTIC READS SQL DATA SQL SECURITY DEFINER
BEGIN
  RETURN (SELECT count(*) FROM information_schema.PROCESSLIST WHERE User = p_usr);
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.mine(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  SET SESSION time_zone = '+00:00';
  SET SESSION timestamp = DEFAULT;
  IF p_usr IS NULL OR char_length(p_usr) <> 36 OR p_usr NOT REGEXP '^jit_[0-9a-f]{32}$' THEN
    SIGNAL SQLSTATE 'WL001' SET MESSAGE_TEXT = 'not a name for a leased account';
  END IF;
  IF EXISTS (SELECT 1 FROM writ_lease.lease WHERE usr = p_usr AND broker <> writ_lease.caller())
     OR (writ_lease.there(p_usr) > 0 AND NOT EXISTS (SELECT 1 FROM writ_lease.lease WHERE usr = p_usr)) THEN
    SIGNAL SQLSTATE 'WL007' SET MESSAGE_TEXT = 'not an account that this account issued';
  END IF;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.issue(
  p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin, p_template varchar(64) CHARACTER SET ascii COLLATE ascii_bin, p_expires bigint,
  p_hash varchar(41) CHARACTER SET ascii COLLATE ascii_bin, p_params text CHARACTER SET utf8mb4, p_task varchar(200))
SQL SECURITY DEFINER
BEGIN
  DECLARE v_role varchar(64) CHARACTER SET utf8mb4;
  DECLARE v_ttl, v_conn, v_live, v_tls int;
  DECLARE v_made int DEFAULT 0;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION
  BEGIN
    IF v_made = 1 THEN
      DELETE FROM writ_lease.lease WHERE usr = p_usr AND closed_at IS NULL;
    ELSEIF v_made = 2 THEN
      EXECUTE IMMEDIATE concat("DROP USER IF EXISTS '", p_usr, "'@'%'");
      UPDATE writ_lease.lease SET closed_at = ifnull(closed_at, writ_lease.clock()), dropped_at = writ_lease.clock() WHERE usr = p_usr;
    END IF;
    RESIGNAL;
  END;
  CALL writ_lease.mine(p_usr);
  SELECT role, max_ttl_secs, max_conn, max_live, require_tls INTO v_role, v_ttl, v_conn, v_live, v_tls
    FROM writ_lease.template WHERE name = p_template;
  IF v_role IS NULL THEN
    SIGNAL SQLSTATE 'WL002' SET MESSAGE_TEXT = 'no such template';
  END IF;
  IF p_expires IS NULL OR p_expires <= writ_lease.clock() OR p_expires > writ_lease.clock() + v_ttl THEN
    SIGNAL SQLSTATE 'WL003' SET MESSAGE_TEXT = 'lifetime outside the template''s';
  END IF;
  IF p_hash IS NULL OR char_length(p_hash) <> 41 OR p_hash NOT REGEXP '^[*][0-9A-F]{40}$' THEN
    SIGNAL SQLSTATE 'WL004' SET MESSAGE_TEXT = 'a mysql_native_password hash is needed';
  END IF;
  IF (SELECT count(*) FROM writ_lease.lease WHERE template = p_template AND dropped_at IS NULL) >= v_live THEN
    SIGNAL SQLSTATE 'WL005' SET MESSAGE_TEXT = 'as many live accounts as the template allows';
  END IF;
  IF p_params IS NULL OR octet_length(p_params) > 16384 OR NOT json_valid(p_params) THEN
    SIGNAL SQLSTATE 'WL010' SET MESSAGE_TEXT = 'parameters too long or no JSON';
  END IF;
  INSERT INTO writ_lease.lease (usr, broker, template, task, params, expires)
    VALUES (p_usr, writ_lease.caller(), p_template, p_task, p_params, p_expires);
  SET v_made = 1;
  EXECUTE IMMEDIATE concat("CREATE USER '", p_usr, "'@'%' IDENTIFIED VIA mysql_native_password USING '", p_hash, "' REQUIRE ",
    if(v_tls, 'SSL', 'NONE'), ' WITH MAX_USER_CONNECTIONS ', v_conn);
  SET v_made = 2;
  EXECUTE IMMEDIATE concat('GRANT `', replace(v_role, '`', '``'), "` TO '", p_usr, "'@'%'");
  EXECUTE IMMEDIATE concat('SET DEFAULT ROLE `', replace(v_role, '`', '``'), "` FOR '", p_usr, "'@'%'");
  IF EXISTS (SELECT 1 FROM writ_lease.lease WHERE usr = p_usr AND closed_at IS NOT NULL) THEN
    SIGNAL SQLSTATE 'WL006' SET MESSAGE_TEXT = 'it was taken back while it was made';
  END IF;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.close_it(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  UPDATE writ_lease.lease SET closed_at = ifnull(closed_at, writ_lease.clock()) WHERE usr = p_usr;
  COMMIT;
  IF writ_lease.there(p_usr) > 0 THEN
    EXECUTE IMMEDIATE concat("ALTER USER IF EXISTS '", p_usr, "'@'%' ACCOUNT LOCK");
  END IF;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.kill_it(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  IF EXISTS (SELECT 1 FROM mysql.global_priv WHERE User = p_usr AND Host = '%' AND NOT ifnull(json_value(Priv, '$.account_locked'), 0)) THEN
    SIGNAL SQLSTATE 'WL008' SET MESSAGE_TEXT = 'it can still log in: close it first';
  END IF;
  IF writ_lease.sessions(p_usr) > 0 THEN
    EXECUTE IMMEDIATE concat("KILL USER '", p_usr, "'");
  END IF;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.purge_it(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  IF EXISTS (SELECT 1 FROM mysql.global_priv WHERE User = p_usr AND Host = '%' AND NOT ifnull(json_value(Priv, '$.account_locked'), 0)) THEN
    SIGNAL SQLSTATE 'WL008' SET MESSAGE_TEXT = 'it can still log in: close it first';
  END IF;
  IF writ_lease.sessions(p_usr) > 0 THEN
    SIGNAL SQLSTATE 'WL009' SET MESSAGE_TEXT = 'it still has sessions: end them first';
  END IF;
  EXECUTE IMMEDIATE concat("DROP USER IF EXISTS '", p_usr, "'@'%'");
  UPDATE writ_lease.lease SET dropped_at = ifnull(dropped_at, writ_lease.clock()) WHERE usr = p_usr;
  COMMIT;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.close(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin, p_expires bigint)
SQL SECURITY DEFINER
BEGIN
  DECLARE v_there int;
  CALL writ_lease.mine(p_usr);
  INSERT IGNORE INTO writ_lease.lease (usr, broker, expires, closed_at, dropped_at)
    VALUES (p_usr, writ_lease.caller(),
            least(ifnull(p_expires, 0), writ_lease.clock() + (SELECT ifnull(max(max_ttl_secs), 0) FROM writ_lease.template)),
            writ_lease.clock(), writ_lease.clock());
  COMMIT;
  CALL writ_lease.mine(p_usr);
  SET v_there = writ_lease.there(p_usr);
  CALL writ_lease.close_it(p_usr);
  SELECT if(v_there > 0, 'closed', 'not_found') AS auth;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.`kill`(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  DECLARE v_seen bigint;
  CALL writ_lease.mine(p_usr);
  SET v_seen = writ_lease.sessions(p_usr);
  CALL writ_lease.kill_it(p_usr);
  SELECT v_seen AS sessions;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.purge(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  DECLARE v_there bigint;
  CALL writ_lease.mine(p_usr);
  SET v_there = writ_lease.there(p_usr);
  CALL writ_lease.purge_it(p_usr);
  SELECT if(v_there > 0, 'dropped', 'not_found') AS account,
         (SELECT count(*) FROM mysql.proc WHERE definer = concat(p_usr, '@%')) + (SELECT count(*) FROM mysql.event WHERE definer = concat(p_usr, '@%')) AS left_behind;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.gone(p_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin)
SQL SECURITY DEFINER
BEGIN
  DECLARE v_seen bigint DEFAULT -1;
  CALL writ_lease.mine(p_usr);
  IF writ_lease.there(p_usr) = 0 THEN
    SET v_seen = writ_lease.sessions(p_usr);
    CALL writ_lease.kill_it(p_usr);
    DELETE FROM writ_lease.lease WHERE expires < writ_lease.clock() - 3600 AND dropped_at IS NOT NULL LIMIT 100;
  END IF;
  SELECT v_seen AS sessions;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.list()
SQL SECURITY DEFINER
BEGIN
  SELECT l.usr, l.expires FROM writ_lease.lease l
    WHERE l.broker = writ_lease.caller() AND (l.dropped_at IS NULL OR writ_lease.there(l.usr) > 0);
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.inspect()
SQL SECURITY DEFINER
BEGIN
  SELECT 'routine' AS kind, convert(name USING utf8mb4) AS name, concat(sha2(body, 256), ' ', definer, ' ', security_type) AS detail
    FROM mysql.proc WHERE db = 'writ_lease'
  UNION ALL SELECT 'executes', convert(Routine_name USING utf8mb4), concat(User, '@', Host) FROM mysql.procs_priv WHERE Db = 'writ_lease'
  UNION ALL SELECT 'event', convert(name USING utf8mb4), concat(status, ' ', definer) FROM mysql.event WHERE db = 'writ_lease'
  UNION ALL SELECT 'scheduler', '', @@global.event_scheduler
  UNION ALL SELECT 'flush', '', @@global.innodb_flush_log_at_trx_commit
  UNION ALL SELECT 'owner', concat(User, '@', Host), if(ifnull(json_value(Priv, '$.account_locked'), 0), 'locked', 'open')
    FROM mysql.global_priv WHERE User = 'writ_lease_owner'
  UNION ALL SELECT 'anonymous', concat(User, '@', Host), '' FROM mysql.global_priv WHERE User = '' AND NOT ifnull(json_value(Priv, '$.is_role'), 0)
  UNION ALL SELECT 'template', t.name, concat(t.max_ttl_secs, ' ', t.role) FROM writ_lease.template t
  UNION ALL SELECT 'role_global', t.name, json_value(g.Priv, '$.access') FROM writ_lease.template t
    JOIN mysql.global_priv g ON g.User = t.role AND g.Host = '' WHERE ifnull(json_value(g.Priv, '$.access'), 0) <> 0
  UNION ALL SELECT 'role_missing', t.name, t.role FROM writ_lease.template t
    WHERE NOT EXISTS (SELECT 1 FROM mysql.global_priv g WHERE g.User = t.role AND g.Host = '' AND json_value(g.Priv, '$.is_role'))
  UNION ALL SELECT 'role_db', t.name, d.Db FROM writ_lease.template t JOIN mysql.db d ON d.User = t.role AND d.Host = ''
    WHERE 'Y' IN (d.Grant_priv, d.Create_routine_priv, d.Alter_routine_priv, d.Event_priv, d.Trigger_priv, d.Create_view_priv)
       OR 'mysql' LIKE d.Db OR 'writ_lease' LIKE d.Db OR 'sys' LIKE d.Db OR 'performance_schema' LIKE d.Db
  UNION ALL SELECT 'role_db', t.name, concat(d.Db, '.', d.Table_name) FROM writ_lease.template t
    JOIN mysql.tables_priv d ON d.User = t.role AND d.Host = ''
    WHERE find_in_set('Grant', d.Table_priv) OR find_in_set('Trigger', d.Table_priv)
       OR d.Db IN ('mysql', 'writ_lease', 'sys', 'performance_schema')
  UNION ALL SELECT 'role_role', t.name, m.Role FROM writ_lease.template t JOIN mysql.roles_mapping m ON m.User = t.role AND m.Host = '';
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.standing()
SQL SECURITY DEFINER
BEGIN
  SELECT g.User AS name, g.Host AS host, cast(ifnull(json_value(g.Priv, '$.access'), 0) AS unsigned) AS access,
         ifnull(json_value(g.Priv, '$.password_lifetime'), '') AS lifetime,
         ifnull(json_value(g.Priv, '$.password_last_changed'), 0) AS changed,
         (SELECT count(*) FROM information_schema.PROCESSLIST p WHERE p.User = g.User) AS sessions,
         (SELECT count(DISTINCT substring_index(p.Host, ':', 1)) FROM information_schema.PROCESSLIST p WHERE p.User = g.User) AS addresses,
         ifnull((SELECT group_concat(m.Role ORDER BY m.Role) FROM mysql.roles_mapping m WHERE m.User = g.User AND m.Host = g.Host), '') AS roles,
         (SELECT count(*) FROM mysql.db d WHERE d.User = g.User AND d.Host = g.Host)
           + (SELECT count(*) FROM mysql.tables_priv d WHERE d.User = g.User AND d.Host = g.Host) AS grants,
         writ_lease.clock() AS clock
    FROM mysql.global_priv g
    WHERE NOT ifnull(json_value(g.Priv, '$.is_role'), 0) AND NOT ifnull(json_value(g.Priv, '$.account_locked'), 0)
      AND g.User <> writ_lease.caller() AND g.User <> ''
      AND NOT EXISTS (SELECT 1 FROM writ_lease.lease l WHERE l.usr = convert(g.User USING ascii) AND g.Host = '%')
    ORDER BY 1, 2;
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost FUNCTION writ_lease.param(p_name varchar(64) CHARACTER SET ascii COLLATE ascii_bin)
RETURNS varchar(4096) CHARACTER SET utf8mb4 NOT DETERMINISTIC READS SQL DATA SQL SECURITY DEFINER
BEGIN
  RETURN (SELECT json_value(l.params, concat('$."', p_name, '"')) FROM writ_lease.lease l
          WHERE l.usr = convert(writ_lease.caller() USING ascii) AND l.closed_at IS NULL AND l.expires > writ_lease.clock());
END//

CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.sweep_all()
SQL SECURITY DEFINER
BEGIN
  DECLARE v_usr varchar(36) CHARACTER SET ascii COLLATE ascii_bin;
  DECLARE v_done int DEFAULT 0;
  DECLARE v_rows CURSOR FOR SELECT l.usr FROM writ_lease.lease l
    WHERE (l.expires < writ_lease.clock() OR l.closed_at < writ_lease.clock() - 30) AND (l.dropped_at IS NULL OR writ_lease.there(l.usr) > 0);
  DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = 1;
  SET SESSION time_zone = '+00:00';
  OPEN v_rows;
  leases: LOOP
    SET v_done = 0;
    FETCH v_rows INTO v_usr;
    IF v_done THEN
      LEAVE leases;
    END IF;
    BEGIN
      DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
      CALL writ_lease.close_it(v_usr);
      CALL writ_lease.kill_it(v_usr);
      CALL writ_lease.purge_it(v_usr);
    END;
  END LOOP;
  CLOSE v_rows;
END//
DELIMITER ;

-- The backstop without Writ: needs event_scheduler = ON.
CREATE OR REPLACE DEFINER = writ_lease_owner@localhost EVENT writ_lease.sweep ON SCHEDULE EVERY 1 SECOND
  ON COMPLETION PRESERVE ENABLE DO CALL writ_lease.sweep_all();

{{grants}}
{{templates}}
