//! The script that the database's administrator runs once (`install.sql`, filled in), and what it says about each
//! function, so that an examination can compare what stands in the database with what was meant to. Pure.

use super::Settings;

/// The script with holes.
const SCRIPT: &str = include_str!("install.sql");

/// Connections that our account may hold at once at the server: both pools, and one for the examination.
pub(super) const CONNECTIONS_MAX: u32 = super::connect::ISSUE_POOL + super::connect::END_POOL + 4;

/// How much longer the database lets a role live than the offer says, in seconds: its clock and ours differ.
pub(super) const CLOCK_DIFFERENCE_SECS: u64 = 60;

/// Most sessions of one credential at once, unless the offer says otherwise.
pub(super) const SESSIONS_DEFAULT: i64 = 5;

/// Who may execute a function.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Our account, in the database where credentials are made.
    Broker,
    /// Our account, in every database.
    Everywhere,
    /// The template roles.
    Templates,
    /// The other functions only.
    Nobody,
}

/// Every function of the script, as PostgreSQL prints its arguments' types.
pub(super) const FUNCTIONS: &[(&str, &str, Caller)] = &[
    ("issue", "text, text, bigint, text, text, text", Caller::Broker),
    ("mine", "text", Caller::Nobody),
    ("close", "text, bigint", Caller::Broker),
    ("kill", "text", Caller::Broker),
    ("clean_here", "text", Caller::Everywhere),
    ("elsewhere", "text", Caller::Broker),
    ("purge", "text", Caller::Broker),
    ("gone", "text", Caller::Broker),
    ("list", "", Caller::Broker),
    ("templates", "", Caller::Broker),
    ("standing", "", Caller::Broker),
    ("param", "text", Caller::Templates),
];

/// The script for these settings.
pub(super) fn script(settings: &Settings) -> String {
    let at = &settings.at;
    let functions = |which: &dyn Fn(Caller) -> bool| -> Vec<String> {
        let chosen = FUNCTIONS.iter().filter(|(_, _, caller)| which(*caller));
        chosen.map(|(name, arguments, _)| format!("writ_lease.{name}({arguments})")).collect()
    };
    let owners: Vec<_> =
        functions(&|_| true).iter().map(|function| format!("ALTER FUNCTION {function} OWNER TO writ_lease_owner;")).collect();
    let holes = [
        ("{{owners}}", owners.join("\n")),
        ("{{broker_functions}}", functions(&|caller| caller == Caller::Broker).join(",\n      ")),
        ("{{broker_connections}}", CONNECTIONS_MAX.to_string()),
        ("{{broker_literal}}", literal(&at.user)),
        ("{{broker}}", identifier(&at.user)),
        ("{{database_literal}}", literal(&at.database)),
        ("{{database}}", identifier(&at.database)),
        ("{{target}}", settings.target.to_string()),
        ("{{templates}}", templates(settings)),
    ];
    holes.iter().fold(SCRIPT.to_owned(), |script, (hole, text)| script.replace(hole, text))
}

/// The part that makes the templates and says what may be issued.
fn templates(settings: &Settings) -> String {
    let mut out = String::new();
    for template in settings.templates() {
        let (name, parent) = (literal(&template.name), identifier(&template.name));
        let ttl = template.lifetime_secs.saturating_add(CLOCK_DIFFERENCE_SECS);
        out.push_str(&format!(
            "    -- Give {parent} exactly what a credential of it may do: GRANT SELECT ON … TO {parent};\n\
             \x20   IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN\n\
             \x20     CREATE ROLE {parent} NOLOGIN;\n\
             \x20   END IF;\n\
             \x20   GRANT {parent} TO writ_lease_owner WITH ADMIN OPTION;\n\
             \x20   GRANT USAGE ON SCHEMA writ_lease TO {parent};\n\
             \x20   GRANT EXECUTE ON FUNCTION writ_lease.param(text) TO {parent};\n\
             \x20   INSERT INTO writ_lease.template (name, parent, max_ttl_secs, max_conn, max_live)\n\
             \x20     VALUES ({name}, {name}, {ttl}, {}, {})\n\
             \x20     ON CONFLICT (name) DO UPDATE SET parent = excluded.parent, max_ttl_secs = excluded.max_ttl_secs,\n\
             \x20       max_conn = excluded.max_conn, max_live = excluded.max_live;\n",
            template.sessions_max, template.live_max
        ));
    }
    out
}

/// What stands between the dollar quotes of a function, as `pg_proc.prosrc` has it.
pub(super) fn body(name: &str) -> &'static str {
    let after = SCRIPT.split_once(&format!("FUNCTION writ_lease.{name}(")).map_or("", |(_, after)| after);
    after.split("$writ$").nth(1).unwrap_or_default()
}

/// Whether a name can stand in the script: it goes into a dollar-quoted block.
pub(super) fn is_plain(name: &str) -> bool {
    (1..=63).contains(&name.len()) && !name.chars().any(|c| c.is_control() || matches!(c, '$' | '{' | '}' | '\\'))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_the_script_is_known_and_none_else() {
        let in_script = SCRIPT.matches("CREATE OR REPLACE FUNCTION writ_lease.").count();
        assert_eq!(in_script, FUNCTIONS.len());
        for (name, _, _) in FUNCTIONS {
            assert!(body(name).len() > 40, "{name}");
        }
    }

    #[test]
    fn every_function_names_its_search_path() {
        for part in SCRIPT.split("CREATE OR REPLACE FUNCTION ").skip(1) {
            let head = part.split("$writ$").next().unwrap_or_default();
            assert!(head.contains("SECURITY DEFINER SET search_path = pg_catalog, pg_temp"), "{head}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_the_script() {
        assert!(!is_plain("x$writ$; DROP"));
        assert!(!is_plain("x\ny"));
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b"), "'a''b'");
    }
}
