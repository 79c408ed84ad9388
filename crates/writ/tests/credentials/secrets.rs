//! Where secrets are not, for each kind of credential: the holder's and Writ's own. Neither in the server's log, nor on a
//! command line, nor in an environment that needs none, nor in the state and its write-ahead log, nor in a core file.

use crate::lab::{Lab, Place, err, out};
use crate::platform::Platform;
use crate::served::{Server, edit, serve, writ};
use crate::{azure, gcp, github, kubernetes, mysql, postgresql, redis, ssh, x509};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of these hold a line of the file `patterns`. The pattern is on no command line.
fn holding(patterns: &Path, places: &[&str]) -> Vec<String> {
    let mut grep = Command::new("sh");
    grep.args(["-c", "exec grep -rlasFf \"$0\" -- $PLACES"]).arg(patterns).env("PLACES", places.join(" "));
    out(&grep.output().unwrap()).lines().map(str::to_owned).collect()
}

/// A line of each secret that Writ itself has: in the middle of a key, or the whole of a password.
fn own_secrets(dir: &Path) -> String {
    let line = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("---")).collect();
        format!("{}\n", lines.get(lines.len() / 2).unwrap())
    };
    fs::read_dir(dir.join("secrets")).unwrap().map(|entry| line(entry.unwrap().path())).collect()
}

/// `tell` prints a secret of the holder; `in_environment` if its client takes it from there and from nowhere else.
fn is_nowhere<P: Place>(lab: &Lab<P>, tell: &str, in_environment: bool) {
    let home = tempfile::tempdir().unwrap();
    let patterns = home.path().join("secret");
    let mut session =
        lab.live(&format!("umask 077; ({tell}) > {p}.new; mv {p}.new {p}; echo ready; read line", p = patterns.display()));
    assert_eq!(session.first, "ready");
    let secret = fs::read_to_string(&patterns).unwrap();
    assert!(secret.trim().len() >= 43, "{tell}: 256 bits are longer");
    // The search finds what is there.
    assert!(!holding(&patterns, &[home.path().to_str().unwrap()]).is_empty());
    let dir = lab.dir().to_str().unwrap();
    assert_eq!(holding(&patterns, &[dir]), Vec::<String>::new(), "Writ's folder: log, state, write-ahead log");
    assert_eq!(holding(&patterns, &["/proc/[0-9]*/cmdline"]), Vec::<String>::new());
    let environments = holding(&patterns, &["/proc/[0-9]*/environ"]);
    if in_environment {
        for process in [lab.server.process.id(), session.exec.id()] {
            assert!(!environments.contains(&format!("/proc/{process}/environ")), "only of the command itself");
        }
    } else {
        assert_eq!(environments, Vec::<String>::new());
    }
    // What Writ holds itself: everywhere but in the folder where it is.
    fs::write(&patterns, own_secrets(lab.dir())).unwrap();
    assert!(!holding(&patterns, &[&format!("{dir}/secrets")]).is_empty());
    let others = [
        &format!("{dir}/data"),
        &format!("{dir}/serve.log"),
        &format!("{dir}/published"),
        "/proc/[0-9]*/cmdline",
        "/proc/[0-9]*/environ",
    ];
    assert_eq!(holding(&patterns, &others), Vec::<String>::new());
    // The server, the command, and everything that it starts leave no core file.
    for process in ["self", &lab.server.process.id().to_string(), &session.exec.id().to_string()] {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let none = core.split_whitespace().skip(4).take(2).all(|bound| bound == "0");
        assert!(none || process == "self", "{process}: {core}");
    }
    drop(session.exec.stdin.take());
    assert_eq!(session.line(), "");
    session.end();
    // With the task over, nothing of it appears anywhere either.
    lab.ended();
    fs::write(&patterns, secret).unwrap();
    assert_eq!(holding(&patterns, &[dir]), Vec::<String>::new());
}

/// What Writ held only for a moment: assertions, and tokens on the way to the one that is handed out. Neither does an error
/// tell of them, when a platform that refuses repeats what it was sent.
fn is_not_repeated<L: Place, P: Send + 'static>(lab: &Lab<L>, platform: &Platform<P>) {
    platform.echo(true);
    let output = lab.run("echo it ran");
    assert!(!output.status.success() && out(&output).is_empty(), "the platform refused");
    platform.echo(false);
    let shown = platform.shown();
    assert!(!shown.is_empty());
    let doctor = writ(lab.dir(), &["target", "doctor", L::TARGET]);
    for said in [&output, &doctor].map(|output| format!("{}{}", out(output), err(output))) {
        assert!(shown.lines().all(|secret| !said.contains(secret)), "{said}");
    }
    let home = tempfile::tempdir().unwrap();
    let patterns = home.path().join("shown");
    fs::write(&patterns, shown).unwrap();
    let ours = ["data", "serve.log", "published"].map(|name| lab.dir().join(name).display().to_string());
    assert_eq!(holding(&patterns, &ours.each_ref().map(String::as_str)), Vec::<String>::new());
}

#[test]
fn no_secret_of_any_kind_is_in_logs_process_lists_state_or_core_files() {
    if let Some(lab) = postgresql::lab() {
        is_nowhere(&lab, "cut -d: -f5 \"$PGPASSFILE\"", false);
    }
    if let Some(lab) = mysql::lab() {
        is_nowhere(&lab, "sed -n 's/^password=\"\\(.*\\)\"/\\1/p' \"$WRIT_CREDENTIAL_SHOP_DB_READ_ORDERS_DEFAULTS_FILE\"", false);
    }
    if let Some(lab) = redis::lab() {
        is_nowhere(&lab, "printenv REDISCLI_AUTH", true);
    }
    if let Some(lab) = ssh::lab() {
        is_nowhere(&lab, "sed -n 5p \"$(dirname \"$WRIT_SSH_CONFIG\")\"/*/id_ed25519", false);
    }
    if let Some(lab) = x509::lab() {
        is_nowhere(&lab, "sed -n 2p \"$WRIT_CREDENTIAL_INTERNAL_TLS_CALL_KEY_FILE\"", false);
    }
}

/// Those of the first two are kept, sealed, because only they can end themselves or prove their own death.
#[test]
fn no_token_of_a_platform_is_in_logs_process_lists_state_or_core_files() {
    if let Some(lab) = github::lab() {
        is_nowhere(&lab, "printenv GH_ENTERPRISE_TOKEN", true);
        is_not_repeated(&lab, &lab.place);
    }
    if let Some(lab) = kubernetes::lab() {
        is_nowhere(&lab, "cat \"$(dirname \"$KUBECONFIG\")\"/*/token", false);
        // A real server cannot be told to repeat what it was sent.
        if let kubernetes::Api::Played(platform) = &lab.place {
            is_not_repeated(&lab, platform);
        }
    }
    let token = |variable: &str| format!("sed -n 's/.*\"token\": \"\\(.*\\)\".*/\\1/p' \"${variable}\"");
    if let Some((lab, _)) = gcp::lab() {
        is_nowhere(&lab, &token("WRIT_CREDENTIAL_REPORTS_READ_REPORTS"), false);
        is_not_repeated(&lab, &lab.place);
    }
    if let Some((lab, _)) = azure::lab() {
        is_nowhere(&lab, &token("WRIT_CREDENTIAL_BLOBS_READ_BLOBS"), false);
        is_not_repeated(&lab, &lab.place);
    }
}

#[test]
fn nobody_of_the_same_user_reads_the_memory_or_the_environment_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    assert!(writ(dir.path(), &["init", "."]).status.success());
    edit(&dir.path().join("writ.toml"), "127.0.0.1:8700", "127.0.0.1:0");
    let nobody = fs::metadata(dir.path()).unwrap().uid() == 0;
    // Where it was built may be closed to others, as root's home is.
    let program = dir.path().join("program");
    if nobody {
        fs::copy(env!("CARGO_BIN_EXE_writ"), &program).unwrap();
        // Root reads everything: it runs as somebody else, and what the system then says of its files is what counts.
        assert!(Command::new("chown").args(["-R", "65534:65534"]).arg(dir.path()).status().unwrap().success());
    }
    let (process, serving) = serve(dir.path(), |serve| {
        if nobody {
            serve.env("PROGRAM", &program).uid(65_534).gid(65_534);
        }
    });
    let server = Server { dir, process };
    assert!(serving, "{}", fs::read_to_string(server.dir.path().join("serve.log")).unwrap());
    let owner = |name: &str| fs::metadata(format!("/proc/{}/{name}", server.process.id())).unwrap().uid();
    assert_eq!(["mem", "environ", "maps"].map(owner), [0, 0, 0], "a process that may be dumped belongs to its user there");
}
