//! Users of two real Redis nodes through the real gate, with redis-cli as the caller: issue, use within scope, refusal
//! outside it, end of a live session, failover, crash, and what a broker turned evil cannot do with its real credentials.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

#[expect(dead_code, reason = "other test files need more of it")]
mod issuing;

use authority::target::{Acceptance, Gravity, Target, TargetError, Verifier};
use domain::{Ending, GrantId};
use issuing::{Request, handle, open, random, run, target_config, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use targets::config::Surroundings;
use targets::redis::gate::{Gate, GateSettings};
use tempfile::TempDir;
use testkit::RealRedis;
use tokio::task::JoinHandle;

const BROKER: &str = "the broker's secret for the gate";

struct Lab {
    folder: TempDir,
    ports: [u16; 2],
    nodes: [RealRedis; 2],
    gate: JoinHandle<()>,
    target: Arc<dyn Target>,
}

fn gate_file(ports: [u16; 2], more: &str) -> String {
    let nodes: String = ports
        .iter()
        .map(|port| format!("[[nodes]]\naddress = \"127.0.0.1:{port}\"\nuser = \"writ_gate\"\npassword_file = \"admin\"\n"))
        .collect();
    format!(
        "listen = \"unix:{{FOLDER}}/gate.sock\"\nbroker_sha256 = \"{}\"\nlifetime_secs_max = 600\nlive_max = 5\n{nodes}\
         [templates.orders]\ncommands = [\"get\", \"set\", \"ping\", \"blpop\", \"subscribe\", \"publish\"]\nkeys = [\"order:{{order}}:*\"]\n\
         keys_read = [\"shared:*\"]\nchannels = [\"events:{{order}}\"]\n{more}",
        RealRedis::sha256(BROKER)
    )
}

fn target_file(ports: [u16; 2]) -> String {
    format!(
        r#"
        [connect]
        gate = "unix:{{FOLDER}}/gate.sock"
        gate_secret = {{ file = "broker" }}
        nodes = ["127.0.0.1:{}", "127.0.0.1:{}"]
        [offers.orders]
        template = "orders"
        commands = ["get", "set", "ping", "blpop", "subscribe", "publish"]
        keys = ["order:{{order}}:*"]
        keys_read = ["shared:*"]
        channels = ["events:{{order}}"]
        [offers.drifted]
        template = "orders"
        commands = ["get", "set", "del"]
        keys = ["order:{{order}}:*"]
        "#,
        ports[0], ports[1]
    )
}

fn start_gate(folder: &Path, ports: [u16; 2]) -> JoinHandle<()> {
    let text = gate_file(ports, "").replace("{FOLDER}", &folder.display().to_string());
    let surroundings: Arc<dyn Surroundings> = Arc::new(issuing::Files(folder.to_owned()));
    let gate = Gate::new(GateSettings::parse(&text).unwrap(), surroundings).unwrap();
    tokio::spawn(async move { gate.serve().await.unwrap() })
}

async fn lab() -> Option<Lab> {
    let nodes = [RealRedis::start()?, RealRedis::start()?];
    let ports = [nodes[0].port(), nodes[1].port()];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("admin"), RealRedis::GATE_PASSWORD).unwrap();
    std::fs::write(folder.path().join("broker"), BROKER).unwrap();
    let gate = start_gate(folder.path(), ports);
    until("the gate listens", || UnixStream::connect(folder.path().join("gate.sock")).is_ok()).await;
    let text = target_file(ports).replace("{FOLDER}", &folder.path().display().to_string());
    let target = open(&target_config("redis", &text, &["order"]), folder.path());
    Some(Lab { folder, ports, nodes, gate, target })
}

/// What the callers of both ways are told about the wire: a client that knows nothing of TLS sends its password in clear.
#[tokio::test]
async fn whoever_gets_a_user_is_told_how_the_nodes_are_reached() {
    let Some(lab) = lab().await else { return };
    let folder = lab.folder.path();
    let pem = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    std::fs::write(folder.join("ca.pem"), &pem).unwrap();
    let text = target_file(lab.ports).replace("{FOLDER}", &folder.display().to_string());
    let text = text.replace("nodes = ", "tls = true\n        ca_file = \"ca.pem\"\n        nodes = ");
    let over_tls = open(&target_config("redis", &text, &["order"]), folder);
    for (target, tls, ca) in [(&lab.target, "off", None), (&over_tls, "on", Some(&pem))] {
        let (_, minted) = request("o-1").0.issue(target.as_ref()).await.unwrap();
        assert_eq!((minted.fields["tls"].as_str(), minted.fields.get("ca_pem")), (tls, ca));
    }
}

#[tokio::test]
async fn a_node_elsewhere_without_tls_is_remarked_upon() {
    let Some(lab) = lab().await else { return };
    let warned = |findings: Vec<authority::target::Finding>| findings.iter().any(|finding| finding.check == "node.tls");
    assert!(!warned(lab.target.examine().await.unwrap()));
    let text = target_file(lab.ports).replace("{FOLDER}", &lab.folder.path().display().to_string());
    let elsewhere = text.replacen("127.0.0.1:", "redis-1.internal:", 1);
    let target = open(&target_config("redis", &elsewhere, &["order"]), lab.folder.path());
    assert!(warned(target.examine().await.unwrap()));
}

#[tokio::test]
async fn a_gate_that_lets_nobody_live_as_long_as_an_offer_says_is_found() {
    let Some(lab) = lab().await else { return };
    let broken = |findings: Vec<authority::target::Finding>| findings.iter().any(|finding| finding.check == "gate.lifetime");
    assert!(!broken(lab.target.examine().await.unwrap()));
    lab.gate.abort();
    let folder = lab.folder.path().to_owned();
    let text = gate_file(lab.ports, "").replace("{FOLDER}", &folder.display().to_string());
    let text = text.replace("lifetime_secs_max = 600", "lifetime_secs_max = 599").replace("gate.sock", "gate-2.sock");
    let surroundings: Arc<dyn Surroundings> = Arc::new(issuing::Files(folder.clone()));
    let gate = Gate::new(GateSettings::parse(&text).unwrap(), surroundings).unwrap();
    let serving = tokio::spawn(async move { gate.serve().await.unwrap() });
    until("the gate listens", || UnixStream::connect(folder.join("gate-2.sock")).is_ok()).await;
    let file = target_file(lab.ports).replace("{FOLDER}", &folder.display().to_string()).replace("gate.sock", "gate-2.sock");
    assert!(broken(open(&target_config("redis", &file, &["order"]), &folder).examine().await.unwrap()));
    serving.abort();
}

fn request(order: &str) -> (Request, String) {
    let password: String = random::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = RealRedis::sha256(&password);
    (Request::new("orders", &[("order", order)], Some(Verifier::Sha256(hash))), password)
}

impl Lab {
    /// redis-cli as a user at a node; the answer, errors too.
    fn cli(&self, node: usize, user: &str, password: &str, words: &[&str]) -> String {
        self.nodes[node].cli_as(user, password, words)
    }

    /// As the node's own administrator: the default user, which the tests leave open.
    fn admin(&self, node: usize, words: &[&str]) -> String {
        self.nodes[node].cli(words)
    }

    /// A connection that is logged in and stays.
    fn live(&self, node: usize, user: &str, password: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports[node])).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(say(&mut stream, &["AUTH", user, password]), "+OK");
        stream
    }

    /// The broker's own credential, used by somebody evil.
    fn evil(&self, words: &[&str]) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("gate.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(say(&mut stream, &["AUTH", BROKER]), "+OK");
        say(&mut stream, words)
    }
}

fn say<S: Read + Write>(stream: &mut S, words: &[&str]) -> String {
    let mut command = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| command.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    // A gate that refused us may be gone already: then nothing is read.
    let _closed = stream.write_all(command.as_bytes());
    let mut line = String::new();
    // Byte by byte: what follows must stay in the stream.
    let mut byte = [0];
    while !line.ends_with("\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        line.push(char::from(byte[0]));
    }
    line.trim().to_owned()
}

/// Whether the other side closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(BufReader::new(stream).read_until(b'\n', &mut Vec::new()), Ok(0) | Err(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_was_decided_at_every_node_and_nothing_else() {
    let Some(lab) = lab().await else { return };
    let (request, password) = request("A-1");
    let (plan, minted) = request.issue(lab.target.as_ref()).await.unwrap();
    let user = plan.handle.as_str();
    assert!(minted.secrets.is_empty() && minted.fields["user"] == user);
    lab.admin(0, &["SET", "shared:x", "1"]);
    for node in 0..2 {
        let as_user = |words: &[&str]| lab.cli(node, user, &password, words);
        assert_eq!(as_user(&["SET", "order:A-1:state", "paid"]), "OK");
        assert_eq!(as_user(&["GET", "order:A-1:state"]), "paid");
        assert_eq!(as_user(&["PUBLISH", "events:A-1", "x"]), "0");
        for refused in [
            ["GET", "order:B-2:state"].as_slice(),
            &["SET", "shared:x", "2"],
            &["PUBLISH", "events:B-2", "x"],
            &["DEL", "order:A-1:state"],
            &["KEYS", "*"],
            &["SCAN", "0"],
            &["ACL", "LIST"],
            &["ACL", "SETUSER", user, "+@all"],
            &["CONFIG", "GET", "*"],
            &["EVAL", "return 1", "0"],
            &["SELECT", "1"],
            &["FLUSHALL"],
            &["CLIENT", "LIST"],
        ] {
            assert!(as_user(refused).contains("NOPERM"), "{refused:?}: {}", as_user(refused));
        }
        // The password alone, without the name, and another password are nobody.
        assert!(lab.cli(node, user, "wrong", &["PING"]).contains("WRONGPASS"));
    }
    assert_eq!(lab.cli(0, user, &password, &["GET", "shared:x"]), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_ends_the_live_session_where_switching_off_does_not() {
    let Some(lab) = lab().await else { return };
    let (request, password) = request("A-1");
    let (plan, _) = request.issue(lab.target.as_ref()).await.unwrap();
    let mut live = [lab.live(0, &plan.handle, &password), lab.live(1, &plan.handle, &password)];
    // This is the trap: a user that is switched off goes on in its connection.
    lab.admin(0, &["ACL", "SETUSER", &plan.handle, "off"]);
    assert_eq!(say(&mut live[0], &["PING"]), "+PONG");
    let closed = lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    assert_eq!(closed.facts["nodes"], "2");
    assert!(live.iter_mut().all(is_closed));
    for step in [
        Ending::EndSessions,
        Ending::Clean,
        Ending::Verify,
        Ending::CloseAuth,
        Ending::EndSessions,
        Ending::Clean,
        Ending::Verify,
    ] {
        lab.target.end(step, &handle(&plan)).await.unwrap();
    }
    for node in 0..2 {
        assert!(lab.cli(node, &plan.handle, &password, &["PING"]).contains("WRONGPASS"));
    }
    assert!(lab.target.inventory().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_a_credential_works_and_is_revoked_at_the_new_primary() {
    let Some(lab) = lab().await else { return };
    assert_eq!(lab.admin(1, &["REPLICAOF", "127.0.0.1", &lab.ports[0].to_string()]), "OK");
    until("the replica follows", || lab.admin(1, &["INFO", "replication"]).contains("master_link_status:up")).await;
    let (request, password) = request("A-1");
    let (plan, _) = request.issue(lab.target.as_ref()).await.unwrap();
    assert_eq!(lab.admin(1, &["REPLICAOF", "NO", "ONE"]), "OK");
    assert_eq!(lab.cli(1, &plan.handle, &password, &["SET", "order:A-1:x", "1"]), "OK");
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    assert!(lab.cli(1, &plan.handle, &password, &["PING"]).contains("WRONGPASS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_down_refuses_issue_and_delays_revocation_without_losing_it() {
    let Some(lab) = lab().await else { return };
    let (first, password) = request("A-1");
    let (plan, _) = first.issue(lab.target.as_ref()).await.unwrap();
    // Held, not killed: its port stays its own, and nobody answers there.
    let signal = |name: &str| run(Command::new("kill").args([name, &lab.nodes[1].pid().to_string()])).unwrap();
    signal("-STOP");
    let (second, _) = request("A-2");
    assert!(matches!(second.issue(lab.target.as_ref()).await, Err(TargetError::Unreachable(_))));
    // Not half made: nothing of it is at the node that lives.
    assert_eq!(lab.admin(0, &["ACL", "USERS"]).lines().filter(|user| user.starts_with("jit_")).count(), 1);
    assert!(matches!(lab.target.end(Ending::CloseAuth, &handle(&plan)).await, Err(TargetError::Unreachable(_))));
    // What can be reached is closed all the same.
    assert!(lab.cli(0, &plan.handle, &password, &["PING"]).contains("WRONGPASS"));
    signal("-CONT");
    assert_eq!(lab.cli(1, &plan.handle, &password, &["PING"]), "PONG");
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify] {
        lab.target.end(step, &handle(&plan)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_holds_the_deadline_without_the_broker_and_after_its_own_crash() {
    let Some(lab) = lab().await else { return };
    let (mut request, password) = request("A-1");
    request.lifetime_secs = 2;
    let (plan, _) = request.issue(lab.target.as_ref()).await.unwrap();
    let mut live = lab.live(0, &plan.handle, &password);
    // The gate dies with the credential alive, and a new one knows nothing but what stands at the nodes.
    lab.gate.abort();
    until("the time is over", || issuing::now() > plan.expires_at).await;
    assert_eq!(say(&mut live, &["PING"]), "+PONG");
    let gate = start_gate(lab.folder.path(), lab.ports);
    assert!(is_closed(&mut live));
    until("the user is gone", || !lab.admin(1, &["ACL", "USERS"]).contains("jit_")).await;
    gate.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evil_broker_can_make_nothing_beyond_the_gates_own_templates() {
    let Some(lab) = lab().await else { return };
    let (good, _) = request("A-1");
    let plan = good.plan(lab.target.as_ref()).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&plan.canonical).unwrap();
    let rules: Vec<String> = text["rules"].as_array().unwrap().iter().map(|rule| rule.as_str().unwrap().to_owned()).collect();
    let digest = RealRedis::sha256(&rules.join("\n"));
    let hash = RealRedis::sha256("evil");
    let name = |secs: u64| {
        let grant: String = GrantId::from_bytes(random()).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("jit_{grant}_{}", issuing::now().plus_secs(secs).secs())
    };
    for refused in [
        // The language of Redis itself, and of the gate with other things in it.
        ["ACL", "SETUSER", "evil", "on", "nopass", "+@all", "~*"].as_slice(),
        &["CONFIG", "SET", "requirepass", ""],
        &["CLIENT", "LIST"],
        &["WRIT.ISSUE", "default", "orders", &hash, &digest, "order", "A-1"],
        &["WRIT.ISSUE", "evil", "orders", &hash, &digest, "order", "A-1"],
        &["WRIT.ISSUE", &name(3_600), "orders", &hash, &digest, "order", "A-1"],
        &["WRIT.ISSUE", &name(60), "everything", &hash, &digest, "order", "A-1"],
        &["WRIT.ISSUE", &name(60), "orders", "evil", &digest, "order", "A-1"],
        &["WRIT.ISSUE", &name(60), "orders", &format!("{hash} +@all"), &digest, "order", "A-1"],
        &["WRIT.ISSUE", &name(60), "orders", &hash, &digest, "order", "*"],
        &["WRIT.ISSUE", &name(60), "orders", &hash, &digest, "order", "A-1 allkeys"],
        &["WRIT.ISSUE", &name(60), "orders", &hash, &digest, "order", "B-2"],
        &["WRIT.ISSUE", &name(60), "orders", &hash, &digest],
        &["WRIT.ISSUE", &name(60), "orders", &hash, &digest, "order", "A-1", "order", "B-2"],
        &["WRIT.CLOSE", "default"],
        &["WRIT.CLOSE", "writ_gate"],
    ] {
        assert!(lab.evil(refused).starts_with("-REFUSED"), "{refused:?}");
    }
    // At Redis itself its secret is nobody's.
    assert!(lab.cli(0, "writ_gate", BROKER, &["ACL", "USERS"]).contains("WRONGPASS"));
    // A user that lives is never changed.
    let mine = name(60);
    let issue = ["WRIT.ISSUE", mine.as_str(), "orders", hash.as_str(), digest.as_str(), "order", "A-1"];
    assert_eq!(lab.evil(&issue), "+OK");
    assert!(lab.evil(&issue).starts_with("-REFUSED"));
    assert_eq!(lab.target.inventory().await.unwrap()[0].handle, mine);
    // And never more than the gate's bound.
    let made =
        (0..10).filter(|_| lab.evil(&["WRIT.ISSUE", &name(60), "orders", &hash, &digest, "order", "A-1"]) == "+OK").count();
    assert_eq!(made, 4);
    // Without the secret there is no word at all.
    let mut stranger = UnixStream::connect(lab.folder.path().join("gate.sock")).unwrap();
    assert!(say(&mut stranger, &["WRIT.LIST"]).starts_with("-REFUSED"));
    let mut guess = UnixStream::connect(lab.folder.path().join("gate.sock")).unwrap();
    assert!(say(&mut guess, &["AUTH", "guess"]).starts_with("-REFUSED"));
    assert_eq!(say(&mut guess, &["PING"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_what_is_made_and_a_drifted_template_is_refused() {
    let Some(lab) = lab().await else { return };
    let (good, _) = request("A-1");
    let plan = good.plan(lab.target.as_ref()).unwrap();
    let shown = testkit::shown(&plan).await;
    let mut other = request("B-2").0.plan(lab.target.as_ref()).unwrap();
    assert!(matches!(lab.target.issue(&other, &shown).await, Err(TargetError::NotShown(_))));
    other.canonical = plan.canonical.clone();
    lab.target.issue(&other, &shown).await.unwrap();
    assert_eq!(lab.target.inventory().await.unwrap()[0].handle, plan.handle);
    let mut drifted = request("A-1").0;
    drifted.offer.name = "drifted".parse().unwrap();
    assert!(matches!(drifted.issue(lab.target.as_ref()).await, Err(TargetError::Refused(text)) if text.contains("other rules")));
    let findings = lab.target.examine().await.unwrap();
    let broken: Vec<_> = findings.iter().filter(|finding| finding.gravity == Gravity::Broken).collect();
    assert!(broken.len() == 1 && broken[0].found.contains("drifted"), "{findings:?}");
    assert!(findings.iter().any(|finding| finding.found.contains("default_open")), "{findings:?}");
    // Parameters that a pattern would read as more than themselves are refused before the decision.
    for evil in ["*", "A?", "A:B", "A B", ""] {
        assert!(matches!(request(evil).0.plan(lab.target.as_ref()), Err(TargetError::Unacceptable(_))), "{evil}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_is_let_in_before_and_refused_after() {
    let Some(lab) = lab().await else { return };
    let mut request = request("A-1").0;
    request.verifier = None;
    let (plan, minted) = request.issue(lab.target.as_ref()).await.unwrap();
    let within = Duration::from_secs(5);
    assert_eq!(lab.target.try_use(&minted, within).await.unwrap(), Acceptance::Accepted);
    lab.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    assert_eq!(lab.target.try_use(&minted, within).await.unwrap(), Acceptance::Refused);
    let found = lab.target.scan().await.unwrap();
    let default = found.iter().find(|user| user.name == "default").unwrap();
    assert!(default.flags.contains(&"superuser") && default.flags.contains(&"no_password"), "{default:?}");
}
