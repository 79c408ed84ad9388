//! `writ init`: writes a working, commented configuration, a policy folder and development keys. Never overwrites.

use super::output::{self, Form};
use super::{Common, Failure};
use crate::dev_issuer::DevIssuer;
use crate::key_file;
use clap::Args;
use data_encoding::HEXLOWER;
use serde_json::json;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What stands in the folder, path and text.
const FILES: [(&str, &str); 10] = [
    ("writ.toml", include_str!("../init/writ.toml")),
    ("agents/support-bot.toml", include_str!("../init/agents/support-bot.toml")),
    ("policy/tasks.cedar", include_str!("../init/policy/tasks.cedar")),
    ("policy/helpdesk.cedar", include_str!("../init/policy/helpdesk.cedar")),
    ("policy/guardrails.cedar", include_str!("../init/policy/guardrails.cedar")),
    ("policy/intents/refund-order.toml", include_str!("../init/policy/intents/refund-order.toml")),
    ("policy/intents/answer-ticket.toml", include_str!("../init/policy/intents/answer-ticket.toml")),
    ("policy/tools/helpdesk.toml", include_str!("../init/policy/tools/helpdesk.toml")),
    ("policy/tools/helpdesk.lock.json", include_str!("../init/policy/tools/helpdesk.lock.json")),
    ("policy/tests/helpdesk.toml", include_str!("../init/policy/tests/helpdesk.toml")),
];

/// What must never be committed.
const IGNORED: &str = "# secrets and state\n/operator.secret\n/dev/\n/data/\n";

/// How long the sample agent's registration counts as reviewed.
const REVIEWED_DAYS: i32 = 180;

#[derive(Debug, Args)]
#[command(
    after_help = "Then:\n  writ serve --config DIR/writ.toml\n  writ demo --helpdesk 127.0.0.1:8701     the sample MCP server that the configuration names\n  writ policy test DIR/policy"
)]
pub(crate) struct InitArgs {
    /// The folder; created if it is not there.
    #[arg(required_unless_present = "options")]
    dir: Option<PathBuf>,
    /// Write nothing; print every option of the configuration and what it means (Markdown).
    #[arg(long, conflicts_with = "dir")]
    options: bool,
}

pub(crate) fn run(common: &Common, args: &InitArgs) -> Result<ExitCode, Failure> {
    let Some(dir) = &args.dir else {
        output::line(crate::config::markdown().trim_end());
        return Ok(ExitCode::SUCCESS);
    };
    let written = write(dir)?;
    match common.form() {
        Form::Json => output::json(&json!({ "dir": dir, "written": written })),
        Form::Human => {
            written.iter().for_each(|path| output::line(&format!("wrote {}", dir.join(path).display())));
            let shown = dir.display();
            output::line("");
            output::line("dev/issuer.key is for DEVELOPMENT ONLY: whoever reads it is every agent of provider `dev`.");
            output::line("");
            output::line(&format!(
                "next: writ demo --helpdesk 127.0.0.1:8701 &      the sample MCP server\n      writ serve --config {shown}/writ.toml &\n      writ agent list --config {shown}/writ.toml"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes everything; gives the paths that were written.
///
/// # Errors
/// One of the files is there already, or cannot be written: then nothing was.
pub(crate) fn write(dir: &Path) -> Result<Vec<String>, Failure> {
    let keys = ["operator.secret", "dev/issuer.key", "dev/jwks.json", ".gitignore"];
    let paths: Vec<String> = FILES.iter().map(|(path, _)| *path).chain(keys).map(str::to_owned).collect();
    if let Some(there) = paths.iter().find(|path| dir.join(path).symlink_metadata().is_ok()) {
        return Err(Failure::usage(format!("`{}` is there already", dir.join(there).display()))
            .why("init never overwrites")
            .next("name a folder that is empty or not there"));
    }
    let mut made = Vec::new();
    match make_folders(dir, &mut made).and_then(|()| put_all(dir)) {
        Ok(()) => Ok(paths),
        Err(failure) => {
            // None of them was there before: the next attempt must not stumble over half of a folder.
            paths.iter().for_each(|path| drop(fs::remove_file(dir.join(path))));
            // Those within come first; one that somebody put something into meanwhile stays.
            made.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
            Err(failure
                .next("name a folder that is empty or not there, and that you may write to; nothing of this attempt is left"))
        }
    }
}

/// Makes the folders that are not there, and notes those that it `made`.
fn make_folders(dir: &Path, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    make_folder(dir, 0o755, made)?;
    for (path, _) in FILES {
        dir.join(path).parent().map_or(Ok(()), |folder| make_folder(folder, 0o755, made))?;
    }
    make_folder(&dir.join("dev"), 0o700, made)
}

fn make_folder(folder: &Path, mode: u32, made: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    folder.parent().map_or(Ok(()), |parent| make_folder(parent, 0o755, made))?;
    match fs::DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => made.push(folder.to_owned()),
        // By somebody else, just now.
        Err(_) if folder.is_dir() => {}
        Err(error) => return Err(Failure::new(format!("folder `{}` cannot be made", folder.display())).why(error.to_string())),
    }
    Ok(())
}

fn put_all(dir: &Path) -> Result<(), Failure> {
    let unwritten = |path: &str| {
        let what = format!("`{}` cannot be written", dir.join(path).display());
        move |error: std::io::Error| Failure::new(what).why(error.to_string())
    };
    let secret = crate::system::random_text::<32>();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    let sha256 = HEXLOWER.encode(digest.as_ref());
    for (path, text) in FILES {
        let text = text.replace("@SECRET_SHA256@", &sha256).replace("@REVIEW_BY@", &review_by());
        key_file::put_public(&dir.join(path), text.as_bytes()).map_err(unwritten(path))?;
    }
    key_file::put_public(&dir.join(".gitignore"), IGNORED.as_bytes()).map_err(unwritten(".gitignore"))?;
    let failed = |error: anyhow::Error| Failure::from(error);
    key_file::create(&dir.join("operator.secret"), format!("{secret}\n").as_bytes()).map_err(|error| failed(error.into()))?;
    key_file::create_private_dir(&dir.join("dev")).map_err(|error| failed(error.into()))?;
    DevIssuer::create(&dir.join("dev/issuer.key"), &dir.join("dev/jwks.json")).map_err(failed)
}

/// The date until which the sample agent's registration counts.
fn review_by() -> String {
    let today = jiff::Timestamp::from_second(crate::system::now().secs()).map(|now| now.to_zoned(jiff::tz::TimeZone::UTC).date());
    let later = today.and_then(|today| today.checked_add(jiff::Span::new().days(REVIEWED_DAYS)));
    later.map_or_else(|_| "2027-01-01".to_owned(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_init_writes_is_a_valid_configuration_and_policy() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        write(&target).unwrap();
        let config = crate::config::load_with(&target.join("writ.toml"), &|_| None);
        let config = config.unwrap_or_else(|refused| unreachable!("{:?}", refused.0));
        assert_eq!(config.agents.len(), 1);
        let sources = config.policy.read().unwrap().0;
        let compiled = policy::Policy::compile(&sources).unwrap();
        assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
        let report = policy::run_tests(&compiled.policy, &sources);
        let failures: Vec<_> = report.cases.iter().filter_map(|case| case.failure.as_ref()).collect();
        assert!(report.faults.is_empty() && failures.is_empty(), "{:?} {failures:?}", report.faults);
        assert!(report.cases.len() > 10);
    }

    #[test]
    fn init_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let before = fs::read(dir.path().join("writ.toml")).unwrap();
        assert!(write(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join("writ.toml")).unwrap(), before);
        let empty = tempfile::tempdir().unwrap();
        fs::write(empty.path().join("operator.secret"), "mine").unwrap();
        assert!(write(empty.path()).is_err());
        assert!(!empty.path().join("writ.toml").exists(), "nothing is written if anything is there");
    }

    #[test]
    fn what_failed_leaves_nothing_of_its_own_and_all_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        // So deep that the shorter of the files can be written, and the longer ones cannot.
        let mut deep = dir.path().join("new");
        while deep.as_os_str().len() < 3_850 {
            deep.push("x".repeat(200));
        }
        deep.push("x".repeat(4_068 - 1 - deep.as_os_str().len()));
        assert!(write(&deep).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a folder was left");

        fs::create_dir(dir.path().join("agents")).unwrap();
        fs::write(dir.path().join("dev"), "mine").unwrap();
        assert!(write(dir.path()).is_err());
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.collect();
        left.sort();
        assert_eq!(left, ["agents", "dev"]);
        assert_eq!(fs::read_to_string(dir.path().join("dev")).unwrap(), "mine");
    }
}
