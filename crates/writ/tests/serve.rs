//! Claims about a running server: HTTPS, reload of policy and agents, who may ask by which name, a good end.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "the tests of `exec` use the rest")]
mod served;

use serde_json::Value;
use served::{Server, edit, writ};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn version(server: &Server) -> String {
    let output = writ(server.dir.path(), &["audit", "search", "--type", "policy.reload", "--limit", "1", "--json"]);
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    page.pointer("/items/0/leaf/event/detail/to").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Makes a folder serve HTTPS, with a certificate that its own commands trust.
fn with_certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    let config = dir.join("writ.toml");
    edit(&config, "# tls = {", "tls = {");
    edit(&config, "tls/cert.pem", "cert.pem");
    edit(&config, "tls/key.pem", "key.pem");
    edit(&config, "public_url = \"http:", "public_url = \"https:");
    edit(&config, "operator_secret_file = ", "ca_file = \"cert.pem\"\noperator_secret_file = ");
}

/// One Writ is the upstream of another, which it refuses for lack of a token: but only after a handshake.
#[test]
fn an_upstream_is_trusted_by_the_certificates_that_its_configuration_names() {
    let upstream = Server::start_with(with_certificate);
    let config = fs::read_to_string(upstream.dir.path().join("writ.toml")).unwrap();
    let address = config.split("public_url = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let certificate = upstream.dir.path().join("cert.pem");
    for (named, fault) in [(true, "401"), (false, "certificate")] {
        let server = Server::start_with(|dir| {
            let ca_file = if named { format!("\nca_file = \"{}\"", certificate.display()) } else { String::new() };
            let url = format!("url = \"{address}/mcp/helpdesk\"{ca_file}");
            edit(&dir.join("writ.toml"), "url = \"http://127.0.0.1:8701/mcp\"", &url);
        });
        let tools = writ(server.dir.path(), &["upstream", "tools", "helpdesk"]);
        let said = String::from_utf8_lossy(&tools.stderr);
        assert!(!tools.status.success() && said.contains(fault), "{said}");
    }
}

#[test]
fn https_is_served_with_the_configured_certificate_and_no_plain_http() {
    let server = Server::start_with(with_certificate);
    let listed = writ(server.dir.path(), &["agent", "list"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    // Another certificate takes the place of the first, without a restart.
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(server.dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(server.dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    assert!(!writ(server.dir.path(), &["agent", "list"]).status.success(), "the server still shows the first one");
    assert!(Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().unwrap().success());
    let start = Instant::now();
    while !writ(server.dir.path(), &["agent", "list"]).status.success() {
        assert!(start.elapsed() < Duration::from_secs(20), "the new certificate was not taken");
    }
    edit(&server.dir.path().join("writ.toml"), "ca_file = \"cert.pem\"\n", "");
    assert!(!writ(server.dir.path(), &["agent", "list"]).status.success(), "a certificate that nobody vouches for is refused");
}

#[test]
fn a_tls_key_that_others_can_read_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    assert!(writ(dir.path(), &["init", "."]).status.success());
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(dir.path().join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let config = dir.path().join("writ.toml");
    edit(&config, "listen = \"127.0.0.1:8700\"", "listen = \"127.0.0.1:0\"\ntls = { cert = \"cert.pem\", key = \"key.pem\" }");
    let output = writ(dir.path(), &["serve", "--check"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"));
}

/// Everything below a folder with its permissions.
fn modes(dir: &Path) -> Vec<(PathBuf, u32, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        found.push((entry.path(), meta.permissions().mode() & 0o777, meta.is_dir()));
        if meta.is_dir() {
            found.extend(modes(&entry.path()));
        }
    }
    found
}

#[test]
fn whatever_the_umask_nobody_else_reads_the_state_or_changes_the_configuration() {
    let server = Server::start();
    assert!(server.exec(&["answer-ticket", "--param", "ticket_id=4710"], &["--", "true"]).output().unwrap().status.success());
    let all = modes(server.dir.path());
    let named = |name: &str| all.iter().any(|(path, ..)| path.ends_with(name));
    for name in ["data/writ.db", "data/writ.db-wal", "data/index.db", "data/anchor", "data/log/checkpoint", "data/keys/log.key"] {
        assert!(named(name), "{name} is not there");
    }
    // What the server says is written down by the test.
    for (path, mode, is_dir) in all.iter().filter(|(path, ..)| !path.ends_with("serve.log")) {
        assert_eq!(mode & 0o022, 0, "{} {mode:o}", path.display());
        let private = path.starts_with(server.dir.path().join("data")) || path.ends_with("operator.secret");
        // A public key is public, in a folder that is not.
        if private && !path.ends_with("log.vkey") {
            assert_eq!(*mode, if *is_dir { 0o700 } else { 0o600 }, "{}", path.display());
        }
    }
}

#[test]
fn a_data_folder_that_others_can_change_is_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    assert!(writ(dir.path(), &["init", "."]).status.success());
    edit(&dir.path().join("writ.toml"), "127.0.0.1:8700", "127.0.0.1:0");
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o770)).unwrap();
    let output = writ(dir.path(), &["serve"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 700"), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_policy_that_does_not_validate_changes_nothing_and_a_good_one_takes_effect() {
    let server = Server::start();
    let path = server.dir.path().join("policy/helpdesk.cedar");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("principal.max_amount_cents", "principal.nonsense")).unwrap();
    let reloaded = writ(server.dir.path(), &["policy", "reload"]);
    assert!(!reloaded.status.success(), "an operator who asks is told");
    assert_eq!(version(&server), "", "nothing was put in force");
    fs::write(&path, good.replace("<= principal.max_amount_cents", "< principal.max_amount_cents")).unwrap();
    let start = Instant::now();
    while version(&server).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "the change was not noticed");
    }
}

#[test]
fn whom_an_operator_suspended_no_file_brings_back() {
    let server = Server::start();
    let state = || {
        let output = writ(server.dir.path(), &["agent", "show", "support-bot", "--json"]);
        let agent: Value = serde_json::from_slice(&output.stdout).unwrap();
        (agent.get("state").cloned().unwrap(), agent.get("purpose").cloned().unwrap())
    };
    assert!(writ(server.dir.path(), &["agent", "suspend", "support-bot"]).status.success());
    edit(&server.dir.path().join("agents/support-bot.toml"), "Answers tickets", "Handles tickets");
    let start = Instant::now();
    while !state().1.as_str().unwrap().starts_with("Handles") {
        assert!(start.elapsed() < Duration::from_secs(20), "the change was not noticed");
    }
    assert_eq!(state().0, Value::from("suspended"));
}

#[test]
fn sigterm_ends_the_server_in_good_order() {
    let mut server = Server::start();
    assert!(Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status().unwrap().success());
    assert!(server.process.wait().unwrap().success());
    let verified = writ(server.dir.path(), &["audit", "verify", "--data", "data"]);
    assert_eq!(verified.status.code(), Some(0));
}

#[test]
fn all_agents_are_listed_however_many_there_are() {
    const MORE: usize = 501;
    let server = Server::start_with(|dir| {
        let agents = dir.join("agents");
        let text = fs::read_to_string(agents.join("support-bot.toml")).unwrap();
        for number in 0..MORE {
            let text = text.replace("sub = \"support-bot\"", &format!("sub = \"bot-{number}\""));
            fs::write(agents.join(format!("bot-{number}.toml")), text).unwrap();
        }
    });
    let started = Instant::now();
    let listed = || {
        let output = writ(server.dir.path(), &["agent", "list", "--json"]);
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        all.pointer("/items").and_then(Value::as_array).map_or(0, Vec::len)
    };
    while listed() < MORE + 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "{} of {} are listed", listed(), MORE + 1);
    }
    let table = writ(server.dir.path(), &["agent", "list"]);
    assert_eq!(String::from_utf8_lossy(&table.stdout).lines().filter(|line| line.contains("bot-")).count(), MORE);
}
