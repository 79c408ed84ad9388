//! Claims about the command line as a user meets it: exit codes, diagnostics, the offline commands, and the demo.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn writ(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_writ")).args(args).current_dir(dir).env_remove("WRIT_CONFIG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An initialised folder.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let output = writ(dir.path(), &["init", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    dir
}

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let help = text(&writ(dir.path(), &["--help"]).stdout);
    assert!(help.contains("writ demo") && help.contains("Exit codes:"), "{help}");
    for command in
        ["serve", "demo", "init", "exec", "agent", "task", "upstream", "policy", "audit", "redis-gate", "ssh-host", "completions"]
    {
        assert!(writ(dir.path(), &[command, "--help"]).status.success(), "{command}");
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["serv"][..], &["audit", "verify"], &["exec", "--intent", "x", "--", "true"], &["agent"]] {
        assert_eq!(writ(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn all_configuration_faults_appear_at_once_with_their_lines() {
    let dir = folder();
    let path = dir.path().join("writ.toml");
    let broken =
        fs::read_to_string(&path).unwrap().replace("lifetime_secs = 300", "lifetime_secs = 1").replace("listen =", "lisen =");
    fs::write(&path, broken).unwrap();
    let output = writ(dir.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for part in ["unknown option `lisen`", "did you mean `listen`?", "from 30 to 3600", "writ.toml:5:1", "has 2 faults"] {
        assert!(told.contains(part), "`{part}` is missing in:\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "no colour when it is not a terminal");
    let json: Value = serde_json::from_slice(&writ(dir.path(), &["serve", "--json"]).stderr).unwrap();
    assert_eq!(json.pointer("/faults/0/line"), Some(&Value::from(5)));
}

#[test]
fn a_policy_is_checked_and_tested_offline() {
    let dir = folder();
    assert_eq!(writ(dir.path(), &["policy", "check"]).status.code(), Some(0));
    assert_eq!(writ(dir.path(), &["policy", "test", "policy"]).status.code(), Some(0));
    assert!(text(&writ(dir.path(), &["policy", "schema"]).stdout).contains("RefundOrder"));
    let path = dir.path().join("policy/helpdesk.cedar");
    let policy = fs::read_to_string(&path).unwrap();
    fs::write(&path, policy.replace("principal.max_amount_cents", "principal.max_amount_cent")).unwrap();
    let output = writ(dir.path(), &["policy", "check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("helpdesk.cedar"), "{}", text(&output.stderr));
    fs::write(&path, policy.replace("<= principal.max_amount_cents", "<= 10 * principal.max_amount_cents")).unwrap();
    assert_eq!(writ(dir.path(), &["policy", "check"]).status.code(), Some(0));
    let output = writ(dir.path(), &["policy", "test", "--json"]);
    assert_eq!(output.status.code(), Some(1), "a case must catch the wider policy");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.get("passed"), Some(&Value::Bool(false)));
}

#[test]
fn a_secret_that_others_can_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folder();
    fs::set_permissions(dir.path().join("operator.secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = writ(dir.path(), &["task", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("chmod 600"), "{}", text(&output.stderr));
}

#[test]
fn init_refuses_to_overwrite() {
    let dir = folder();
    assert_eq!(writ(dir.path(), &["init", "."]).status.code(), Some(2));
}

#[test]
fn init_that_fails_says_where_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("half")).unwrap();
    fs::write(path("half/policy"), "a file where a folder should be").unwrap();
    let output = writ(dir.path(), &["init", "half"]);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("half/policy` cannot be made"), "{told}");
    assert!(told.contains("next:"), "{told}");
    fs::remove_file(path("half/policy")).unwrap();
    assert_eq!(writ(dir.path(), &["init", "half"]).status.code(), Some(0), "nothing was in the way of a second attempt");
    fs::create_dir(path("linked")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", path("linked/writ.toml")).unwrap();
    assert_eq!(writ(dir.path(), &["init", "linked"]).status.code(), Some(2), "a link that leads nowhere is there, too");
    assert!(!path("elsewhere").exists());
}

#[test]
fn results_that_do_not_arrive_are_a_failure_and_a_reader_that_went_away_is_not() {
    let dir = folder();
    let into = |command: &str, to: Stdio| {
        let mut writ = Command::new(env!("CARGO_BIN_EXE_writ"));
        writ.args(command.split(' ')).current_dir(dir.path()).env_remove("WRIT_CONFIG").stdout(to).output().unwrap()
    };
    for command in ["completions bash", "policy schema", "init --options", "policy check --json"] {
        let full = into(command, fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into());
        let told = text(&full.stderr);
        assert!(full.status.code() == Some(1) && told.contains("could not be written"), "{command}: {told}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = into(command, writer.into());
        assert_eq!((closed.status.code(), text(&closed.stderr)), (Some(0), String::new()), "{command}");
    }
}

#[test]
fn a_wrong_command_line_that_asks_for_json_is_told_in_json() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--json", "serv"][..], &["audit", "redact", "1", "x", "--json"]] {
        let output = writ(dir.path(), args);
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        let filled = |name: &str| told.get(name).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()));
        assert!(output.status.code() == Some(2) && filled("error") && filled("next"), "{told}");
    }
    let output = writ(dir.path(), &["exec", "--", "true", "--json"]);
    assert!(text(&output.stderr).starts_with("error:"), "what the command is given is its own");
}

#[test]
fn completions_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&writ(dir.path(), &["completions", shell]).stdout).contains("writ"), "{shell}");
    }
}

#[test]
fn verify_answers_with_its_documented_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |args: &[&str]| writ(dir.path(), &[&["audit", "verify"], args].concat()).status.code();
    assert_eq!(verify(&["nowhere", "--key", "x"]), Some(2), "a malformed key");
    assert_eq!(verify(&["."]), Some(2), "nobody to trust");
    assert_eq!(verify(&["--data", "."]), Some(2), "no key in the data folder");
}

#[test]
fn the_demo_goes_as_expected_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let output = writ(dir.path(), &["demo", "--once", "--json", "--dir", "stage"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| text(&output.stderr).into());
    assert!(output.status.success(), "{told:#}");
    assert_eq!(told.get("as_expected"), Some(&Value::Bool(true)));
    assert!(told.get("steps").and_then(Value::as_array).unwrap().len() >= 25);
    // Where PostgreSQL must be installed, the act with it is told.
    let left_out = told.get("left_out").and_then(Value::as_array).unwrap();
    #[expect(clippy::disallowed_methods, reason = "whether services must be there is said by whoever runs the tests")]
    let required = std::env::var_os("WRIT_REQUIRE_SERVICES").is_some();
    assert!(left_out.is_empty() || !required, "{left_out:?}");
    // The stage stays; its log can be verified by the offline command, before and after somebody touched it.
    let data = dir.path().join("stage/data");
    let verify = |args: &[&str]| writ(dir.path(), &[&["audit", "verify", "--data", "stage/data"], args].concat()).status.code();
    assert_eq!(verify(&[]), Some(0));
    fs::copy(data.join("log/checkpoint"), dir.path().join("older")).unwrap();
    assert_eq!(verify(&["--older", "older", "--max-age", "3600"]), Some(0));
    let key = fs::read_to_string(data.join("keys/log.vkey")).unwrap();
    let witness = auditlog::note::VerifierKey::new("witness", auditlog::note::KeyKind::Cosignature, [7; 32]).unwrap();
    fs::write(dir.path().join("alone"), format!("log {key}quorum none\n")).unwrap();
    fs::write(dir.path().join("witnessed"), format!("log {key}witness w {witness}\nquorum w\n")).unwrap();
    assert_eq!(verify(&["--trust", "alone"]), Some(0));
    assert_eq!(verify(&["--trust", "witnessed"]), Some(3), "the witness that must have seen it has not");
    let stale = (0..1_000).any(|_| verify(&["--max-age", "0"]) == Some(4));
    assert!(stale, "a log whose newest entry is older than allowed is stale");
    let checkpoint = fs::read_to_string(data.join("log/checkpoint")).unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    fs::write(data.join("log/checkpoint"), checkpoint.replacen(&size.to_string(), &(size - 1).to_string(), 1)).unwrap();
    assert_eq!(verify(&[]), Some(1), "a checkpoint with another size is not signed");
}

#[test]
fn the_gate_checks_its_file_and_refuses_one_that_gives_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let file = |listen: &str, command: &str| {
        let node = "[[nodes]]\naddress = \"127.0.0.1:6379\"\nuser = \"writ_gate\"\npassword_file = \"password\"\n";
        let template = format!("[templates.orders]\ncommands = [\"{command}\"]\nkeys = [\"order:{{id}}:*\"]\n");
        let text = format!("listen = \"{listen}\"\nbroker_sha256 = \"{}\"\n{node}{template}", "ab".repeat(32));
        fs::write(dir.path().join("gate.toml"), text).unwrap();
        writ(dir.path(), &["redis-gate", "--check", "gate.toml"]).status.code()
    };
    assert_eq!(file("unix:gate.sock", "get"), Some(0));
    for (listen, command) in [("0.0.0.0:6390", "get"), ("unix:gate.sock", "eval"), ("unix:gate.sock", "@all")] {
        assert_eq!(file(listen, command), Some(2), "{listen} {command}");
    }
    assert_eq!(writ(dir.path(), &["redis-gate", "missing.toml"]).status.code(), Some(2));
}

#[test]
fn the_helper_on_a_host_does_one_round_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("log"), "").unwrap();
    let round = |from: &str| {
        writ(dir.path(), &["ssh-host", "--once", "--from", from, "--krl-file", &at("krl"), "--auth-log", &at("log")])
    };
    assert_eq!(round(&at("missing")).status.code(), Some(1));
    assert_eq!(round("http://files.example/krl").status.code(), Some(2));
    fs::write(at("served"), "<html>").unwrap();
    let refused = round(&at("served"));
    assert!(refused.status.code() == Some(1) && !dir.path().join("krl").exists(), "{}", text(&refused.stderr));
}
