//! Attacks with the broker's real account, as somebody has it who stole its password (R16). Each must fail at the
//! database, whatever Writ does.

use super::*;

const VERIFIER: &str = "SCRAM-SHA-256$1:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn issue(role: &str, template: &str, expires: &str, verifier: &str, params: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    format!(
        "SELECT writ_lease.issue({}, {}, {expires}, {}, {}, 't')",
        quoted(role),
        quoted(template),
        quoted(verifier),
        quoted(params)
    )
}

const SOON: &str = "extract(epoch FROM pg_catalog.now())::bigint + 60";
const NAME: &str = "jit_000000000000000000000000000000aa";

#[tokio::test]
async fn broker_can_mint_nothing_but_bounded_templates() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    let far = "extract(epoch FROM now())::bigint + 100000";
    let heavy = VERIFIER.replace("$1:", "$2147483647:");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    let cases = [
        (issue("admin", "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue("postgres", "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue("jit_AA", "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue(&format!("{NAME}\n"), "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue(&format!("{NAME} superuser"), "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue("jit_0000000000000000000000000000\" superuser --", "orders_read", SOON, VERIFIER, "{}"), "WL001"),
        (issue(NAME, "orders_admin", SOON, VERIFIER, "{}"), "WL002"),
        (issue(NAME, "orders_read, postgres", SOON, VERIFIER, "{}"), "WL002"),
        (issue(NAME, "' OR true --", SOON, VERIFIER, "{}"), "WL002"),
        (issue(NAME, "orders_read", far, VERIFIER, "{}"), "WL003"),
        (issue(NAME, "orders_read", "9223372036854775807", VERIFIER, "{}"), "WL003"),
        (issue(NAME, "orders_read", "0", VERIFIER, "{}"), "WL003"),
        (issue(NAME, "orders_read", "NULL", VERIFIER, "{}"), "WL003"),
        (issue(NAME, "orders_read", SOON, "plain", "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, "", "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, &heavy, "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, &format!("{VERIFIER}' SUPERUSER --"), "{}"), "WL004"),
        (issue(NAME, "orders_read", SOON, VERIFIER, &long), "WL010"),
        (issue(NAME, "orders_read", SOON, VERIFIER, "{'"), "22P02"),
        (format!("SELECT writ_lease.issue('{NAME}', NULL, {SOON}, '{VERIFIER}', '{{}}', 't')"), "WL002"),
        (format!("SELECT writ_lease.issue(NULL, 'orders_read', {SOON}, '{VERIFIER}', '{{}}', 't')"), "WL001"),
        (format!("SELECT writ_lease.issue('{NAME}', 'orders_read', {SOON}, NULL, '{{}}', 't')"), "WL004"),
        (format!("SELECT writ_lease.issue('{NAME}', 'orders_read', {SOON}, '{VERIFIER}', NULL, 't')"), "WL010"),
    ];
    for (sql, expected) in cases {
        assert_eq!(state(&mut broker, &sql).await, expected, "{sql}");
    }
    assert_eq!(lab.roles(), "");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, VERIFIER, "{}")).await, "ok");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, VERIFIER, "{}")).await, "42710");
    let sql = format!(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls, rolconnlimit FROM pg_roles WHERE rolname = '{NAME}'"
    );
    assert_eq!(lab.server.psql("orders", &sql).unwrap(), "f|5");
}

#[tokio::test]
async fn count_of_live_credentials_is_bounded_in_the_database() {
    let Some(lab) = Lab::start() else { return };
    lab.server.psql("orders", "UPDATE writ_lease.template SET max_live = 9").unwrap();
    // All at once: none of them sees the others' rows before they are committed.
    let lab = Arc::new(lab);
    let calls: Vec<_> = (10..26)
        .map(|last| {
            let lab = Arc::clone(&lab);
            tokio::spawn(async move {
                let name = format!("jit_000000000000000000000000000000{last}");
                let mut broker = lab.broker().await;
                state(&mut broker, &issue(&name, "orders_read", SOON, VERIFIER, "{}")).await
            })
        })
        .collect();
    let mut said = Vec::new();
    for call in calls {
        said.push(call.await.unwrap());
    }
    said.sort_unstable();
    assert_eq!(said, [vec!["WL005"; 7], vec!["ok"; 9]].concat());
    assert_eq!(lab.roles().lines().count(), 9);
    // A place is free again as soon as a role is dropped, and not before.
    let first = lab.roles().lines().next().unwrap().to_owned();
    let mut broker = lab.broker().await;
    let again = issue(NAME, "orders_read", SOON, VERIFIER, "{}");
    assert_eq!(state(&mut broker, &format!("SELECT writ_lease.close('{first}', 0)")).await, "ok");
    assert_eq!(state(&mut broker, &again).await, "WL005");
    assert_eq!(state(&mut broker, &format!("SELECT writ_lease.purge('{first}')")).await, "ok");
    assert_eq!(state(&mut broker, &again).await, "ok");
}

#[tokio::test]
async fn callers_settings_do_not_move_the_deadline() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    // With the text form of a timestamp these settings made a credential live fourteen hours longer.
    for (last, settings) in [
        ('1', "SET datestyle = 'SQL, DMY'; SET timezone = '<UTC>+14'"),
        ('2', "SET datestyle = 'German'; SET timezone = 'Pacific/Kiritimati'"),
        ('3', "SET datestyle = 'Postgres'; SET timezone = '<UTC>-14'; SET intervalstyle = 'sql_standard'"),
    ] {
        let name = format!("jit_0000000000000000000000000000000{last}");
        assert_eq!(state(&mut broker, settings).await, "ok");
        assert_eq!(state(&mut broker, &issue(&name, "orders_read", SOON, VERIFIER, "{}")).await, "ok");
        let sql =
            format!("SELECT abs(extract(epoch FROM rolvaliduntil - now()) - 60) < 10 FROM pg_roles WHERE rolname = '{name}'");
        assert_eq!(lab.server.psql("orders", &sql).unwrap(), "t", "{settings}");
    }
}

#[tokio::test]
async fn broker_cannot_touch_what_it_did_not_issue() {
    let Some(lab) = Lab::start() else { return };
    // A role that looks like ours and is not, and one that another account issued.
    lab.server.psql("orders", &format!("CREATE ROLE {NAME} LOGIN PASSWORD 'x'")).unwrap();
    let others = "jit_000000000000000000000000000000bb";
    lab.server
        .psql(
            "orders",
            &format!(
                "CREATE ROLE {others} LOGIN; INSERT INTO writ_lease.lease (role, role_oid, broker, template, expires) \
                 VALUES ('{others}', '{others}'::regrole, 'other_broker', 'orders_read', now() + '1 hour')"
            ),
        )
        .unwrap();
    let mut broker = lab.broker().await;
    let mut alice = lab.login("alice", "alice-password", "orders").await.unwrap();
    for (role, expected) in [("postgres", "WL001"), ("alice", "WL001"), (BROKER, "WL001"), (NAME, "WL007"), (others, "WL007")] {
        for call in [
            format!("SELECT writ_lease.close('{role}', 0)"),
            format!("SELECT writ_lease.kill('{role}')"),
            format!("SELECT writ_lease.clean_here('{role}')"),
            format!("SELECT writ_lease.purge('{role}')"),
            format!("SELECT writ_lease.gone('{role}')"),
        ] {
            assert_eq!(state(&mut broker, &call).await, expected, "{call}");
        }
    }
    assert_eq!(lab.server.psql("orders", "SELECT count(*) FROM pg_roles WHERE rolcanlogin").unwrap(), "5");
    assert_eq!(ask(&mut alice, "SELECT 'alive'").await.unwrap(), "alive");
    assert!(lab.target.inventory().await.unwrap().is_empty());
    // A role of ours that the administrator made his own under another name is left alone as well.
    let (plan, _) = lab.mint(300).await;
    lab.server.psql("orders", &format!("ALTER ROLE {} RENAME TO kept", plan.handle)).unwrap();
    assert!(matches!(lab.end(Ending::CloseAuth, &plan).await, Err(TargetError::Refused(_))));
    assert_eq!(lab.server.psql("orders", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'kept'").unwrap(), "t");
}

#[tokio::test]
async fn broker_reads_nothing_and_becomes_nobody() {
    let Some(lab) = Lab::start() else { return };
    let mut broker = lab.broker().await;
    for (sql, expected) in [
        ("SELECT * FROM orders", "42501"),
        ("SELECT * FROM integration_tokens", "42501"),
        ("SELECT * FROM writ_lease.lease", "42501"),
        ("SELECT * FROM writ_lease.template", "42501"),
        ("INSERT INTO writ_lease.template VALUES ('t', 'postgres', 600, 1, 1)", "42501"),
        ("UPDATE writ_lease.lease SET expires = 'infinity'", "42501"),
        ("SELECT writ_lease.mine('jit_000000000000000000000000000000aa')", "42501"),
        ("SELECT writ_lease.param('region')", "42501"),
        (
            "CREATE OR REPLACE FUNCTION writ_lease.list() RETURNS TABLE (role text, expires bigint) LANGUAGE sql AS 'SELECT NULL, NULL'",
            "42501",
        ),
        ("ALTER FUNCTION writ_lease.list() OWNER TO writ_broker", "42501"),
        ("ALTER FUNCTION writ_lease.issue(text, text, bigint, text, text, text) SET search_path = public", "42501"),
        ("CREATE TABLE writ_lease.x (y int)", "42501"),
        ("DROP SCHEMA writ_lease CASCADE", "42501"),
        ("CALL writ_lease.sweep()", "42501"),
        ("CREATE ROLE evil SUPERUSER", "42501"),
        ("CREATE ROLE evil", "42501"),
        ("ALTER ROLE alice PASSWORD 'x'", "42501"),
        ("ALTER ROLE writ_broker SUPERUSER", "42501"),
        ("ALTER ROLE writ_broker CONNECTION LIMIT -1", "42501"),
        ("DROP ROLE alice", "42501"),
        ("GRANT orders_read TO writ_broker", "42501"),
        ("GRANT writ_lease_owner TO writ_broker", "42501"),
        ("GRANT pg_execute_server_program TO writ_broker", "42501"),
        ("SET ROLE writ_lease_owner", "42501"),
        ("SET ROLE orders_read", "42501"),
        ("SET SESSION AUTHORIZATION postgres", "42501"),
        ("COPY (SELECT 1) TO PROGRAM 'id'", "42501"),
        ("COPY (SELECT 1) TO '/tmp/x'", "42501"),
        ("SELECT pg_read_file('/etc/passwd')", "42501"),
        ("SELECT lo_import('/etc/passwd')", "42501"),
        ("CREATE EXTENSION dblink", "42501"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x'", "42501"),
        ("ALTER SYSTEM SET log_statement = 'all'", "42501"),
        ("CREATE TABLE public.x (y int)", "42501"),
        ("CREATE TEMP TABLE x (y int)", "42501"),
        ("CREATE DATABASE evil", "42501"),
        ("SELECT rolpassword FROM pg_authid", "42501"),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'", "42501"),
    ] {
        let mut postgres = None;
        if sql.contains("terminate") {
            let options =
                PgConnectOptions::new_without_pgpass().host(lab.server.socket().to_str().unwrap()).port(lab.server.port());
            postgres = options.username("postgres").database("orders").connect().await.ok();
        }
        assert_eq!(state(&mut broker, sql).await, expected, "{sql}");
        drop(postgres);
    }
}

#[tokio::test]
async fn broker_cannot_slip_its_own_objects_under_the_functions() {
    let Some(lab) = Lab::start() else { return };
    // The worst case: everybody may make temporary and public objects.
    lab.server
        .psql("orders", "GRANT TEMPORARY ON DATABASE orders TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE proof (who text); GRANT INSERT ON proof TO PUBLIC")
        .unwrap();
    let mut broker = lab.broker().await;
    for sql in [
        "CREATE TEMP TABLE pg_roles (oid oid, rolname name, rolcanlogin boolean, rolsuper boolean)",
        "CREATE TEMP TABLE pg_stat_activity (pid int, usesysid oid)",
        "CREATE TEMP TABLE template (name text, parent name, max_ttl_secs int, max_conn int, max_live int)",
        "INSERT INTO template VALUES ('orders_admin', 'orders_admin', 99999, 1, 1)",
        "CREATE FUNCTION pg_temp.format(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.proof VALUES (current_user); RETURN $$SELECT 1$$; END'",
        "CREATE FUNCTION public.format(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.proof VALUES (current_user); RETURN $$SELECT 1$$; END'",
        "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.proof VALUES (current_user); RETURN NULL; END'",
        "CREATE FUNCTION public.texteqtext(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.proof VALUES (current_user); RETURN true; END'",
        "CREATE OPERATOR public.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = public.texteqtext)",
        "SET search_path = pg_temp, public, pg_catalog",
    ] {
        assert_eq!(state(&mut broker, sql).await, "ok", "{sql}");
    }
    assert_eq!(state(&mut broker, &issue(NAME, "orders_admin", SOON, VERIFIER, "{}")).await, "WL002");
    assert_eq!(state(&mut broker, &issue("alice", "orders_read", SOON, VERIFIER, "{}")).await, "WL001");
    assert_eq!(state(&mut broker, &issue(NAME, "orders_read", SOON, VERIFIER, "{}")).await, "ok");
    for call in [
        "close('jit_000000000000000000000000000000aa', 0)",
        "kill('jit_000000000000000000000000000000aa')",
        "purge('jit_000000000000000000000000000000aa')",
        "gone('jit_000000000000000000000000000000aa')",
    ] {
        assert_eq!(state(&mut broker, &format!("SELECT writ_lease.{call}")).await, "ok", "{call}");
    }
    assert_eq!(lab.server.psql("orders", "SELECT count(*) FROM proof WHERE who = 'writ_lease_owner'").unwrap(), "0");
    assert_eq!(lab.roles(), "");
}
