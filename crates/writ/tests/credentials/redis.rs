//! Redis behind the gate (`writ redis-gate`), and an unmodified redis-cli.

use crate::lab::{Lab, Place, err, out, secret};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use testkit::RealRedis;

const BROKER: &str = "the broker's secret for the gate";

/// What both the target and the gate say of the one template.
const RULES: &str = "commands = [\"get\", \"set\", \"ping\", \"blpop\", \"subscribe\"]\nkeys = [\"order:{order}:*\"]\n";

/// A node and its gate.
pub(crate) struct Gated {
    node: RealRedis,
    gate: Mutex<Option<Child>>,
}

impl Drop for Gated {
    fn drop(&mut self) {
        if let Some(mut gate) = self.gate.lock().unwrap().take() {
            let _ = gate.kill();
            let _ = gate.wait();
        }
    }
}

impl Place for Gated {
    const TARGET: &'static str = "cache";
    const READ: (&'static str, Option<&'static str>) = ("orders", Some("order=eu"));

    fn target_file(&self, dir: &Path) -> String {
        format!(
            "kind = \"redis\"\nowner = \"support\"\ndescription = \"The orders cache.\"\n\
             [connect]\ngate = \"unix:{}/gate.sock\"\ngate_secret = {{ file = \"secrets/gate\" }}\nnodes = [\"127.0.0.1:{}\"]\n\
             [offers.orders]\ndescription = \"What is cached of one order.\"\ntemplate = \"orders\"\nlifetime_secs = 300\n{RULES}\
             [offers.orders.params.order]\ntype = \"string\"\ndescription = \"The order.\"\n",
            dir.display(),
            self.node.port()
        )
    }

    fn policy(&self) -> String {
        r#"@id("own-order")
        permit (principal is Intent::Work, action == Cache::Action::"orders", resource is Writ::Credential)
        when { context.input.order == principal.subject && context.secret == "caller" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "gate", BROKER);
        let gate = dir.join("gate");
        fs::create_dir(&gate).unwrap();
        fs::write(gate.join("password"), RealRedis::GATE_PASSWORD).unwrap();
        let text = format!(
            "listen = \"unix:{}/gate.sock\"\nbroker_sha256 = \"{}\"\nlifetime_secs_max = 600\n\
             [[nodes]]\naddress = \"127.0.0.1:{}\"\nuser = \"writ_gate\"\npassword_file = \"{}/password\"\n[templates.orders]\n{RULES}",
            dir.display(),
            RealRedis::sha256(BROKER),
            self.node.port(),
            gate.display()
        );
        fs::write(gate.join("gate.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
        let process = command.args(["redis-gate"]).arg(gate.join("gate.toml")).stdin(Stdio::null()).spawn().unwrap();
        *self.gate.lock().unwrap() = Some(process);
        // Writ starts in a moment, and its probe needs the gate: a process that asks takes its time by itself.
        let listens = || UnixStream::connect(dir.join("gate.sock")).is_ok();
        let listening = (0..10_000).any(|_| listens() || Command::new("true").status().is_err());
        assert!(listening, "the gate does not listen");
    }

    fn standing(&self) -> String {
        let users = self.node.cli(&["ACL", "USERS"]);
        users.lines().filter(|user| user.starts_with("jit_")).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn lab() -> Option<Lab<Gated>> {
    RealRedis::start().map(|node| Lab::start(Gated { node, gate: Mutex::new(None) }))
}

/// What a person types once; the password is in the environment already.
const CLI: &str = "cli() { redis-cli -h $WRIT_CREDENTIAL_CACHE_ORDERS_HOST -p $WRIT_CREDENTIAL_CACHE_ORDERS_PORT --user $WRIT_CREDENTIAL_CACHE_ORDERS_USER \"$@\"; }; ";

fn with_cli(script: &str) -> String {
    format!("{CLI}{script}")
}

#[test]
fn an_unmodified_redis_cli_does_what_its_task_may_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    assert_eq!(lab.says(&with_cli("cli SET order:eu:state paid; cli GET order:eu:state")), "OK\npaid");
    let _set = lab.place.node.cli(&["SET", "order:us:state", "secret"]);
    for forbidden in [
        "GET order:us:state",
        "DEL order:eu:state",
        "KEYS '*'",
        "CONFIG GET '*'",
        "ACL LIST",
        "ACL SETUSER $WRIT_CREDENTIAL_CACHE_ORDERS_USER +@all",
        "EVAL 'return 1' 0",
        "FLUSHALL",
    ] {
        let output = lab.run(&with_cli(&format!("cli {forbidden}")));
        assert!(out(&output).contains("NOPERM"), "{forbidden}: {} {}", out(&output), err(&output));
    }
    lab.over();
    let output = lab.command_with("eu", &[("orders", Some("order=us"))], "true").output().unwrap();
    assert!(!output.status.success() && err(&output).contains("orders"), "{}", err(&output));
    assert_eq!(lab.place.standing(), "");
}

#[test]
fn the_end_of_the_task_kills_the_live_session_and_the_next_login() {
    let Some(lab) = lab() else { return };
    // `blpop` waits for ever; `ping` after it is a new login.
    let mut session = lab.live(&with_cli("cli PING; cli BLPOP order:eu:queue 0 2>&1; echo over; cli PING 2>&1; echo out"));
    assert_eq!(session.first, "PONG");
    lab.until("it waits", || lab.place.node.cli(&["CLIENT", "LIST"]).contains("cmd=blpop"));
    lab.end_task();
    let mut said = Vec::new();
    while said.last().is_none_or(|line| line != "out") {
        said.push(session.line());
    }
    let said = said.join("\n");
    assert!(said.contains("closed") && said.contains("over"), "{said}");
    // After that redis-cli goes on as nobody, who may do anything at this node.
    assert!(said.split("over").last().is_some_and(|after| after.contains("WRONGPASS")), "{said}");
    session.end();
    lab.over();
}

#[test]
fn killed_while_a_user_is_live_or_right_after_its_issue_writ_leaves_nothing_behind() {
    let Some(mut lab) = lab() else { return };
    lab.dies_while_it_is_live(&with_cli("cli PING; cli BLPOP order:eu:queue 0"));
    lab.dies_right_after_issue();
}
