//! The script that the server's administrator runs once (`install.sql`, filled in), and what it says about each routine,
//! so that an examination can compare what stands at the server with what was meant to. Pure.

use super::Settings;
use super::connect::{END_POOL, ISSUE_POOL, Tls};
use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

/// The script with holes.
const SCRIPT: &str = include_str!("install.sql");

/// Connections that our account may hold at once at the server: both pools, and some for the examination.
const CONNECTIONS_MAX: u32 = ISSUE_POOL + END_POOL + 4;

/// How much longer the server lets an account live than the offer says, in seconds: its clock and ours differ.
pub(super) const CLOCK_DIFFERENCE_SECS: u64 = 60;

/// The procedures that our account may call.
pub(super) const OURS: &[&str] = &["issue", "close", "kill", "purge", "gone", "list", "inspect", "standing"];

/// The routines that only the others call.
pub(super) const INNER: &[&str] =
    &["clock", "caller", "there", "sessions", "mine", "close_it", "kill_it", "purge_it", "sweep_all"];

/// The function that template roles may call.
pub(super) const PARAM: &str = "param";

/// The script for these settings.
pub(super) fn script(settings: &Settings) -> String {
    let broker = format!("{}@`%`", identifier(&settings.at.user));
    let grants: Vec<_> = OURS.iter().map(|name| format!("GRANT EXECUTE ON PROCEDURE writ_lease.`{name}` TO {broker};")).collect();
    let tls = u8::from(settings.at.tls != Tls::Off);
    let mut templates = String::new();
    for template in settings.templates() {
        let (role, name) = (identifier(&template.name), literal(&template.name));
        let ttl = template.lifetime_secs.saturating_add(CLOCK_DIFFERENCE_SECS);
        templates.push_str(&format!(
            "-- Give {role} exactly what a credential of it may do: GRANT SELECT ON … TO {role};\n\
             CREATE ROLE IF NOT EXISTS {role};\n\
             GRANT {role} TO writ_lease_owner@localhost WITH ADMIN OPTION;\n\
             GRANT EXECUTE ON FUNCTION writ_lease.param TO {role};\n\
             INSERT INTO writ_lease.template (name, role, max_ttl_secs, max_conn, max_live, require_tls)\n\
             \x20 VALUES ({name}, {name}, {ttl}, {}, {}, {tls})\n\
             \x20 ON DUPLICATE KEY UPDATE role = VALUES(role), max_ttl_secs = VALUES(max_ttl_secs), max_conn = VALUES(max_conn),\n\
             \x20   max_live = VALUES(max_live), require_tls = VALUES(require_tls);\n",
            template.sessions_max, template.live_max
        ));
    }
    let holes = [
        ("{{broker_connections}}", CONNECTIONS_MAX.to_string()),
        ("{{broker}}", broker),
        ("{{target}}", settings.target.to_string()),
        ("{{grants}}", grants.join("\n")),
        ("{{templates}}", templates),
    ];
    holes.iter().fold(SCRIPT.to_owned(), |script, (hole, text)| script.replace(hole, text))
}

/// SHA-256 of what stands from `BEGIN` to the last `END` of a routine, in hexadecimal, as `inspect` answers it.
pub(super) fn body_sha256(name: &str) -> Option<String> {
    let heads = [format!("writ_lease.{name}("), format!("writ_lease.`{name}`(")];
    // The head of a routine is the first line that begins with its kind; others name it in their bodies only.
    let part = SCRIPT.split("//\n").find(|part| {
        let head = part.lines().find(|line| line.starts_with("CREATE OR REPLACE DEFINER")).unwrap_or_default();
        heads.iter().any(|name| head.contains(name.as_str()))
    })?;
    let (_, body) = part.split_once("\nBEGIN\n")?;
    let digest = digest::digest(&digest::SHA256, format!("BEGIN\n{body}").as_bytes());
    Some(HEXLOWER.encode(digest.as_ref()))
}

/// Whether a name can stand in the script and in the procedures' own SQL.
pub(super) fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_routine_of_the_script_is_known_and_runs_as_its_owner() {
        let known: Vec<_> = OURS.iter().chain(INNER).chain([&PARAM]).collect();
        let routines = SCRIPT.matches("@localhost PROCEDURE ").count() + SCRIPT.matches("@localhost FUNCTION ").count();
        assert_eq!(routines, known.len());
        assert_eq!(SCRIPT.matches("SQL SECURITY DEFINER\n").count(), known.len());
        let bodies: std::collections::BTreeSet<_> = known.iter().map(|name| body_sha256(name)).collect();
        assert_eq!(bodies.len(), known.len());
        assert!(!bodies.contains(&None));
    }

    #[test]
    fn names_cannot_break_out_of_the_script() {
        for name in ["a`b", "a'b", "a\\b", "a b", "", "a;b", "ä"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("orders_read"));
    }
}
