//! The server is killed at every step of a credential that the product names, and at random moments, again and again; in
//! the end nothing of ours stands at a real PostgreSQL, and the log tells of everything that ever stood there.
//! `WRIT_E2E_KILLS` says how often (a round takes one to four seconds).

use crate::lab::{Lab, Place, clock, event, kind};
use crate::postgresql;
use crate::served::{serve, text, writ};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use testkit::RealPostgresql;

/// Rounds unless somebody asks for more: each step once, and some kills at random.
const ROUNDS: usize = 19;
/// Makes every grant, every task and every wait of the dead servers be over.
const MUCH_LATER: &str = "+900";

/// What a task does to reach a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// It asks for a credential, and must not get it.
    Asks,
    /// It asks for a credential, and may have got it.
    Has,
    /// It gives back the one that it has.
    Returns,
    /// It ends.
    Ends,
    /// Nothing: a start probes the target.
    Starts,
    /// Nothing: a start finds what no row tells of.
    Finds,
    /// All of it, and the kill comes from outside at some moment.
    Anything,
}

const TRIALS: [(&str, Act); 16] = [
    ("credential.decided", Act::Asks),
    ("credential.logged", Act::Asks),
    ("credential.issued", Act::Asks),
    ("credential.recorded", Act::Asks),
    ("credential.handed_out", Act::Has),
    ("credential.revoke", Act::Returns),
    ("credential.revoked", Act::Returns),
    ("credential.step", Act::Ends),
    ("credential.stepped", Act::Ends),
    ("credential.dead", Act::Ends),
    ("probe.logged", Act::Starts),
    ("probe.issued", Act::Starts),
    ("probe.used", Act::Starts),
    ("orphan.found", Act::Finds),
    ("orphan.stepped", Act::Finds),
    ("", Act::Anything),
];

const GIVE_BACK: &str = "id=$(sed -n 's/.*\"id\": \"\\(grt_[0-9a-f]*\\)\".*/\\1/p' \"$WRIT_CREDENTIAL_ORDERS_DB_READ_ORDERS\"); \
                         \"$WRIT\" credential return \"$id\"";

/// The steps that the product names.
fn named(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            named(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path).unwrap();
            let steps = source.split("\"writ::step\", at = \"").skip(1).filter_map(|rest| rest.split_once('"'));
            found.extend(steps.map(|(step, _)| step.to_owned()));
        }
    }
}

struct Trial {
    lab: Lab<RealPostgresql>,
    orphans: BTreeSet<String>,
}

impl Trial {
    fn step_file(&self) -> std::path::PathBuf {
        self.lab.dir().join("die-at")
    }

    /// Starts the server, which may die at once.
    fn start(&mut self) -> bool {
        let step = self.step_file();
        let (process, serving) = serve(self.lab.dir(), |serve| {
            serve.env("WRIT_DIE_AT", step);
        });
        self.lab.server.process = process;
        serving
    }

    /// Waits for the death of the server; `false` if it had to be stopped because it lives.
    fn died(&mut self) -> bool {
        let server = self.lab.server.process.id().to_string();
        let mut patience = Command::new("sleep").arg("120").spawn().unwrap();
        let id = patience.id().to_string();
        let watch = std::thread::spawn(move || {
            let over = patience.wait().unwrap().success();
            assert!(!over || Command::new("kill").arg(server).status().is_ok());
        });
        let status = self.lab.server.process.wait().unwrap();
        let _gone = Command::new("kill").arg(id).stderr(Stdio::null()).status();
        watch.join().unwrap();
        status.signal() == Some(9)
    }

    fn round(&mut self, number: usize) {
        let (step, act) = TRIALS.get(number % TRIALS.len()).copied().unwrap();
        let marker = self.lab.dir().join("ran");
        let before = self.lab.place.standing();
        if act == Act::Finds {
            self.make_orphan(number);
        }
        if matches!(act, Act::Starts | Act::Finds) {
            self.lab.kill();
            fs::write(self.step_file(), step).unwrap();
            self.start();
            assert!(self.died(), "{step} was not reached by a start");
        } else {
            let script = if act == Act::Returns { GIVE_BACK.to_owned() } else { format!("touch {}", marker.display()) };
            let mut exec = self.lab.command(&script);
            exec.env("WRIT", env!("CARGO_BIN_EXE_writ")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if act == Act::Anything {
                let mut exec = exec.spawn().unwrap();
                // Some moment of a life that takes half a second: spread evenly, the same in each run.
                let millis = (number.wrapping_mul(7_919)) % 1_000;
                let _over = Command::new("sleep").arg(format!("0.{millis:03}")).status();
                self.lab.kill();
                exec.kill().unwrap();
                exec.wait().unwrap();
            } else {
                fs::write(self.step_file(), step).unwrap();
                let mut exec = exec.spawn().unwrap();
                assert!(self.died(), "{step} was not reached: {}", fs::read_to_string(self.lab.dir().join("serve.log")).unwrap());
                let _ended = exec.kill();
                exec.wait().unwrap();
                assert!(act != Act::Asks || !marker.exists(), "{step}: the command ran without its credential");
            }
        }
        let _none = fs::remove_file(self.step_file());
        let _none = fs::remove_file(&marker);
        assert!(self.start(), "{}", fs::read_to_string(self.lab.dir().join("serve.log")).unwrap());
        self.lab.until("the target is probed", || self.lab.target_state() == "healthy");
        if ["credential.issued", "credential.handed_out"].contains(&step) {
            // What nobody confirmed is ended by the start; what was confirmed ends with its idle task.
            let standing = || self.lab.place.standing();
            self.lab.until("what was made is gone", || standing().lines().all(|role| before.contains(role)));
        }
    }

    /// What a broker leaves whose database was lost: made with its own account an hour ago, and no row tells of it.
    fn make_orphan(&mut self, number: usize) {
        let role = format!("jit_01a2000000007000a000{number:012x}");
        let verifier = format!("SCRAM-SHA-256$1:{}${}=:{}=", "A".repeat(24), "A".repeat(43), "A".repeat(43));
        let made = format!(
            "SELECT writ_lease.issue('{role}', 'orders_read', extract(epoch FROM now())::bigint + 200, '{verifier}', '{{}}', 'lost')"
        );
        self.lab.place.psql_as("writ_broker", "broker-password-of-the-test", "orders", &made).unwrap();
        self.orphans.insert(role);
    }

    /// All roles that were ever made, by what the database keeps of them.
    fn made(&self) -> BTreeSet<String> {
        let made = "SELECT role FROM writ_lease.lease WHERE role_oid IS NOT NULL";
        self.lab.place.psql("orders", made).unwrap().lines().map(str::to_owned).collect()
    }

    /// Much later nothing stands, nothing is due, and the log tells of every role.
    fn judge(mut self) -> usize {
        self.lab.kill();
        match clock(MUCH_LATER) {
            Some(clock) => self.lab.again(|serve| {
                serve.envs(clock);
            }),
            None => self.lab.again(|_| {}),
        }
        let standing = || self.lab.json(&["credential", "list", "--standing"]).pointer("/items/0").is_some();
        self.lab.until("nothing is due", || !standing() && self.lab.place.standing().is_empty());
        let entries = self.lab.entries();
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in &entries {
            for member in ["grant", "detail/grant"] {
                told.entry(event(entry, member).trim_start_matches("grt_").to_owned()).or_default().insert(kind(entry));
            }
        }
        let made = self.made();
        for role in &made {
            let of = told.get(role.trim_start_matches("jit_")).cloned().unwrap_or_default();
            let orphan: &[&str] = &["credential.orphan", "credential.orphan_ended"];
            let expected = if self.orphans.contains(role) { orphan } else { &["decision", "verify"] };
            assert!(expected.iter().all(|kind| of.contains(*kind)), "{role}: the log tells only of {of:?}");
        }
        assert!(made.is_superset(&self.orphans));
        self.lab.kill();
        let verified = writ(self.lab.dir(), &["audit", "verify", "--data", "data", "--json"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        made.len()
    }
}

#[test]
fn killed_at_every_step_again_and_again_writ_leaves_no_role_and_forgets_none() {
    let mut found = BTreeSet::new();
    named(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    found.retain(|step| ["credential.", "probe.", "orphan."].iter().any(|kind| step.starts_with(kind)));
    let tried: BTreeSet<_> = TRIALS.iter().filter(|(step, _)| !step.is_empty()).map(|(step, _)| (*step).to_owned()).collect();
    assert_eq!(found, tried, "steps without a trial, or trials without a step");
    let Some(lab) = postgresql::lab() else { return };
    #[expect(clippy::disallowed_methods, reason = "how long a test may take is said by whoever runs it")]
    let rounds = std::env::var("WRIT_E2E_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(ROUNDS);
    let mut trial = Trial { lab, orphans: BTreeSet::new() };
    trial.lab.kill();
    assert!(trial.start());
    trial.lab.until("the target is probed", || trial.lab.target_state() == "healthy");
    let began = Instant::now();
    for round in 0..rounds {
        trial.round(round);
    }
    let killed = began.elapsed();
    let made = trial.judge();
    eprintln!("{rounds} kills in {} s; {made} roles were made, none is left, each is in the log", killed.as_secs());
}

#[test]
fn a_role_that_is_left_over_would_be_seen() {
    let Some(lab) = postgresql::lab() else { return };
    // The judge of the test above is no good if it passes everything.
    lab.place.psql("postgres", "CREATE ROLE jit_00000000000000000000000000000000").unwrap();
    assert!(!lab.place.standing().is_empty());
    let credential: Value = lab.credential();
    assert_eq!(text(&credential, "id"), "");
}
