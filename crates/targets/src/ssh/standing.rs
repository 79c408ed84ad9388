//! Keys that stand in `authorized_keys` files without an end (R15). Owns the reading of that file format (sshd(8)); it
//! never changes one, and it does not fetch them from hosts.

use authority::target::{Standing, TargetError};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// Most files that are read.
const FILES_MAX: usize = 10_000;

/// Every key of every file of a folder: `authorized_keys` files as they were collected from the hosts.
pub(super) fn folder(path: &Path) -> Result<Vec<Standing>, TargetError> {
    let failed = |error: std::io::Error| TargetError::Unreachable(format!("`{}`: {error}", path.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)?.take(FILES_MAX) {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        found.extend(keys(path)?);
    }
    Ok(found)
}

fn keys(path: &Path) -> Result<Vec<Standing>, TargetError> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| TargetError::Unreachable(format!("`{}`: {error}", path.display())))?;
    Ok(text.lines().enumerate().filter_map(|(index, line)| key(&format!("{}:{}", path.display(), index + 1), line)).collect())
}

fn key(place: &str, line: &str) -> Option<Standing> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (options, key) = split(line)?;
    let has = |option: &str| options.iter().any(|found| found == option || found.starts_with(&format!("{option}=")));
    let mut words = key.split_whitespace();
    let (algorithm, comment) = (words.next()?, words.nth(1).unwrap_or_default());
    let mut flags = Vec::new();
    for (flag, raised) in [
        ("no_expiry", !has("expiry-time") && !has("cert-authority")),
        ("superuser", !has("command") && !has("restrict") && !has("cert-authority")),
        ("anywhere", !has("from")),
        ("owner_unknown", comment.is_empty()),
        ("weak", matches!(algorithm, "ssh-rsa" | "ssh-dss")),
    ] {
        if raised {
            flags.push(flag);
        }
    }
    let command = options.iter().find_map(|option| option.strip_prefix("command=")).unwrap_or("\"/usr/local/sbin/COMMAND\"");
    Some(Standing {
        name: place.to_owned(),
        kind: if has("cert-authority") { "cert_authority" } else { "authorized_key" },
        flags,
        details: BTreeMap::from([("algorithm", algorithm.to_owned()), ("comment", comment.to_owned())]),
        proposal: format!(
            "[offers.NAME]\ndescription = \"replaces a key of {place}\"\nuser = \"USER\"\nprincipals = [\"ROLE\"]\nforce_command = {command}\nlifetime_secs = 300\n"
        ),
    })
}

/// The options and the rest; options hold quoted text in which blanks and commas stand for themselves.
fn split(line: &str) -> Option<(Vec<String>, &str)> {
    let is_key = |text: &str| text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-");
    if is_key(line) {
        return Some((Vec::new(), line));
    }
    let (mut quoted, mut escaped) = (false, false);
    let (mut options, mut current) = (Vec::new(), String::new());
    for (index, letter) in line.char_indices() {
        match letter {
            '"' if !escaped => quoted = !quoted,
            ',' if !quoted => {
                options.push(std::mem::take(&mut current));
                continue;
            }
            ' ' | '\t' if !quoted => {
                options.push(current);
                let rest = line.get(index..)?.trim_start();
                return is_key(rest).then_some((options, rest));
            }
            _ => {}
        }
        escaped = letter == '\\' && !escaped;
        current.push(letter);
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_key_without_end_or_bound_is_flagged() {
        for (line, flags) in [
            ("ssh-ed25519 AAAA ops@laptop", vec!["no_expiry", "superuser", "anywhere"]),
            ("ssh-rsa AAAA", vec!["no_expiry", "superuser", "anywhere", "owner_unknown", "weak"]),
            ("from=\"10.0.0.1\",command=\"a, b\",expiry-time=\"20270101\" ssh-ed25519 AAAA x", vec![]),
            ("cert-authority,principals=\"web\" ssh-ed25519 AAAA x", vec!["anywhere"]),
        ] {
            assert_eq!(key("f:1", line).unwrap().flags, flags, "{line}");
        }
        assert!(key("f:1", "# comment").is_none());
        assert!(key("f:1", "command=\"unclosed ssh-ed25519 AAAA").is_none());
    }
}
