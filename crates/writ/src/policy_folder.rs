//! The policy folder on disk: reading it whole, and noticing that it changed. What it says is the policy crate's; links
//! are not followed out of it, and its size is capped before anything is parsed.

use anyhow::{Context, bail};
use policy::{SourceFile, Sources};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Deepest nesting of folders.
const DEPTH_MAX: usize = 8;
/// Most files that are looked at.
const FILES_MAX: usize = 10_000;
/// Most text that is read, in bytes.
const TOTAL_BYTES_MAX: u64 = 128 * 1_024 * 1_024;

/// What a folder looked like: enough to notice a change without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp(Vec<(PathBuf, Option<SystemTime>, u64)>);

/// Where policy lives: the folder of the policies, and the one whose files say what targets offer.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    /// Policies, intents, tools, tests.
    pub(crate) policy: PathBuf,
    /// Target files, one `NAME.toml` each. It need not exist.
    pub(crate) targets: Option<PathBuf>,
}

impl Folders {
    /// A policy folder by itself. If it lies beside a `writ.toml`, so do its targets.
    pub(crate) fn of_policy(dir: PathBuf) -> Self {
        let root = dir.parent().filter(|root| root.join("writ.toml").is_file());
        let targets = root.map(|root| root.join("targets"));
        Self { policy: dir, targets }
    }

    /// All files of both.
    ///
    /// # Errors
    /// A folder or a file cannot be read, or there is too much of it.
    pub(crate) fn read(&self) -> anyhow::Result<Sources> {
        let mut sources = read(&self.policy)?;
        if let Some(dir) = self.targets.as_deref().filter(|dir| dir.is_dir()) {
            let files = read_below(dir, &target_files(dir)?)?;
            sources.files.extend(files.into_iter().map(|file| SourceFile { path: format!("targets/{}", file.path), ..file }));
        }
        Ok(sources)
    }

    /// What both look like now. What cannot be read looks changed.
    pub(crate) fn stamp(&self) -> Stamp {
        let targets = self.targets.as_deref().map(|dir| target_files(dir).unwrap_or_default());
        Stamp(stamp(&self.policy).0.into_iter().chain(stamp_of(targets.unwrap_or_default()).0).collect())
    }
}

/// The target files: directly in the folder, so that what their secrets are read from can lie below it.
fn target_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let of_target = |path: &PathBuf| path.parent() == Some(dir) && path.extension().is_some_and(|end| end == "toml");
    Ok(listed(dir)?.into_iter().filter(of_target).collect())
}

/// All files of a policy folder.
///
/// # Errors
/// The folder or a file cannot be read, or there is too much of it.
fn read(dir: &Path) -> anyhow::Result<Sources> {
    Ok(Sources { files: read_below(dir, &listed(dir)?)? })
}

fn read_below(dir: &Path, paths: &[PathBuf]) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut total = 0;
    for path in paths {
        let shown = || format!("`{}` cannot be read", path.display());
        total += fs::metadata(path).with_context(shown)?.len();
        if total > TOTAL_BYTES_MAX {
            bail!("`{}` holds more than {TOTAL_BYTES_MAX} bytes of policy", dir.display());
        }
        let text = fs::read_to_string(path).with_context(shown)?;
        files.push(SourceFile { path: relative(dir, path), text });
    }
    Ok(files)
}

/// What the folder looks like now. What cannot be read looks changed.
fn stamp(dir: &Path) -> Stamp {
    stamp_of(listed(dir).unwrap_or_default())
}

fn stamp_of(paths: Vec<PathBuf>) -> Stamp {
    let entry = |path: PathBuf| {
        let meta = fs::metadata(&path).ok();
        let changed = meta.as_ref().and_then(|meta| meta.modified().ok());
        (path, changed, meta.map_or(0, |meta| meta.len()))
    };
    Stamp(paths.into_iter().map(entry).collect())
}

fn relative(dir: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(dir).unwrap_or(path).components();
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The files that belong to the policy, in order.
fn listed(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("the folder `{}` cannot be read", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            let name = relative(dir, &path);
            if kind.is_dir() && depth < DEPTH_MAX && !entry.file_name().to_string_lossy().starts_with('.') {
                folders.push((path, depth + 1));
            } else if kind.is_file() && Sources::wants(&name) {
                found.push(path);
            }
            if found.len() > FILES_MAX {
                bail!("`{}` holds more than {FILES_MAX} files of policy", dir.display());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_files_of_the_policy_are_read_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("stray.cedar"), "permit (principal, action, resource);").unwrap();
        for (name, text) in [("a.cedar", "// a"), ("intents/x.toml", ""), ("README.md", "no"), (".git/c.toml", "no")] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(outside.path().join("stray.cedar"), dir.path().join("link.cedar")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("linked")).unwrap();
        let sources = read(dir.path()).unwrap();
        let names: Vec<_> = sources.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["a.cedar", "intents/x.toml"]);
    }

    #[test]
    fn target_files_belong_to_the_policy_and_what_lies_below_them_does_not() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("policy/a.cedar", "// a"),
            ("targets/orders-db.toml", "kind = \"postgresql\""),
            ("targets/secrets/orders-db.toml", "hush"),
            ("targets/notes.cedar", "// no"),
            ("writ.toml", ""),
        ] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        let folders = Folders::of_policy(dir.path().join("policy"));
        let names: Vec<_> = folders.read().unwrap().files.into_iter().map(|file| file.path).collect();
        assert_eq!(names, ["a.cedar", "targets/orders-db.toml"]);
        let before = folders.stamp();
        fs::write(dir.path().join("targets/orders-db.toml"), "kind = \"mysql\"").unwrap();
        assert_ne!(before, folders.stamp());
        fs::remove_file(dir.path().join("writ.toml")).unwrap();
        assert!(Folders::of_policy(dir.path().join("policy")).targets.is_none());
    }

    #[test]
    fn a_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.cedar"), "// a").unwrap();
        let before = stamp(dir.path());
        assert_eq!(before, stamp(dir.path()));
        fs::write(dir.path().join("a.cedar"), "// ab").unwrap();
        let changed = stamp(dir.path());
        assert_ne!(before, changed);
        fs::write(dir.path().join("b.cedar"), "").unwrap();
        assert_ne!(changed, stamp(dir.path()));
    }
}
