//! A login of a real PostgreSQL through the whole product, used by an unmodified psql: issue, scope, the end of a live session.

use crate::lab::{Lab, Place, err, install_script, out, secret};
use crate::served::{Server, edit, text, writ};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::RealPostgresql;

const APPLICATION: &str = "
CREATE ROLE orders_read NOLOGIN;
CREATE DATABASE orders;
\\c orders
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE TABLE orders (id integer PRIMARY KEY, region text NOT NULL, total integer NOT NULL);
INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30);
CREATE TABLE cards (number text);
";

const RULES: &str = "
GRANT SELECT ON orders TO orders_read;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_region ON orders FOR SELECT TO orders_read USING (region = (SELECT writ_lease.param('region')));
ALTER ROLE writ_broker PASSWORD 'broker-password-of-the-test';
";

const POLICY: &str = "
@id(\"own-region\")
permit (principal is Intent::Work, action == OrdersDb::Action::\"read_orders\", resource is Writ::Credential)
when { context.input.region == principal.subject && context.secret == \"caller\" };
";

fn target_file(port: u16) -> String {
    format!(
        "kind = \"postgresql\"\nowner = \"support\"\ndescription = \"The orders.\"\n\
         [connect]\nhost = \"127.0.0.1\"\nport = {port}\ndatabase = \"orders\"\nuser = \"writ_broker\"\n\
         password = {{ file = \"secrets/orders-db\" }}\ntls = \"off\"\n\
         [offers.read_orders]\ndescription = \"Reads the orders of one region.\"\ntemplate = \"orders_read\"\n\
         lifetime_secs = 300\nclear_arguments = [\"region\"]\n\
         [offers.read_orders.params.region]\ntype = \"string\"\ndescription = \"The region.\"\n"
    )
}

impl Place for RealPostgresql {
    const TARGET: &'static str = "orders-db";
    const READ: (&'static str, Option<&'static str>) = ("read_orders", Some("region=eu"));

    fn target_file(&self, _: &Path) -> String {
        target_file(self.port())
    }

    fn policy(&self) -> String {
        POLICY.to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "orders-db", "broker-password-of-the-test\n");
        self.psql("postgres", APPLICATION).unwrap();
        // As an administrator does it: printed here, run there.
        self.psql("orders", &install_script(dir, "orders-db")).unwrap();
        self.psql("orders", RULES).unwrap();
    }

    fn standing(&self) -> String {
        self.psql("postgres", "SELECT rolname FROM pg_roles WHERE rolname LIKE 'jit\\_%'").unwrap()
    }
}

pub(crate) fn lab() -> Option<Lab<RealPostgresql>> {
    RealPostgresql::start().map(Lab::start)
}

#[test]
fn an_unmodified_psql_reads_what_its_task_may_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    let output = lab.run("psql -Atc 'SELECT sum(total) FROM orders'");
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output).trim(), "40", "only rows of its region");
    for forbidden in
        ["INSERT INTO orders VALUES (9, 'eu', 1)", "SELECT * FROM cards", "CREATE ROLE x", "SELECT pg_read_file('x')"]
    {
        let output = lab.run(&format!("psql -Atc \"{forbidden}\""));
        assert!(!output.status.success() && err(&output).contains("permission denied"), "{forbidden}: {}", err(&output));
    }
    lab.until("every role is gone", || lab.place.standing().is_empty());
    let credential = lab.credential();
    assert_eq!(text(&credential, "revoked_because"), "task_ended");
    lab.until("it is proved dead", || lab.credential().pointer("/at_target/state").is_some_and(|state| state == "verified_dead"));
    // Issued only after the decision was in the log, and each step of the end with it.
    let entries = lab.json(&["audit", "search", "--limit", "200"]).to_string();
    for part in ["credential.issue", "credential.step", "close_auth", "verify"] {
        assert!(entries.contains(part), "{part}");
    }
}

#[test]
fn the_end_of_the_task_kills_the_live_session() {
    let Some(lab) = lab() else { return };
    let script = "psql -Atc 'SELECT 1' -c 'SELECT pg_sleep(600)'; echo over";
    let mut exec = lab.command(script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'jit\\_%'";
    assert_eq!(lab.place.psql("postgres", sessions).unwrap(), "1");
    lab.end_task();
    assert_eq!(lines.next().unwrap().unwrap(), "over", "psql was thrown out");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut exec.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("terminating connection"), "{said}");
    exec.wait().unwrap();
    lab.until("the role is gone", || lab.place.standing().is_empty());
}

#[test]
fn the_secret_is_on_no_command_line_in_no_log_and_not_with_writ() {
    let Some(lab) = lab() else { return };
    // The pattern is in a file: looking for it must not put it on a command line.
    let script = "umask 077; cut -d: -f5 \"$PGPASSFILE\" | tr -d '\\n' > \"$HOME/secret\"; psql -Atc 'SELECT 1'; \
                  grep -lFf \"$HOME/secret\" /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | sed 's/^/found /'; \
                  ulimit -c; ls -ld \"$PGPASSFILE\" | cut -c1-10; echo \"$PGPASSFILE\"";
    let home = tempfile::tempdir().unwrap();
    let output = lab.command(script).env("HOME", home.path()).output().unwrap();
    let shown = out(&output);
    let lines: Vec<_> = shown.lines().collect();
    assert!(matches!(lines.as_slice(), ["1", "0", "-rw-------", _]), "{lines:?} {}", err(&output));
    let folder = Path::new(lines.last().unwrap()).ancestors().nth(2).unwrap();
    assert!(!folder.exists(), "{} goes with the command", folder.display());
    let secret = fs::read_to_string(home.path().join("secret")).unwrap();
    assert!(secret.len() >= 43, "256 bits");
    assert!(!err(&output).contains(&secret));
    let kept = Command::new("grep").args(["-rlaF", "--"]).arg(&secret).arg(lab.dir()).output().unwrap();
    assert_eq!(out(&kept), "", "Writ's own folder holds it nowhere");
    let logged = lab.place.psql("postgres", "SELECT rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname LIKE 'jit%'");
    assert!(matches!(logged.unwrap().as_str(), "" | "t"));
}

#[test]
fn if_exec_is_killed_its_files_go_and_the_credential_dies() {
    let Some(lab) = lab() else { return };
    let script = "echo \"$PGPASSFILE\"; read _";
    let mut exec = lab.command(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Held to the end of the test: the command goes on without its `exec`.
    let _input = exec.stdin.take();
    let mut line = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let file = Path::new(line.trim()).to_owned();
    assert!(file.exists());
    exec.kill().unwrap();
    exec.wait().unwrap();
    lab.until("the files are gone", || !file.exists());
    lab.until("liveness ends the task and the role goes", || lab.place.standing().is_empty());
}

#[test]
fn what_policy_does_not_permit_is_refused_with_its_reason_and_nothing_is_made() {
    let Some(lab) = lab() else { return };
    let marker = lab.dir().join("ran");
    let script = format!("touch {}", marker.display());
    let output = lab.command_with("eu", &[("read_orders", Some("region=us"))], &script).output().unwrap();
    assert!(!output.status.success());
    assert!(!marker.exists(), "the command does not run without its credential");
    assert!(err(&output).contains("read_orders"), "{}", err(&output));
    assert_eq!(text(&lab.server.task(), "state"), "ended");
    assert_eq!(lab.place.standing(), "");
    assert!(lab.credential().is_null(), "no grant came of it");
}

#[test]
fn a_command_asks_for_its_own_credentials_and_gives_them_back() {
    let Some(lab) = lab() else { return };
    let writ = env!("CARGO_BIN_EXE_writ");
    let script = format!(
        "{writ} credential offers --json; {writ} credential request orders-db/read_orders --credential-param region=eu > cred; \
         id=$(sed -n 's/.*\"id\": \"\\(grt_[0-9a-f]*\\)\".*/\\1/p' cred); {writ} credential return $id --json; rm cred; \
         {writ} credential return grt_{}",
        "0".repeat(32)
    );
    let output = lab.command_with("eu", &[], &script).output().unwrap();
    let shown = out(&output);
    assert!(shown.contains("\"verifier\": \"scram_sha_256\"") && shown.contains("\"returned\""), "{shown} {}", err(&output));
    assert!(!output.status.success() && err(&output).contains("there is no such"), "{}", err(&output));
    lab.until("the role is gone", || lab.place.standing().is_empty());
}

#[test]
fn a_target_with_credentials_is_not_removed_and_one_with_faults_changes_nothing() {
    let Some(lab) = lab() else { return };
    let dir = lab.dir();
    let file = dir.join("targets/orders-db.toml");
    let mut exec = lab.command("echo ready; read line").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // Nothing of policy names it any more, and its file is gone.
    let (policy, intent) = (dir.join("policy/work.cedar"), dir.join("policy/intents/work.toml"));
    fs::remove_file(&policy).unwrap();
    edit(&intent, "targets = [\"orders-db\"]", "");
    fs::rename(&file, dir.join("kept")).unwrap();
    let reload = writ(dir, &["policy", "reload"]);
    assert!(!reload.status.success() && err(&reload).contains("orders-db"), "{}", err(&reload));
    assert_eq!(lab.target_state(), "healthy", "it is still there");
    fs::write(&file, target_file(lab.place.port()).replace("tls =", "tsl =")).unwrap();
    let reload = writ(dir, &["policy", "reload"]);
    assert!(err(&reload).contains("targets/orders-db.toml:10:1") && err(&reload).contains("tsl"), "{}", err(&reload));
    drop(exec.stdin.take());
    exec.wait().unwrap();
    fs::rename(dir.join("kept"), &file).unwrap();
    lab.until("the role is gone", || lab.place.standing().is_empty());
    // With nothing left there it may go.
    fs::remove_file(&file).unwrap();
    lab.until("the target is gone", || lab.json(&["target", "list"]).to_string().contains("\"items\":[]"));
}

#[test]
fn without_target_files_there_is_no_target_and_no_offer() {
    let server = Server::start();
    let output = writ(server.dir.path(), &["target", "list"]);
    assert!(output.status.success() && out(&output).contains("no target is configured"), "{}", err(&output));
    let script = format!("{} credential offers", env!("CARGO_BIN_EXE_writ"));
    let output = server.exec(&["answer-ticket", "--param", "ticket_id=4710"], &["--", "sh", "-c", &script]).output().unwrap();
    assert!(out(&output).contains("can be given no credential"), "{} {}", out(&output), err(&output));
}

#[test]
fn operators_examine_probe_and_scan_a_target() {
    let Some(lab) = lab() else { return };
    let found = lab.json(&["target", "doctor", "orders-db"]);
    assert_ne!(text(&found, "verdict"), "broken", "{found:#}");
    assert_eq!(lab.json(&["target", "probe", "orders-db"]).pointer("/health/state").unwrap(), "healthy");
    let standing = lab.json(&["target", "scan", "orders-db"]);
    assert!(standing.to_string().contains("postgres"), "{standing:#}");
    lab.place.down();
    let output = writ(lab.dir(), &["target", "probe", "orders-db"]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let refused = lab.run("true");
    assert!(!refused.status.success() && !err(&refused).contains("127.0.0.1:"), "{}", err(&refused));
}

#[test]
fn killed_while_a_login_is_live_or_right_after_its_issue_writ_leaves_nothing_behind() {
    let Some(mut lab) = lab() else { return };
    lab.dies_while_it_is_live("psql -Atc 'SELECT 1' -c 'SELECT pg_sleep(600)'");
    lab.dies_right_after_issue();
}
