//! `writ target doctor` and `writ target scan` on a real server.

use super::*;
use authority::target::{Finding, Gravity};

fn bad(findings: &[Finding]) -> Vec<(&'static str, Gravity)> {
    findings.iter().filter(|finding| finding.gravity > Gravity::Fine).map(|finding| (finding.check, finding.gravity)).collect()
}

#[tokio::test]
async fn fresh_installation_has_nothing_broken_and_each_widening_is_found() {
    let Some(lab) = Lab::start() else { return };
    let fresh = lab.target.examine().await.unwrap();
    // template1 can be connected to by everybody, and Writ is not installed there.
    assert_eq!(bad(&fresh), [("server.databases", Gravity::Warning)], "{fresh:#?}");
    assert!(fresh.iter().all(|finding| finding.gravity == Gravity::Fine || !finding.remedy.is_empty()));

    let widenings = [
        ("ALTER ROLE writ_broker CREATEROLE", "ALTER ROLE writ_broker NOCREATEROLE", "broker.attributes", Gravity::Broken),
        ("ALTER ROLE writ_broker SUPERUSER", "ALTER ROLE writ_broker NOSUPERUSER", "broker.attributes", Gravity::Broken),
        ("GRANT orders_read TO writ_broker", "REVOKE orders_read FROM writ_broker", "broker.memberships", Gravity::Broken),
        (
            "ALTER TABLE messages OWNER TO writ_broker",
            "ALTER TABLE messages OWNER TO postgres",
            "broker.property",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON integration_tokens TO PUBLIC",
            "REVOKE ALL ON integration_tokens FROM PUBLIC",
            "broker.tables",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT (token) ON integration_tokens TO writ_broker",
            "REVOKE ALL ON integration_tokens FROM writ_broker; REVOKE SELECT (token) ON integration_tokens FROM writ_broker",
            "broker.tables",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON writ_lease.lease TO writ_broker",
            "REVOKE ALL ON writ_lease.lease FROM writ_broker",
            "broker.tables",
            Gravity::Broken,
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM PUBLIC",
            "broker.dangerous_functions",
            Gravity::Broken,
        ),
        (
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
            "broker.create",
            Gravity::Warning,
        ),
        (
            "ALTER ROLE writ_broker CONNECTION LIMIT -1",
            "ALTER ROLE writ_broker CONNECTION LIMIT 28",
            "broker.connection_limit",
            Gravity::Warning,
        ),
        (
            "GRANT EXECUTE ON FUNCTION writ_lease.purge(text) TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION writ_lease.purge(text) FROM PUBLIC",
            "lease.functions",
            Gravity::Broken,
        ),
        (
            "GRANT EXECUTE ON FUNCTION writ_lease.mine(text) TO writ_broker",
            "REVOKE EXECUTE ON FUNCTION writ_lease.mine(text) FROM writ_broker",
            "lease.functions",
            Gravity::Broken,
        ),
        (
            "ALTER FUNCTION writ_lease.issue(text, text, bigint, text, text, text) OWNER TO postgres",
            "ALTER FUNCTION writ_lease.issue(text, text, bigint, text, text, text) OWNER TO writ_lease_owner",
            "lease.functions",
            Gravity::Broken,
        ),
        (
            "ALTER FUNCTION writ_lease.list() RESET search_path",
            "ALTER FUNCTION writ_lease.list() SET search_path = pg_catalog, pg_temp",
            "lease.functions",
            Gravity::Broken,
        ),
        (
            "CREATE FUNCTION writ_lease.backdoor() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
            "DROP FUNCTION writ_lease.backdoor()",
            "lease.functions",
            Gravity::Broken,
        ),
        (
            "ALTER TABLE writ_lease.template OWNER TO writ_lease_owner",
            "ALTER TABLE writ_lease.template OWNER TO postgres; GRANT SELECT ON writ_lease.template TO writ_lease_owner",
            "lease.tables",
            Gravity::Broken,
        ),
        ("ALTER ROLE writ_lease_owner LOGIN", "ALTER ROLE writ_lease_owner NOLOGIN", "lease_owner.attributes", Gravity::Broken),
        ("GRANT writ_lease_owner TO alice", "REVOKE writ_lease_owner FROM alice", "lease_owner.members", Gravity::Broken),
        (
            "GRANT pg_execute_server_program TO orders_read",
            "REVOKE pg_execute_server_program FROM orders_read",
            "template.memberships",
            Gravity::Broken,
        ),
        (
            "CREATE ROLE mid NOLOGIN; GRANT postgres TO mid; GRANT mid TO orders_read",
            "DROP ROLE mid",
            "template.memberships",
            Gravity::Broken,
        ),
        ("ALTER ROLE orders_read LOGIN", "ALTER ROLE orders_read NOLOGIN", "template.attributes", Gravity::Broken),
        (
            "GRANT TEMPORARY ON DATABASE orders TO orders_read",
            "REVOKE TEMPORARY ON DATABASE orders FROM orders_read",
            "template.create",
            Gravity::Warning,
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO orders_read",
            "REVOKE EXECUTE ON FUNCTION pg_ls_dir(text) FROM orders_read",
            "template.dangerous_functions",
            Gravity::Broken,
        ),
        (
            "UPDATE writ_lease.template SET max_ttl_secs = 86400",
            "UPDATE writ_lease.template SET max_ttl_secs = 660",
            "template.lifetime",
            Gravity::Warning,
        ),
        (
            "UPDATE writ_lease.template SET max_ttl_secs = 60",
            "UPDATE writ_lease.template SET max_ttl_secs = 660",
            "template.lifetime",
            Gravity::Broken,
        ),
        (
            "UPDATE writ_lease.template SET name = 'other'",
            "UPDATE writ_lease.template SET name = 'orders_read'",
            "template.known",
            Gravity::Broken,
        ),
        (
            "INSERT INTO writ_lease.template VALUES ('root', 'postgres', 60, 1, 1)",
            "DELETE FROM writ_lease.template WHERE name = 'root'",
            "template.attributes",
            Gravity::Broken,
        ),
        (
            "REVOKE SELECT ON writ_lease.template FROM writ_lease_owner",
            "GRANT SELECT ON writ_lease.template TO writ_lease_owner",
            "template.known",
            Gravity::Broken,
        ),
        ("CREATE DATABASE wide", "DROP DATABASE wide", "server.databases", Gravity::Warning),
    ];
    for (widen, narrow, check, gravity) in widenings {
        lab.server.psql("orders", widen).unwrap();
        let findings = lab.target.examine().await.unwrap();
        assert!(bad(&findings).contains(&(check, gravity)), "{widen}: {:?}", bad(&findings));
        lab.server.psql("orders", narrow).unwrap();
    }
    let mended = lab.target.examine().await.unwrap();
    assert_eq!(bad(&mended), [("server.databases", Gravity::Warning)], "{mended:#?}");
}

#[tokio::test]
async fn server_that_trusts_any_password_is_found() {
    let Some(lab) = Lab::start() else { return };
    let data = lab.server.socket().join("data");
    std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 trust\n").unwrap();
    lab.server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    // The reload is a signal: until it has arrived, the old lines hold.
    while lab.login(BROKER, "wrong", "orders").await.is_err() {
        tokio::task::yield_now().await;
    }
    let findings = lab.target.examine().await.unwrap();
    assert!(bad(&findings).contains(&("server.authentication", Gravity::Broken)));
}

#[tokio::test]
async fn database_without_the_functions_says_what_to_do() {
    let Some(lab) = Lab::start() else { return };
    lab.server.psql("orders", "DROP SCHEMA writ_lease CASCADE").unwrap();
    let findings = lab.target.examine().await.unwrap();
    let functions = findings.iter().find(|finding| finding.check == "lease.functions").unwrap();
    assert_eq!(functions.gravity, Gravity::Broken);
    assert!(functions.remedy.contains("writ target install"));
    let plan = lab.plan_for(lab.grant(), None, 60).unwrap();
    let refused = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Refused(why) if why.contains("install")), "{refused:?}");
}

#[tokio::test]
async fn standing_roles_are_listed_with_what_would_replace_them() {
    let Some(lab) = Lab::start() else { return };
    lab.server
        .psql(
            "orders",
            "CREATE ROLE app LOGIN PASSWORD 'app-password'; GRANT orders_read TO app; COMMENT ON ROLE app IS 'team-orders'; \
             CREATE ROLE temp LOGIN VALID UNTIL '2030-01-01'",
        )
        .unwrap();
    let (plan, _) = lab.mint(300).await;
    let standing = lab.target.scan().await.unwrap();
    let of = |name: &str| standing.iter().find(|role| role.name == name);
    assert!(of(&plan.handle).is_none() && of(BROKER).is_none(), "ours are no finding");
    assert_eq!(of("postgres").unwrap().flags, ["no_expiry", "superuser", "owner_unknown"]);
    assert_eq!(of("alice").unwrap().flags, ["no_expiry", "unused", "owner_unknown"]);
    assert_eq!(of("app").unwrap().flags, ["no_expiry"]);
    assert_eq!(of("temp").unwrap().flags, ["unused", "owner_unknown"]);
    assert!(of("app").unwrap().proposal.contains("template = \"orders_read\""));
    for role in &standing {
        let proposed: toml::Table = role.proposal.parse().unwrap();
        assert!(proposed["offers"].is_table(), "{}", role.proposal);
    }
    // The same login from two addresses.
    let _one = lab.login("app", "app-password", "orders").await.unwrap();
    let options = PgConnectOptions::new_without_pgpass().host(lab.server.socket().to_str().unwrap()).port(lab.server.port());
    let _two = options.username("app").database("orders").connect().await.unwrap();
    let standing = lab.target.scan().await.unwrap();
    assert!(standing.iter().any(|role| role.name == "app" && role.flags.contains(&"shared")));
}
