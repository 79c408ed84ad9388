//! The policy folder on disk: reading it whole, and noticing that it changed. What it says is the policy crate's. Nothing that
//! seems to belong to it is left out in silence, because what is left out may be a `forbid`; its size is capped before anything
//! is parsed.

use anyhow::{Context, bail, ensure};
use policy::{SourceFile, Sources};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Deepest nesting of folders.
const DEPTH_MAX: usize = 8;
/// Most files that are looked at.
const FILES_MAX: usize = 10_000;
/// Most text that is read, in bytes.
const TOTAL_BYTES_MAX: u64 = 128 * 1_024 * 1_024;
/// How often a folder is read that changes meanwhile.
const READS_MAX: usize = 3;

/// What a folder looked like: enough to notice a change without reading it. The time of modification is whatever a copying
/// program wants it to be; that of the last change of the entry is the system's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stamp(Vec<(PathBuf, Option<Changed>)>);

/// Inode, size, and when it was last changed in any way, in seconds and nanoseconds.
type Changed = (u64, u64, i64, i64);

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

    /// All files of both as they stood at one time, and what they looked like then.
    ///
    /// # Errors
    /// A folder or a file cannot be read, there is too much of it, or it does not come to rest.
    pub(crate) fn read(&self) -> anyhow::Result<(Sources, Stamp)> {
        let mut before = self.stamp();
        for _ in 0..READS_MAX {
            let sources = self.read_once();
            // A file that is half written, or that went away between listing and reading, shows here.
            let after = self.stamp();
            if before == after {
                return Ok((sources?, after));
            }
            before = after;
        }
        bail!("`{}` changes while it is read: try again when it is at rest", self.policy.display())
    }

    fn read_once(&self) -> anyhow::Result<Sources> {
        let mut sources = read(&self.policy)?;
        if let Some(dir) = self.targets.as_deref().filter(|dir| dir.is_dir()) {
            let dir = resolved(dir)?;
            let files = read_below(&dir, &target_files(&dir)?)?;
            sources.files.extend(files.into_iter().map(|file| SourceFile { path: format!("targets/{}", file.path), ..file }));
        }
        Ok(sources)
    }

    /// What both look like now. What cannot be read looks changed.
    pub(crate) fn stamp(&self) -> Stamp {
        let targets = self.targets.as_deref().map(|dir| resolved(dir).and_then(|dir| target_files(&dir)).unwrap_or_default());
        Stamp(stamp(&self.policy).0.into_iter().chain(stamp_of(targets.unwrap_or_default()).0).collect())
    }
}

/// The folder itself, where a link leads to it: one that is turned to another version meanwhile gives the old one or the new
/// one, and no mixture.
fn resolved(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(dir).with_context(|| format!("the folder `{}` cannot be read", dir.display()))
}

/// The target files: directly in the folder, so that what their secrets are read from can lie below it.
fn target_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    listed(dir, |path| path.parent() == Some(dir) && path.extension().is_some_and(|end| end == "toml"), 0)
}

/// All files of a policy folder.
///
/// # Errors
/// The folder or a file cannot be read, or there is too much of it.
fn read(dir: &Path) -> anyhow::Result<Sources> {
    let dir = resolved(dir)?;
    Ok(Sources { files: read_below(&dir, &policy_files(&dir)?)? })
}

fn policy_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    listed(dir, |path| Sources::wants(&relative(dir, path)), DEPTH_MAX)
}

fn read_below(dir: &Path, paths: &[PathBuf]) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut left = TOTAL_BYTES_MAX;
    for path in paths {
        let shown = || format!("`{}` cannot be read", path.display());
        let mut text = String::new();
        // One byte more than there may be: so that a file which grows meanwhile ends the reading, too.
        let read = fs::File::open(path).and_then(|file| file.take(left + 1).read_to_string(&mut text));
        let read = u64::try_from(read.with_context(shown)?).unwrap_or(u64::MAX);
        ensure!(read <= left, "`{}` holds more than {TOTAL_BYTES_MAX} bytes of policy", dir.display());
        left -= read;
        files.push(SourceFile { path: relative(dir, path), text });
    }
    Ok(files)
}

/// What the folder looks like now. What cannot be read looks changed.
fn stamp(dir: &Path) -> Stamp {
    stamp_of(resolved(dir).and_then(|dir| policy_files(&dir)).unwrap_or_default())
}

/// What these files look like now.
pub(crate) fn stamp_of(paths: Vec<PathBuf>) -> Stamp {
    let changed = |meta: fs::Metadata| (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
    let entry = |path: PathBuf| {
        let meta = fs::metadata(&path).ok();
        (path, meta.map(changed))
    };
    Stamp(paths.into_iter().map(entry).collect())
}

fn relative(dir: &Path, path: &Path) -> String {
    let parts = path.strip_prefix(dir).unwrap_or(path).components();
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The wanted files in a folder and `depth` folders deep, in order. What looks like one and cannot be read as one is an error.
fn listed(dir: &Path, wanted: impl Fn(&Path) -> bool, depth: usize) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(dir.to_owned(), 0)];
    while let Some((folder, at)) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("the folder `{}` cannot be read", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if kind.is_dir() && depth > 0 {
                ensure!(at < depth, "`{}` lies deeper than {depth} folders: nothing in it would be read", path.display());
                folders.push((path, at + 1));
            } else if kind.is_symlink() && (wanted(&path) || depth > 0 && path.is_dir()) {
                bail!("`{}` is a link, and links in the folder are not followed: put what it leads to there", path.display());
            } else if wanted(&path) {
                ensure!(kind.is_file() || kind.is_dir(), "`{}` is not a file", path.display());
                found.extend(kind.is_file().then_some(path));
            }
            ensure!(found.len() <= FILES_MAX, "`{}` holds more than {FILES_MAX} files of policy", dir.display());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn only_files_of_the_policy_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        for (name, text) in [("a.cedar", "// a"), ("intents/x.toml", ""), ("README.md", "no"), (".git/c.toml", "no")] {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        // What editors leave about, and links to what is none of it.
        std::os::unix::fs::symlink("nowhere", dir.path().join(".#a.cedar")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join(".linked")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("NOTES")).unwrap();
        let sources = read(dir.path()).unwrap();
        let names: Vec<_> = sources.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["a.cedar", "intents/x.toml"]);
    }

    #[test]
    fn what_seems_to_belong_to_the_policy_is_not_left_out_in_silence() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("forbid.cedar"), "forbid (principal, action, resource);").unwrap();
        let link = |to: &Path, at: PathBuf| std::os::unix::fs::symlink(to, at).unwrap();
        for (case, why) in ["is a link", "is a link", "is a link", "lies deeper than 8", "UTF-8"].into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            fs::write(at("a.cedar"), "// a").unwrap();
            match case {
                0 => link(&outside.path().join("forbid.cedar"), at("forbid.cedar")),
                1 => link(outside.path(), at("shared")),
                2 => link(Path::new("gone"), at("gone.toml")),
                3 => fs::create_dir_all(at("1/2/3/4/5/6/7/8/9")).unwrap(),
                _ => fs::write(at("latin.cedar"), b"// caf\xe9").unwrap(),
            }
            let told = format!("{:#}", read(dir.path()).unwrap_err());
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_folder_that_a_link_is_turned_to_is_read_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        for version in ["one", "two"] {
            fs::create_dir(root.path().join(version)).unwrap();
            fs::write(root.path().join(version).join("a.cedar"), format!("// {version}")).unwrap();
        }
        let link = root.path().join("policy");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let paths = policy_files(&resolved(&link).unwrap()).unwrap();
        let folders = Folders { policy: link.clone(), targets: None };
        let (sources, before) = folders.read().unwrap();
        assert_eq!(sources.files[0].text, "// one");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
        // What was listed before is read from where it was listed.
        assert_eq!(fs::read_to_string(&paths[0]).unwrap(), "// one");
        assert_ne!(before, folders.stamp());
        assert_eq!(folders.read().unwrap().0.files[0].text, "// two");
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
        let names: Vec<_> = folders.read().unwrap().0.files.into_iter().map(|file| file.path).collect();
        assert_eq!(names, ["a.cedar", "targets/orders-db.toml"]);
        let before = folders.stamp();
        fs::write(dir.path().join("targets/orders-db.toml"), "kind = \"mysql\"").unwrap();
        assert_ne!(before, folders.stamp());
        fs::remove_file(dir.path().join("writ.toml")).unwrap();
        assert!(Folders::of_policy(dir.path().join("policy")).targets.is_none());
    }

    #[test]
    fn a_change_is_noticed_whatever_time_the_file_claims() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.cedar");
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        // As copying programs do that keep times, or set them all alike.
        let put = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::File::options().write(true).open(&new).unwrap().set_modified(at).unwrap();
            fs::rename(&new, &path).unwrap();
        };
        put("// 100");
        let before = stamp(dir.path());
        put("// 900");
        assert_ne!(before, stamp(dir.path()));
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
