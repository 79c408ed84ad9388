//! A server of ours before a system of theirs, and what is the same for every kind of system: how a credential is asked for,
//! how the server is killed, and what must be so when all is over. It knows nothing of a single kind.

use crate::served::{Server, edit, serve, text, writ};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Seconds after which a grant that nobody confirmed is taken back, and some more.
pub(crate) const UNCONFIRMED_SECS: i64 = 130;

/// A system of theirs.
pub(crate) trait Place {
    /// The name of its target.
    const TARGET: &'static str;
    /// Whether the system can take a credential back. If not, it goes on until it expires, and that is what must be said.
    const TAKES_BACK: bool = true;
    /// What a task asks for, and what it says about it.
    const READ: (&'static str, Option<&'static str>);

    /// `targets/TARGET.toml`.
    fn target_file(&self, dir: &Path) -> String;

    /// Policy for the intent `work`, whose only parameter is `subject`.
    fn policy(&self) -> String;

    /// What its administrator does: secrets, and what `writ target install` prints.
    fn install(&self, dir: &Path);

    /// Names of ours that stand there.
    fn standing(&self) -> String;

    /// Our clock is ahead by so much from now on; whoever judges by the time must see the same.
    fn later(&self, _secs: i64) {}
}

/// Both.
pub(crate) struct Lab<P> {
    /// Ours. Before theirs, so that it ends first.
    pub(crate) server: Server,
    /// Theirs.
    pub(crate) place: P,
}

impl<P: Place> Lab<P> {
    /// Sets everything up; the target has passed its probe.
    pub(crate) fn start(place: P) -> Self {
        let intent = format!(
            "name = \"work\"\ndescription = \"Work on one subject.\"\nowner = \"support\"\ntargets = [\"{}\"]\n\
             [params.subject]\ntype = \"string\"\ndescription = \"The subject.\"\n[limits]\nidle_secs = 5\n",
            P::TARGET
        );
        let server = Server::start_with(|dir| {
            edit(&dir.join("agents/support-bot.toml"), "\"answer-ticket\"]", "\"answer-ticket\", \"work\"]");
            fs::write(dir.join("policy/intents/work.toml"), intent).unwrap();
            fs::write(dir.join("policy/work.cedar"), place.policy()).unwrap();
            for folder in ["targets", "secrets", "published"] {
                fs::create_dir(dir.join(folder)).unwrap();
            }
            fs::write(dir.join(format!("targets/{}.toml", P::TARGET)), place.target_file(dir)).unwrap();
            place.install(dir);
        });
        let lab = Self { server, place };
        lab.until("the target is probed", || match lab.target_state().as_str() {
            "healthy" => true,
            // A server that reads lists only when it is told to had none before the first signature.
            "broken" => lab.json(&["target", "probe", P::TARGET]).is_null(),
            _ => false,
        });
        lab
    }

    /// The folder of our server.
    pub(crate) fn dir(&self) -> &Path {
        self.server.dir.path()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = writ(self.dir(), &[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub(crate) fn target_state(&self) -> String {
        let target = self.json(&["target", "show", P::TARGET]);
        target.pointer("/health/state").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    pub(crate) fn until(&self, what: &str, so: impl Fn() -> bool) {
        self.server.until(what, |_| so());
    }

    /// `writ exec` of a shell script, for this subject, with these credentials.
    pub(crate) fn command_with(&self, subject: &str, credentials: &[(&str, Option<&str>)], script: &str) -> Command {
        let mut args = Vec::new();
        for (offer, param) in credentials {
            args.extend(["--credential".to_owned(), format!("{}/{offer}", P::TARGET)]);
            args.extend(param.iter().flat_map(|param| ["--credential-param".to_owned(), (*param).to_owned()]));
        }
        args.extend(["--", "sh", "-c", script].map(str::to_owned));
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.server.exec(&["work", "--param", &format!("subject={subject}")], &args)
    }

    /// The same for `eu` with what a task asks for.
    pub(crate) fn command(&self, script: &str) -> Command {
        self.command_with("eu", &[P::READ], script)
    }

    pub(crate) fn run(&self, script: &str) -> Output {
        self.command(script).output().unwrap()
    }

    /// What a script says that must succeed.
    pub(crate) fn says(&self, script: &str) -> String {
        let output = self.run(script);
        assert!(output.status.success(), "{script}: {}", err(&output));
        out(&output).trim().to_owned()
    }

    /// The newest credential of a task.
    pub(crate) fn credential(&self) -> Value {
        self.credentials().into_iter().find(|one| text(one, "agent") != "writ-probe").unwrap_or_default()
    }

    /// The newest hundred, the probes' among them.
    pub(crate) fn credentials(&self) -> Vec<Value> {
        let page = self.json(&["credential", "list", "--limit", "100"]);
        page.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Ids of those that tasks hold or held.
    pub(crate) fn tasks_credentials(&self) -> Vec<String> {
        let of_tasks = self.credentials().into_iter().filter(|one| text(one, "agent") != "writ-probe");
        of_tasks.map(|one| text(&one, "id").to_owned()).collect()
    }

    pub(crate) fn end_task(&self) {
        let ended = writ(self.dir(), &["task", "end", text(&self.server.task(), "id")]);
        assert!(ended.status.success(), "{}", err(&ended));
    }

    /// Waits until the newest credential is proved dead and nothing of ours stands there; all of it is in the log.
    pub(crate) fn over(&self) {
        self.until("it is proved dead", || at_target(&self.credential()) == "verified_dead");
        self.until("nothing of ours is there", || self.place.standing().is_empty());
        self.in_the_log(&self.credential());
    }

    /// All that can be done is done, and nobody says that it is dead.
    pub(crate) fn stays_until_it_expires(&self) {
        self.until("what can be done is done", || at_target(&self.credential()) == "residue_cleaned");
        assert_ne!(self.place.standing(), "", "the system cannot take it back");
    }

    /// What can be said once its task is over.
    pub(crate) fn ended(&self) {
        if P::TAKES_BACK { self.over() } else { self.stays_until_it_expires() }
    }

    /// The decision and each step of the end have their entries, in their order; a step that was done again counts the last
    /// time. (That it is revoked is said by the entry of
    /// the end of its task.)
    pub(crate) fn in_the_log(&self, credential: &Value) {
        let entries = self.entries();
        let of = |entry: &&Value| ["grant", "detail/grant"].iter().any(|member| event(entry, member) == text(credential, "id"));
        let expected = ["decision", "close_auth", "end_sessions", "clean", "verify"];
        let mut seen: Vec<String> = Vec::new();
        for kind in entries.iter().filter(of).map(kind) {
            if expected.contains(&kind.as_str()) && !seen.contains(&kind) {
                seen.push(kind);
            }
        }
        seen.reverse();
        assert_eq!(seen, expected, "{credential:#}");
    }

    /// The whole log, newest first.
    pub(crate) fn entries(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let before = all.last().and_then(|entry| entry.get("index")).map_or("9999999".to_owned(), Value::to_string);
            let page = self.json(&["audit", "search", "--limit", "500", "--before", &before]);
            let page = page.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// Waits until it is recorded that a credential was handed out, which is so a moment later. Killed in between, its death
    /// is proved two minutes later: longer than a test waits.
    pub(crate) fn recorded(&self) {
        self.until("it is recorded", || at_target(&self.credential()) == "issued");
    }

    /// As `kill -9` does, or a power failure.
    pub(crate) fn kill(&mut self) {
        self.server.process.kill().unwrap();
        self.server.process.wait().unwrap();
    }

    /// Starts the server again after [`Self::kill`], its environment changed.
    pub(crate) fn again(&mut self, change: impl FnOnce(&mut Command)) {
        let (process, serving) = serve(self.dir(), change);
        self.server.process = process;
        assert!(serving, "{}", fs::read_to_string(self.dir().join("serve.log")).unwrap());
    }

    /// Dies with its credential alive and in use; what is left is taken back by the next start.
    pub(crate) fn dies_while_it_is_live(&mut self, script: &str) {
        let mut session = self.live(script);
        self.recorded();
        self.kill();
        session.exec.kill().unwrap();
        session.exec.wait().unwrap();
        assert_ne!(self.place.standing(), "nobody asked anybody");
        self.again(|_| {});
        self.over();
    }

    /// Dies right after the system made it, before anybody was told; once nobody can have it any more, it is gone.
    pub(crate) fn dies_right_after_issue(&mut self) {
        self.killed_right_after_issue();
        if self.goes_on_later(UNCONFIRMED_SECS) {
            self.over();
        }
    }

    /// The first half of it.
    pub(crate) fn killed_right_after_issue(&mut self) {
        self.kill();
        let step = self.dir().join("die-at");
        self.again(|serve| {
            serve.env("WRIT_DIE_AT", &step);
        });
        self.until("the target is probed", || self.target_state() == "healthy");
        fs::write(&step, "credential.issued").unwrap();
        let marker = self.dir().join("ran");
        let output = self.run(&format!("touch {}", marker.display()));
        assert!(!output.status.success() && !marker.exists(), "nobody was told of it");
        fs::remove_file(&step).unwrap();
        self.server.process.wait().unwrap();
    }

    /// The second: starts the server that was killed with its clock ahead. `false`, loudly, where that is not possible.
    pub(crate) fn goes_on_later(&mut self, secs: i64) -> bool {
        let Some(clock) = clock(&format!("+{secs}")) else {
            eprintln!("SKIPPED: without libfaketime the rest takes {secs} seconds");
            return false;
        };
        self.place.later(secs);
        self.again(|serve| {
            serve.envs(clock);
        });
        true
    }

    /// Starts a script whose first line says that it is ready.
    pub(crate) fn live(&self, script: &str) -> Session {
        self.live_of(&mut self.command(script))
    }

    /// The same with a command of its own.
    pub(crate) fn live_of(&self, command: &mut Command) -> Session {
        let mut exec = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(exec.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line.is_empty() {
            let output = exec.wait_with_output().unwrap();
            unreachable!("{command:?} said nothing: {}", err(&output));
        }
        Session { exec, first: line.trim().to_owned(), said: Some(said) }
    }
}

/// A command that runs; it ends with its test, however that ends.
pub(crate) struct Session {
    /// Its `writ exec`.
    pub(crate) exec: Child,
    /// The first line that it said.
    pub(crate) first: String,
    said: Option<BufReader<ChildStdout>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.exec.kill();
        let _ = self.exec.wait();
    }
}

impl Session {
    /// Lets it go on that waits for a line.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.exec.stdin.as_mut().unwrap()).unwrap();
    }

    /// Its next line; empty at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Waits for its end; what it said to its error output.
    pub(crate) fn end(mut self) -> String {
        drop((self.said.take(), self.exec.stdin.take()));
        let mut said = String::new();
        self.exec.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        self.exec.wait().unwrap();
        said
    }
}

pub(crate) fn event<'a>(entry: &'a Value, member: &str) -> &'a str {
    entry.pointer(&format!("/leaf/event/{member}")).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn kind(entry: &Value) -> String {
    match event(entry, "type") {
        "credential.step" => event(entry, "detail/step").to_owned(),
        other => other.to_owned(),
    }
}

pub(crate) fn at_target(credential: &Value) -> &str {
    credential.pointer("/at_target/state").and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A secret of our server.
pub(crate) fn secret(dir: &Path, name: &str, content: &str) {
    let path = dir.join("secrets").join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// What `writ target install` prints.
pub(crate) fn install_script(dir: &Path, target: &str) -> String {
    let script = writ(dir, &["target", "install", target, "--print"]);
    assert!(script.status.success(), "{}", err(&script));
    out(&script)
}

/// Sets the wall clock of a process off by so many seconds; the monotonic one goes on. `None` without libfaketime.
pub(crate) fn clock(offset: &str) -> Option<[(&'static str, PathBuf); 4]> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    let library = folders.map(|folder| folder.join("libfaketimeMT.so.1")).find(|path| path.exists())?;
    let one = || PathBuf::from("1");
    Some([
        ("LD_PRELOAD", library),
        ("FAKETIME", offset.into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", one()),
        ("DONT_FAKE_MONOTONIC", one()),
    ])
}
