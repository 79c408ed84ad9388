//! Attacks with the broker's real account, as somebody has it who stole its password (R16), and with a credential. Each
//! must fail at the server, whatever Writ does.

use super::*;

const HASH: &str = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19";
const NAME: &str = "jit_000000000000000000000000000000aa";
const SOON: &str = "unix_timestamp(sysdate()) + 60";

fn issue(account: &str, template: &str, expires: &str, hash: &str, params: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let (account, template, hash, params) = (quoted(account), quoted(template), quoted(hash), quoted(params));
    format!("CALL writ_lease.issue({account}, {template}, {expires}, {hash}, {params}, 't')")
}

#[tokio::test]
async fn broker_can_mint_nothing_but_bounded_templates() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    let cases = [
        (issue("root", "orders_read", SOON, HASH, "{}"), "WL001"),
        (issue("jit_AA", "orders_read", SOON, HASH, "{}"), "WL001"),
        (issue(&NAME.to_uppercase(), "orders_read", SOON, HASH, "{}"), "WL001"),
        (issue(&NAME.replace("aa", "a\n"), "orders_read", SOON, HASH, "{}"), "WL001"),
        (issue("jit_00000000000000000000000000000'@'%", "orders_read", SOON, HASH, "{}"), "1406"),
        (issue("jit_0000000000000000000000000000'@'%", "orders_read", SOON, HASH, "{}"), "WL001"),
        (issue(NAME, "root", SOON, HASH, "{}"), "WL002"),
        (issue(NAME, "ORDERS_READ", SOON, HASH, "{}"), "WL002"),
        (issue(NAME, "' OR 1 --", SOON, HASH, "{}"), "WL002"),
        (issue(NAME, "orders_read", "unix_timestamp() + 100000", HASH, "{}"), "WL003"),
        (issue(NAME, "orders_read", "9223372036854775807", HASH, "{}"), "WL003"),
        (issue(NAME, "orders_read", "0", HASH, "{}"), "WL003"),
        (issue(NAME, "orders_read", "NULL", HASH, "{}"), "WL003"),
        (issue(NAME, "orders_read", SOON, "plain-password", "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, "", "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, &format!("{HASH}' OR"), "{}"), "1406"),
        (issue(NAME, "orders_read", SOON, &HASH.replace("E19", "E1\n"), "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, HASH, &long), "WL010"),
        (issue(NAME, "orders_read", SOON, HASH, "{'"), "WL010"),
        (format!("CALL writ_lease.issue(NULL, 'orders_read', {SOON}, '{HASH}', '{{}}', 't')"), "WL001"),
        (format!("CALL writ_lease.issue('{NAME}', NULL, {SOON}, '{HASH}', '{{}}', 't')"), "WL002"),
        (format!("CALL writ_lease.issue('{NAME}', 'orders_read', {SOON}, NULL, '{{}}', 't')"), "WL004"),
        (format!("CALL writ_lease.issue('{NAME}', 'orders_read', {SOON}, '{HASH}', NULL, 't')"), "WL010"),
    ];
    for (sql, expected) in cases {
        assert_eq!(state(&mut broker, &sql).await, expected, "{sql}");
    }
    assert_eq!(lab.accounts(), "");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, HASH, "{}")).await, "ok");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, HASH, "{}")).await, "1062");
    lab.server.sql("UPDATE writ_lease.template SET max_live = 1").unwrap();
    let second = NAME.replace("aa", "ab");
    assert_eq!(state(&mut broker, &issue(&second, "orders_read", SOON, HASH, "{}")).await, "WL005");
    let grants = lab.server.sql(&format!("SHOW GRANTS FOR {NAME}@'%'")).unwrap();
    assert_eq!(grants.lines().count(), 3, "{grants}");
    assert!(grants.contains("GRANT `orders_read` TO") && grants.contains("GRANT USAGE ON *.*"), "{grants}");
}

#[tokio::test]
async fn callers_clock_and_modes_move_nothing() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    // A session may set its own time: with NOW() in the procedure this made a credential that outlives every bound.
    assert_eq!(state(&mut broker, "SET timestamp = 2000000000").await, "ok");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", "2000000060", HASH, "{}")).await, "WL003");
    assert_eq!(state(&mut broker, "SET timestamp = 2000000000").await, "ok");
    assert_eq!(state(&mut broker, "SET time_zone = '+13:00', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'").await, "ok");
    let soon = (now().secs() + 60).to_string();
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", &soon, HASH, "{}")).await, "ok");
    let row = lab.server.sql("SELECT expires - unix_timestamp() BETWEEN 40 AND 70 FROM writ_lease.lease").unwrap();
    assert_eq!(row, "1");
}

#[tokio::test]
async fn broker_cannot_touch_what_it_did_not_issue() {
    let Some(lab) = Lab::start() else { return };
    let others = "jit_000000000000000000000000000000bb";
    lab.server
        .sql(&format!(
            "CREATE USER {NAME}@'%' IDENTIFIED BY 'x'; CREATE USER {others}@'%'; \
             INSERT INTO writ_lease.lease (usr, broker, template, expires) VALUES ('{others}', 'other_broker', 'orders_read', unix_timestamp() + 900)"
        ))
        .unwrap();
    let mut broker = lab.broker().await;
    let mut alice = lab.login("alice", "alice-password").await.unwrap();
    for (account, expected) in [("root", "WL001"), ("alice", "WL001"), (BROKER, "WL001"), (NAME, "WL007"), (others, "WL007")] {
        for call in [
            format!("close('{account}', 0)"),
            format!("`kill`('{account}')"),
            format!("purge('{account}')"),
            format!("gone('{account}')"),
        ] {
            assert_eq!(state(&mut broker, &format!("CALL writ_lease.{call}")).await, expected, "{call}");
        }
    }
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, HASH, "{}")).await, "WL007");
    let locked = lab.server.sql("SELECT count(*) FROM mysql.global_priv WHERE json_value(Priv, '$.account_locked')").unwrap();
    assert_eq!(locked, "2", "mariadb.sys and the owner only");
    assert_eq!(ask(&mut alice, "SELECT 'alive'").await.unwrap(), "alive");
    assert!(lab.target.inventory().await.unwrap().is_empty());
}

#[tokio::test]
async fn broker_reads_nothing_and_becomes_nobody() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    for sql in [
        "SELECT * FROM shop.orders",
        "SELECT * FROM shop.integration_tokens",
        "SELECT * FROM writ_lease.lease",
        "SELECT * FROM writ_lease.template",
        "INSERT INTO writ_lease.template VALUES ('t', 'root', 600, 1, 1, 0)",
        "SELECT * FROM mysql.user",
        "SELECT writ_lease.param('region')",
        "CALL writ_lease.mine('x')",
        "CALL writ_lease.purge_it('alice')",
        "CALL writ_lease.sweep_all()",
        "CREATE OR REPLACE PROCEDURE writ_lease.list() SELECT 1",
        "CREATE DEFINER = root@localhost PROCEDURE writ_lease.x() SELECT 1",
        "ALTER PROCEDURE writ_lease.issue SQL SECURITY INVOKER",
        "DROP PROCEDURE writ_lease.issue",
        "DROP DATABASE writ_lease",
        "DROP EVENT writ_lease.sweep",
        "CREATE USER evil",
        "ALTER USER root@localhost IDENTIFIED BY 'x'",
        "ALTER USER alice IDENTIFIED BY 'x'",
        "ALTER USER writ_lease_owner@localhost ACCOUNT UNLOCK",
        "SET PASSWORD FOR alice = PASSWORD('x')",
        "DROP USER alice",
        "GRANT orders_read TO writ_broker",
        "GRANT ALL ON *.* TO writ_broker",
        "SET ROLE orders_read",
        "SET DEFAULT ROLE orders_read FOR alice",
        "SET GLOBAL event_scheduler = OFF",
        "SET GLOBAL general_log = ON",
        "SELECT load_file('/etc/passwd') FROM mysql.user",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "INSTALL SONAME 'x'",
        "CREATE DATABASE evil",
        "FLUSH PRIVILEGES",
    ] {
        let refused = state(&mut broker, sql).await;
        assert!(
            ["1044", "1045", "1142", "1227", "1370", "1959", "1396", "1410", "1698"].contains(&refused.as_str()),
            "{sql}: {refused}"
        );
    }
    // The statement itself is open to everybody; whose sessions it may end is not.
    let mut alice = lab.login("alice", "alice-password").await.unwrap();
    let _ = state(&mut broker, "KILL USER alice").await;
    assert_eq!(ask(&mut alice, "SELECT 'alive'").await.unwrap(), "alive");
}

#[tokio::test]
async fn credential_reads_its_rows_and_nothing_moves_them() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let mut session = lab.session(&minted).await.unwrap();
    let count = "SELECT concat(count(*), '/', sum(region <> 'eu')) FROM shop.my_orders";
    assert_eq!(ask(&mut session, count).await.unwrap(), "2/0");
    for sql in [
        "SELECT * FROM shop.orders",
        "SELECT * FROM shop.integration_tokens",
        "INSERT INTO shop.messages VALUES ('loot')",
        "UPDATE shop.orders SET total = 0",
        "SELECT * FROM writ_lease.lease",
        "UPDATE writ_lease.lease SET params = '{}'",
        "CALL writ_lease.list()",
        "CREATE OR REPLACE FUNCTION writ_lease.param(p varchar(64)) RETURNS text RETURN 'us'",
        "ALTER USER CURRENT_USER() WITH MAX_USER_CONNECTIONS 0",
        "SELECT * FROM shop.my_orders INTO OUTFILE '/tmp/loot'",
        "CREATE TABLE shop.loot AS SELECT * FROM shop.my_orders",
        "GRANT orders_read TO alice",
        "SET ROLE none; SELECT * FROM shop.my_orders",
    ] {
        let refused = state(&mut session, sql).await;
        assert!(["1044", "1045", "1142", "1227", "1370", "1959", "1698", "1403"].contains(&refused.as_str()), "{sql}: {refused}");
    }
    let mut session = lab.session(&minted).await.unwrap();
    for sql in ["SET @region = 'us'", "SET timestamp = 1", "SET sql_mode = ''"] {
        assert_eq!(state(&mut session, sql).await, "ok", "{sql}");
        assert_eq!(ask(&mut session, count).await.unwrap(), "2/0", "after {sql}");
    }
    // It may change its own password, which closes nothing and opens nothing: the lock holds against every password.
    assert_eq!(state(&mut session, "SET PASSWORD = PASSWORD('mine')").await, "ok");
    lab.end(Ending::CloseAuth, &plan).await.unwrap();
    assert!(lab.login(&plan.handle, "mine").await.is_err());
    lab.take_back(&plan).await;
}
