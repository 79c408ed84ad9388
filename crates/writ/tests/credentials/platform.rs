//! A platform that cannot be had here, played by a strict peer over TLS, and what is the same for all of them: a clock that
//! goes ahead with ours, a credential asked for over REST, and interpreters for the official SDKs. Knows no platform.

use crate::lab::{Lab, Place, UNCONFIRMED_SECS, err, out};
use crate::served::text;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use testkit::peer::{Answer, Now, Peer, Seen};

/// It, and the server that plays it.
pub(crate) struct Platform<P> {
    pub(crate) peer: Peer,
    played: Arc<Mutex<P>>,
    ahead: Arc<AtomicI64>,
    now: Now,
    shown: Arc<Mutex<BTreeSet<String>>>,
    echoes: Arc<AtomicBool>,
}

impl<P: Send + 'static> Platform<P> {
    pub(crate) fn start(new: impl FnOnce(Now) -> P, answer: fn(&mut P, &Seen) -> Answer) -> Self {
        let ahead = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&ahead);
        #[expect(clippy::disallowed_methods, reason = "the peer lives in the same time as the server that is tested")]
        let system = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let now: Now = Arc::new(move || i64::try_from(system()).unwrap() + clock.load(Ordering::SeqCst));
        let played = Arc::new(Mutex::new(new(Arc::clone(&now))));
        let (shown, echoes) = <(Arc<Mutex<BTreeSet<String>>>, Arc<AtomicBool>)>::default();
        let (served, heard, echoing) = (Arc::clone(&played), Arc::clone(&shown), Arc::clone(&echoes));
        let peer = Peer::tls(move |seen| {
            heard.lock().unwrap().extend(seen.secrets());
            if echoing.load(Ordering::SeqCst) {
                let body = String::from_utf8_lossy(&seen.body);
                return Answer::from((400, format!("no: {} {body}", seen.secrets().join(" "))));
            }
            answer(&mut served.lock().unwrap(), &seen)
        });
        Self { peer, played, ahead, now, shown, echoes }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, P> {
        self.played.lock().unwrap()
    }

    /// Our clock is ahead by so much.
    pub(crate) fn set_ahead(&self, secs: i64) {
        self.ahead.store(secs, Ordering::SeqCst);
    }

    /// What an assertion may say, for so long; of two members with the same name the last one counts.
    pub(crate) fn claims(&self, said: &[(&str, &str)], secs: i64) -> Value {
        let now = (self.now)();
        let times = [("iat", now), ("exp", now + secs)].map(|(name, at)| (name.to_owned(), Value::from(at)));
        said.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).chain(times).collect()
    }

    /// What curl is answered: the status, and the document.
    pub(crate) fn asked(&self, dir: &Path, path: &str, args: &[&str]) -> (u16, Value) {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-w", "\n%{http_code}", "--cacert"]).arg(dir.join("platform.pem")).args(args);
        let output = curl.arg(format!("{}{path}", self.peer.url)).output().unwrap();
        let said = out(&output);
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    /// Everything that was shown to it so far and that nobody else may learn, a line each.
    pub(crate) fn shown(&self) -> String {
        self.shown.lock().unwrap().iter().map(|secret| format!("{secret}\n")).collect()
    }

    /// From now on it refuses everything, and repeats what it was sent; or no longer.
    pub(crate) fn echo(&self, echoes: bool) {
        self.echoes.store(echoes, Ordering::SeqCst);
    }

    /// Its authority's certificate in a file of our server's folder.
    pub(crate) fn write_ca(&self, dir: &Path) {
        std::fs::write(dir.join("platform.pem"), &self.peer.ca_pem).unwrap();
    }
}

impl<P: Place> Lab<P> {
    /// What `writ exec` does for a command it can do later by itself, over REST: what is asked for stands, and it is given back.
    pub(crate) fn asks_over_rest(&self) {
        let (offer, param) = P::READ;
        let wanted = format!("{}/{offer}", P::TARGET);
        let param = param.map(|param| format!("--credential-param {param}")).unwrap_or_default();
        let script = format!(
            "cred=$(\"$WRIT\" credential request {wanted} {param}) || exit 1; echo ready; read _; \
             id=$(echo \"$cred\" | sed -n 's/.*\"id\": \"\\(grt_[0-9a-f]*\\)\".*/\\1/p'); \"$WRIT\" credential return $id >&2"
        );
        let mut command = self.command_with("eu", &[], &script);
        let mut session = self.live_of(command.env("WRIT", env!("CARGO_BIN_EXE_writ")));
        assert_eq!(session.first, "ready");
        assert_ne!(self.place.standing(), "");
        session.go_on();
        session.end();
        self.until("it is given back", || text(&self.credential(), "revoked_because") == "returned");
        self.ended();
    }

    /// What policy refuses is not asked of the platform.
    pub(crate) fn another_subject_gets_nothing(&self) {
        let before = self.credentials().len();
        let (offer, param) = P::READ;
        let output = self.command_with("us", &[(offer, param)], "true").output().unwrap();
        assert!(!output.status.success() && err(&output).contains(offer), "{}", err(&output));
        assert_eq!(self.credentials().len(), before);
    }

    /// After [`Self::killed_right_after_issue`]: somebody might have it, so nobody waits until it is overdue.
    pub(crate) fn is_taken_back_by_the_next_start(&mut self) {
        self.again(|_| {});
        self.until("it is taken back", || text(&self.credential(), "revoked_because") == "not_handed_out");
        let credential = self.credential();
        let [granted, revoked] = ["granted_at", "revoked_at"].map(|at| text(&credential, at).parse::<jiff::Timestamp>().unwrap());
        assert!(revoked.as_second() - granted.as_second() < 120, "only because it was overdue: {credential:#}");
        self.kill();
    }

    /// Both kills, where nobody can take a token back: while one is live, and right after its issue. It is waited for; when
    /// our clock is ahead by so much, nothing is left.
    pub(crate) fn waits_after_kills(mut self, uses: &str, over_secs: i64) {
        let session = self.live(uses);
        self.recorded();
        self.kill();
        drop(session);
        self.again(|_| {});
        self.stays_until_it_expires();
        let known = self.tasks_credentials();
        self.killed_right_after_issue();
        self.is_taken_back_by_the_next_start();
        if !self.goes_on_later(UNCONFIRMED_SECS) {
            return;
        }
        assert_eq!(self.tasks_credentials().len(), known.len() + 1, "what was about to be made is remembered");
        self.stays_until_it_expires();
        self.kill();
        if self.goes_on_later(over_secs) {
            self.over();
        }
    }

    /// The operator's view: nothing is broken.
    pub(crate) fn doctor_is_content(&self) {
        let found = self.json(&["target", "doctor", P::TARGET]);
        assert!(["fine", "warning"].contains(&text(&found, "verdict")), "{found:#}");
    }
}

/// For whom tokens work, without the probes': those live on in the same way.
pub(crate) fn of_tasks(mut live: Vec<String>) -> String {
    live.retain(|agent| agent != "writ-probe");
    live.join("\n")
}

/// A Python that has this module: the official SDKs are packages of it.
pub(crate) fn python_with(module: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where programs are, and whether they must be there")]
    let (path, required) = (std::env::var("PATH").unwrap_or_default(), std::env::var_os("WRIT_REQUIRE_SERVICES").is_some());
    let asks = format!("import importlib.util as u, sys; sys.exit(not u.find_spec({module:?}))");
    let has = |python: &PathBuf| {
        let mut ask = Command::new(python);
        ask.args(["-c", &asks]).output().is_ok_and(|output| output.status.success())
    };
    let found = path.split(':').map(|folder| Path::new(folder).join("python3")).filter(|python| python.is_file()).find(has);
    if found.is_none() {
        assert!(!required, "no Python has {module}, and WRIT_REQUIRE_SERVICES is set");
        eprintln!("SKIPPED: no Python has {module}");
    }
    found
}

/// Whether these programs are there; says so loudly if not.
pub(crate) fn programs(names: &[&str]) -> bool {
    #[expect(clippy::disallowed_methods, reason = "whether services must be there is said by whoever runs the tests")]
    let required = std::env::var_os("WRIT_REQUIRE_SERVICES").is_some();
    names.iter().all(|name| {
        let there = Command::new("sh").args(["-c", "command -v \"$0\"", name]).output().is_ok_and(|found| found.status.success());
        assert!(there || !required, "{name} is not installed, and WRIT_REQUIRE_SERVICES is set");
        if !there {
            eprintln!("SKIPPED: {name} is not installed");
        }
        there
    })
}

/// The lines that a script said; what went wrong is shown if it failed.
pub(crate) fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{} {}", out(&output), err(&output));
    out(&output).lines().map(str::to_owned).collect()
}
