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
    // The test's server does not flush at each commit.
    assert_eq!(bad(&fresh), [("server.durability", Gravity::Warning)], "{fresh:#?}");
    lab.server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1").unwrap();
    let surroundings: Arc<dyn Surroundings> = Arc::new(TestSurroundings);
    let script = targets::install_script(&lab.config, &surroundings).unwrap();
    let widenings = [
        (
            "GRANT CREATE USER ON *.* TO writ_broker",
            "REVOKE CREATE USER ON *.* FROM writ_broker",
            "broker.grants",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON shop.orders TO writ_broker",
            "REVOKE SELECT ON shop.orders FROM writ_broker",
            "broker.grants",
            Gravity::Broken,
        ),
        ("GRANT orders_read TO writ_broker", "REVOKE orders_read FROM writ_broker", "broker.grants", Gravity::Broken),
        ("GRANT SELECT ON shop.orders TO PUBLIC", "REVOKE SELECT ON shop.orders FROM PUBLIC", "broker.grants", Gravity::Broken),
        (
            "GRANT EXECUTE ON PROCEDURE writ_lease.list TO writ_broker WITH GRANT OPTION",
            "REVOKE GRANT OPTION ON PROCEDURE writ_lease.list FROM writ_broker",
            "broker.grants",
            Gravity::Broken,
        ),
        (
            "GRANT EXECUTE ON PROCEDURE writ_lease.purge TO alice",
            "REVOKE EXECUTE ON PROCEDURE writ_lease.purge FROM alice",
            "lease.routines",
            Gravity::Broken,
        ),
        (
            "ALTER PROCEDURE writ_lease.list SQL SECURITY INVOKER",
            "ALTER PROCEDURE writ_lease.list SQL SECURITY DEFINER",
            "lease.routines",
            Gravity::Broken,
        ),
        (
            "ALTER USER writ_lease_owner@localhost ACCOUNT UNLOCK",
            "ALTER USER writ_lease_owner@localhost ACCOUNT LOCK",
            "lease_owner.locked",
            Gravity::Broken,
        ),
        ("SET GLOBAL event_scheduler = OFF", "SET GLOBAL event_scheduler = ON", "lease.sweep", Gravity::Broken),
        (
            "ALTER EVENT writ_lease.sweep DISABLE",
            "ALTER DEFINER = writ_lease_owner@localhost EVENT writ_lease.sweep ENABLE",
            "lease.sweep",
            Gravity::Broken,
        ),
        ("CREATE USER ''@localhost", "DROP USER ''@localhost", "server.anonymous", Gravity::Broken),
        ("GRANT FILE ON *.* TO orders_read", "REVOKE FILE ON *.* FROM orders_read", "template.reach", Gravity::Broken),
        (
            "GRANT CREATE ROUTINE ON shop.* TO orders_read",
            "REVOKE CREATE ROUTINE ON shop.* FROM orders_read",
            "template.reach",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON mysql.* TO orders_read",
            "REVOKE SELECT ON mysql.* FROM orders_read",
            "template.reach",
            Gravity::Broken,
        ),
        // Database names are patterns.
        ("GRANT SELECT ON `m%`.* TO orders_read", "REVOKE SELECT ON `m%`.* FROM orders_read", "template.reach", Gravity::Broken),
        (
            "GRANT SELECT ON `writ_leas_`.* TO orders_read",
            "REVOKE SELECT ON `writ_leas_`.* FROM orders_read",
            "template.reach",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON mysql.global_priv TO orders_read",
            "REVOKE SELECT ON mysql.global_priv FROM orders_read",
            "template.reach",
            Gravity::Broken,
        ),
        (
            "GRANT SELECT ON shop.orders TO orders_read WITH GRANT OPTION",
            "REVOKE GRANT OPTION ON shop.orders FROM orders_read",
            "template.reach",
            Gravity::Broken,
        ),
        ("CREATE ROLE big; GRANT big TO orders_read", "DROP ROLE big", "template.reach", Gravity::Broken),
        (
            "UPDATE writ_lease.template SET max_ttl_secs = 86400",
            "UPDATE writ_lease.template SET max_ttl_secs = 660",
            "template.bounds",
            Gravity::Warning,
        ),
        (
            "UPDATE writ_lease.template SET role = 'nobody'",
            "UPDATE writ_lease.template SET role = 'orders_read'",
            "template.roles",
            Gravity::Broken,
        ),
        ("DELETE FROM writ_lease.template", "", "template.known", Gravity::Broken),
    ];
    for (widen, narrow, check, gravity) in widenings {
        lab.server.sql(widen).unwrap();
        let findings = lab.target.examine().await.unwrap();
        assert!(bad(&findings).contains(&(check, gravity)), "{widen}: {:?}", bad(&findings));
        lab.server.sql(narrow).unwrap();
    }
    // A procedure with another text, mended by running the script again.
    let other =
        "CREATE OR REPLACE DEFINER = writ_lease_owner@localhost PROCEDURE writ_lease.list() SQL SECURITY DEFINER SELECT 1, 2";
    lab.server.sql(other).unwrap();
    assert!(bad(&lab.target.examine().await.unwrap()).contains(&("lease.routines", Gravity::Broken)));
    lab.server.sql(&script).unwrap();
    let mended = lab.target.examine().await.unwrap();
    assert_eq!(bad(&mended), [], "{mended:#?}");
    lab.server.sql("DROP DATABASE writ_lease").unwrap();
    assert!(bad(&lab.target.examine().await.unwrap()).contains(&("lease.routines", Gravity::Broken)));
}

#[tokio::test]
async fn standing_accounts_are_listed_with_what_would_replace_them() {
    let Some(lab) = Lab::start() else { return };
    lab.server
        .sql("CREATE USER app@'%' IDENTIFIED BY 'app-password'; GRANT orders_read TO app; GRANT SELECT ON shop.* TO app")
        .unwrap();
    let (plan, _) = lab.mint(300).await;
    let standing = lab.target.scan().await.unwrap();
    let of = |name: &str| standing.iter().find(|account| account.name == name);
    assert!(!standing.iter().any(|account| account.name.starts_with(&plan.handle) || account.name.starts_with(BROKER)));
    assert!(of("root@localhost").unwrap().flags.contains(&"superuser"));
    assert_eq!(of("alice@%").unwrap().flags, ["no_expiry", "unused", "owner_unknown"]);
    assert_eq!(of("app@%").unwrap().flags, ["no_expiry", "owner_unknown"]);
    assert!(of("app@%").unwrap().proposal.contains("template = \"orders_read\""));
    for account in &standing {
        let proposed: toml::Table = account.proposal.parse().unwrap();
        assert!(proposed["offers"].is_table(), "{}", account.proposal);
    }
}
