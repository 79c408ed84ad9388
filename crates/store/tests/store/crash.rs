//! Real kills and a real full disk: a child process writes, the parent does it harm.
//!
//! The child is this very test binary, running the ignored test [`child_writes`]; it reads its directory from
//! standard input and reports each acknowledged number on standard output.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use authority::ports::{Ledger, LedgerError};
use tempfile::TempDir;

use crate::rig::{check_log, numbered, try_open};

/// Committers that write at once in the child.
const WRITERS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started as a child process by the other tests of this file"]
async fn child_writes() {
    let mut dir = String::new();
    std::io::stdin().read_line(&mut dir).unwrap();
    let store = try_open(Path::new(dir.trim())).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    let number = round * WRITERS + writer;
                    let told = match store.commit(numbered(number)).await {
                        Ok(_) => format!("done {number}\n"),
                        Err(LedgerError::Unavailable(why) | LedgerError::Uncertain(why)) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            format!("refused {why}\n")
                        }
                        Err(other) => panic!("{other}"),
                    };
                    std::io::stdout().write_all(told.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Starts the child, behind a shell command if one is given.
fn start(dir: &Path, shell: &str) -> (Child, BufReader<ChildStdout>) {
    let me = std::env::current_exe().unwrap();
    let run = format!("{shell} exec '{}' --exact crash::child_writes --ignored --nocapture", me.display());
    let mut command = Command::new("sh");
    let mut child =
        command.args(["-c", &run]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", dir.display()).unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// What the child reported until `enough`, or until it ended.
fn read_until(output: &mut BufReader<ChildStdout>, mut enough: impl FnMut(&str) -> bool) -> Vec<u64> {
    let mut done = Vec::new();
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        // A line that the kill cut short says nothing.
        if let Some(number) = line.strip_suffix('\n').and_then(|line| line.strip_prefix("done ")) {
            done.push(number.parse().unwrap());
        }
        if enough(line.trim_end()) {
            break;
        }
        line.clear();
    }
    done
}

fn numbers(dir: &Path) -> Vec<u64> {
    check_log(dir).iter().map(|event| event["number"].as_u64().unwrap()).collect()
}

#[test]
fn a_killed_process_loses_no_acknowledged_entry() {
    let dir = TempDir::new().unwrap();
    let mut kept = 0;
    for round in 0_usize..12 {
        let (mut child, mut output) = start(dir.path(), "");
        let mut left = 5 + 37 * round;
        let mut done = read_until(&mut output, |_| {
            left -= 1;
            left == 0
        });
        child.kill().unwrap();
        child.wait().unwrap();
        done.extend(read_until(&mut output, |_| false));

        let store = try_open(dir.path()).unwrap();
        store.close();
        drop(store);
        let all = numbers(dir.path());
        let mut new: Vec<_> = all[kept..].to_vec();
        new.sort_unstable();
        assert!(new.windows(2).all(|pair| pair[0] != pair[1]), "an entry is there twice");
        for number in &done {
            assert!(new.binary_search(number).is_ok(), "entry {number} of round {round} is lost");
        }
        kept = all.len();
    }
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let dir = TempDir::new().unwrap();
    // Files of at most 300 blocks of 512 bytes; writes beyond fail as on a full disk, without a signal.
    let (mut child, mut output) = start(dir.path(), "trap '' XFSZ; ulimit -S -f 300;");
    let mut done = read_until(&mut output, |line| line.starts_with("refused "));
    assert!(!done.is_empty());
    // It goes on refusing, and never says that it is done.
    let mut refused = 0;
    let more = read_until(&mut output, |line| {
        refused += usize::from(line.starts_with("refused "));
        refused > 100
    });
    done.extend(more);
    let id = child.id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &id, "--fsize=unlimited:unlimited"]).status().unwrap();
    assert!(raised.success());
    let start = Instant::now();
    let mut recovered = 0;
    done.extend(read_until(&mut output, |line| {
        recovered += usize::from(line.starts_with("done "));
        assert!(start.elapsed() < Duration::from_secs(30), "it does not recover");
        recovered > 200
    }));
    child.kill().unwrap();
    child.wait().unwrap();
    done.extend(read_until(&mut output, |_| false));
    try_open(dir.path()).unwrap().close();
    let all = numbers(dir.path());
    for number in done {
        assert!(all.contains(&number), "entry {number} is lost");
    }
}
