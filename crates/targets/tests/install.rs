//! What an administrator runs as root holds nothing of a target file that a shell would read as more than a word: whoever
//! may write target files is not yet whoever may run commands on the hosts.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

#[expect(dead_code, reason = "other test files need more of it")]
mod issuing;

use issuing::target_config;
use std::sync::Arc;
use targets::config::Surroundings;

const SSH: &str = r#"
    [connect]
    host_group = "web"
    [offers.restart]
    user = "deploy"
    principals = ["restart-web"]
"#;
const X509: &str = "[connect]\ntrust_domain = \"example.org\"\n[offers.client]";
const REDIS: &str = r#"
    [connect]
    nodes = ["redis-1.internal:6379"]
    [offers.read]
    template = "read_order"
    commands = ["get"]
    keys = ["order:*"]
"#;

fn script(kind: &str, file: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let surroundings: Arc<dyn Surroundings> = Arc::new(issuing::Files(folder.path().to_owned()));
    targets::install_script(&target_config(kind, file, &[]), &surroundings).map_err(|faults| format!("{faults:?}"))
}

#[test]
fn no_word_of_a_target_file_is_more_than_a_word_in_the_script() {
    for (kind, file, word) in [
        ("ssh", SSH, "web"),
        ("ssh", SSH, "deploy"),
        ("ssh", SSH, "restart-web"),
        ("x509", X509, "example.org"),
        ("redis", REDIS, "read_order"),
    ] {
        let quoted = |word: &str| file.replace(&format!("\"{word}\""), "\"WORD\"");
        let with = |evil: &str| script(kind, &quoted(word).replace("WORD", evil));
        assert!(with(word).unwrap().contains(word), "{kind} {word}");
        for evil in ["$(id)", "`id`", "a;id", "a b", "a'b", "a|b", "../a", "a>b", "a=b", "=END="] {
            assert!(with(evil).is_err(), "{kind}: {evil} for {word}");
        }
    }
}

#[test]
fn the_gate_reaches_the_nodes_as_the_target_file_says() {
    let nodes = "nodes = [\"redis-1.internal:6379\"]";
    assert!(!script("redis", REDIS).unwrap().contains("tls"));
    let script = script("redis", &REDIS.replace(nodes, &format!("tls = true\nca_file = \"ca.pem\"\n{nodes}"))).unwrap();
    let (_, file) = script.split_once("<<'CONF'\n").unwrap();
    let (file, _) = file.split_once("\nCONF\n").unwrap();
    let file = format!("broker_sha256 = \"{}\"\n{file}", "0".repeat(64));
    assert!(file.contains("\ntls = true\nca_file = \"/etc/writ-gate/ca.pem\""), "{file}");
    targets::redis::gate::GateSettings::parse(&file).unwrap();
    // As long as the offers want, and a minute for its clock.
    assert!(file.contains("\nlifetime_secs_max = 660\n"), "{file}");
}

#[test]
fn a_word_cannot_be_taken_for_an_option() {
    assert!(script("ssh", &SSH.replace("deploy", "-rf")).is_err());
}

#[test]
fn what_is_data_stays_data_in_the_script() {
    // A principal can be called as the end of a text in many scripts is.
    let ssh = script("ssh", &SSH.replace("restart-web", "EOF")).unwrap();
    assert!(ssh.contains("<<'=END='\nEOF\n=END=\n"), "{ssh}");
    let redis = script("redis", &REDIS.replace("order:*", "order:$(id)`id`:*")).unwrap();
    let (_, file) = redis.split_once("<<'CONF'\n").unwrap();
    let (file, _) = file.split_once("\nCONF\n").unwrap();
    assert!(file.contains("order:$(id)`id`:*"), "{redis}");
    let redis = script("redis", &REDIS.replace("\"redis-1.internal:6379\"", "'a\"b:1'")).unwrap();
    assert!(redis.contains("address = 'a\"b:1'"), "{redis}");
    assert!(script("redis", &REDIS.replace("redis-1.internal:6379", "redis-1")).is_err());
    let ends_the_text = "\"a\\nCONF\\nid\\n:1\"";
    assert!(script("redis", &REDIS.replace("\"redis-1.internal:6379\"", ends_the_text)).is_err());
}

#[test]
fn a_script_for_hosts_takes_away_what_no_offer_says_any_more_and_binds_only_users_of_offers_to_the_list() {
    let more = "[offers.reload]\nuser = \"deploy\"\nprincipals = [\"reload-web\"]\n[offers.look]\nuser = \"viewer\"\nprincipals = [\"look\"]";
    let ssh = script("ssh", &format!("{SSH}{more}")).unwrap();
    assert!(ssh.contains("writ-principals/deploy <<'=END='\nreload-web\nrestart-web\n=END=\n"), "{ssh}");
    assert!(!ssh.contains(">> /etc/ssh/writ-principals"), "{ssh}");
    // As sshd itself reads it: the list and the authority are for users of offers, and other people's keys do not need it.
    let Some(sshd) = testkit::RealSshd::start() else { return };
    let (_, conf) = ssh.split_once("<<'CONF'\n").unwrap();
    let (conf, _) = conf.split_once("CONF\n").unwrap();
    std::fs::write(sshd.path("10-writ.conf"), conf).unwrap();
    let main =
        format!("HostKey {}\nInclude {}\nRevokedKeys none\n", sshd.path("host").display(), sshd.path("10-writ.conf").display());
    std::fs::write(sshd.path("main.conf"), main).unwrap();
    let settings = |user: &str| {
        let mut sshd_test = std::process::Command::new("/usr/sbin/sshd");
        sshd_test.args(["-T", "-C", &format!("user={user},host=web,addr=10.0.0.1"), "-f"]).arg(sshd.path("main.conf"));
        issuing::run(&mut sshd_test).unwrap()
    };
    for (user, list) in [("deploy", "/etc/ssh/writ.krl"), ("viewer", "/etc/ssh/writ.krl"), ("root", "none")] {
        let settings = settings(user);
        assert!(settings.contains(&format!("\nrevokedkeys {list}\n")), "{user}: {settings}");
        assert_eq!(settings.contains("\ntrustedusercakeys none\n"), list == "none", "{user}: {settings}");
    }
}
