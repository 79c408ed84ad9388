//! GitHub as an App and a holder of its installation tokens see it: it verifies the App's JWT, answers 422 to what is no
//! subset of the App's rights, lets tokens live one hour and takes them back, and enforces at each route what a token is
//! for. Its repositories are real ones of `git`, read over the dumb protocol. What it cannot show: how fast the real
//! service forgets a token.
#![expect(clippy::indexing_slicing, reason = "test support fails by panicking")]

use super::{Answer, Now, Seen, in_time, key_set, rfc3339, token, verified};
use crate::server::Folder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// Seconds that a token lives, whatever is asked.
const TOKEN_SECS: i64 = 3_600;
/// The longest that an App's JWT may be valid, with the minute by which it may be dated back.
const JWT_SECS: i64 = 660;

/// A token that it gave.
#[derive(Debug, Clone)]
struct Issued {
    permissions: BTreeMap<String, String>,
    repositories: Vec<u64>,
    expires_at: i64,
}

/// One App with one installation.
pub struct Hub {
    now: Now,
    app: String,
    /// What the App's assertions are verified with.
    pub key_set: String,
    /// What its administrator downloaded.
    pub private_key: String,
    installation: u64,
    /// What the App may.
    pub permissions: BTreeMap<String, String>,
    /// The installation's repositories: id and name with owner.
    repositories: BTreeMap<u64, String>,
    /// Bare repositories `OWNER/NAME.git` of `git`.
    folder: Option<Folder>,
    /// It gives every repository to every token, as a fault of the platform might.
    pub generous: bool,
    /// How many tokens were taken back.
    pub revoked: usize,
    tokens: BTreeMap<String, Issued>,
}

impl Hub {
    /// An App `Iv1.app` of this key (PEM) with installation 42 on the repositories 101 (`o/web`), 102 (`o/api`).
    #[must_use]
    pub fn new(now: Now, private_key: &str) -> Self {
        let rights = [("contents", "read"), ("issues", "write")];
        Self {
            now,
            app: "Iv1.app".to_owned(),
            key_set: key_set(private_key),
            private_key: private_key.to_owned(),
            installation: 42,
            permissions: rights.map(|(name, level)| (name.to_owned(), level.to_owned())).into(),
            repositories: BTreeMap::from([(101, "o/web".to_owned()), (102, "o/api".to_owned())]),
            folder: None,
            generous: false,
            revoked: 0,
            tokens: BTreeMap::new(),
        }
    }

    /// Puts a `README.md` into each repository, with the real `git`.
    ///
    /// # Panics
    /// There is no `git`.
    pub fn fill(&mut self) {
        let folder = Folder::own();
        let script = "set -e; git init -q -b main work; cd work; echo \"# $1\" > README.md; git add .; \
                      git -c user.name=a -c user.email=a@example.org commit -qm one; cd ..; \
                      git clone -q --bare work \"$1.git\"; git -C \"$1.git\" update-server-info; rm -rf work";
        for name in self.repositories.values() {
            assert!(Command::new("sh").args(["-c", script, "fill", name]).current_dir(&folder.0).status().unwrap().success());
        }
        self.folder = Some(folder);
    }

    /// Tokens that work at this moment.
    #[must_use]
    pub fn live(&self) -> Vec<String> {
        let now = (self.now)();
        self.tokens.iter().filter(|(_, issued)| issued.expires_at > now).map(|(token, _)| token.clone()).collect()
    }

    /// Answers one request.
    pub fn answer(&mut self, seen: &Seen) -> Answer {
        let path = seen.path.strip_prefix("/api/v3").unwrap_or(&seen.path);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let method = seen.method.as_str();
        match (method, parts.as_slice()) {
            (_, ["app", rest @ ..]) => self.as_app(seen, method, rest),
            (_, ["installation", what]) => self.as_installation(seen, method, what),
            (_, ["repos", owner, name, rest @ ..]) => self.repository(seen, method, &format!("{owner}/{name}"), rest),
            ("GET", [owner, name, rest @ ..]) if name.ends_with(".git") => {
                self.git(seen, query, &format!("{owner}/{}", name.trim_end_matches(".git")), rest)
            }
            _ => refused(404, "Not Found"),
        }
    }

    fn as_app(&mut self, seen: &Seen, method: &str, rest: &[&str]) -> Answer {
        let claims = verified(&seen.bearer(), &self.key_set).unwrap_or_default();
        if claims["iss"] != self.app.as_str() || !in_time(&claims, (self.now)(), JWT_SECS) {
            return refused(401, "A JSON web token could not be decoded");
        }
        let installation = self.installation.to_string();
        match (method, rest) {
            ("GET", []) => Answer::json(200, &json!({ "permissions": self.permissions })),
            ("GET", ["installations"]) => {
                Answer::json(200, &json!([{ "id": self.installation }, { "id": 43, "account": { "login": "other" } }]))
            }
            ("GET", ["installations", id]) if *id == installation => {
                Answer::json(200, &json!({ "id": self.installation, "repository_selection": "all", "suspended_at": null }))
            }
            ("POST", ["installations", id, "access_tokens"]) if *id == installation => self.issue(&seen.json()),
            _ => refused(404, "Not Found"),
        }
    }

    fn issue(&mut self, wanted: &Value) -> Answer {
        // What is left out is everything that the installation has.
        let all = || self.repositories.keys().copied().collect::<Vec<_>>();
        let ids: Vec<u64> = wanted.get("repository_ids").map_or_else(all, |ids| serde_json::from_value(ids.clone()).unwrap());
        let rights = wanted.get("permissions").map(|rights| serde_json::from_value(rights.clone()).unwrap());
        let mut permissions: BTreeMap<String, String> = rights.unwrap_or_else(|| self.permissions.clone());
        let within = |(name, level): (&String, &String)| self.permissions.get(name).is_some_and(|has| covers(has, level));
        if !permissions.iter().all(within) || ids.iter().any(|id| !self.repositories.contains_key(id)) {
            return refused(422, "The permissions requested are not granted to this installation.");
        }
        permissions.insert("metadata".into(), "read".into());
        let ids = if self.generous { all() } else { ids };
        let token = token(&format!("ghs_{}_{}", self.app, "0".repeat(460)));
        let expires_at = (self.now)() + TOKEN_SECS;
        let repositories: Vec<_> = ids.iter().map(|id| json!({ "id": id, "full_name": self.repositories[id] })).collect();
        let body = json!({ "token": token, "expires_at": rfc3339(expires_at), "permissions": permissions,
            "repository_selection": "selected", "repositories": repositories });
        self.tokens.insert(token, Issued { permissions, repositories: ids, expires_at });
        Answer::json(201, &body)
    }

    fn known(&self, seen: &Seen) -> Option<&Issued> {
        self.tokens.get(&seen.bearer()).filter(|issued| issued.expires_at > (self.now)())
    }

    fn as_installation(&mut self, seen: &Seen, method: &str, what: &str) -> Answer {
        let Some(issued) = self.known(seen) else { return refused(401, "Bad credentials") };
        match (method, what) {
            ("GET", "repositories") => {
                let repositories: Vec<_> =
                    issued.repositories.iter().map(|id| json!({ "id": id, "full_name": self.repositories[id] })).collect();
                Answer::json(200, &json!({ "total_count": repositories.len(), "repositories": repositories }))
            }
            ("DELETE", "token") => {
                self.tokens.remove(&seen.bearer());
                self.revoked += 1;
                Answer { status: 204, ..Answer::default() }
            }
            _ => refused(404, "Not Found"),
        }
    }

    /// What stands in the way of this: a repository that the token does not reach looks as if it were not there.
    fn forbids(&self, seen: &Seen, repository: &str, permission: &str, level: &str) -> Option<Answer> {
        let Some(issued) = self.known(seen) else { return Some(refused(401, "Bad credentials")) };
        let reached = issued.repositories.iter().any(|id| self.repositories[id] == repository);
        if !reached {
            return Some(refused(404, "Not Found"));
        }
        let may = issued.permissions.get(permission).is_some_and(|has| covers(has, level));
        (!may).then(|| refused(403, "Resource not accessible by integration"))
    }

    fn repository(&self, seen: &Seen, method: &str, name: &str, rest: &[&str]) -> Answer {
        let (permission, level, status) = match (method, rest) {
            ("GET", ["contents", _]) => ("contents", "read", 200),
            ("PUT", ["contents", _]) => ("contents", "write", 201),
            ("GET", ["issues"]) => ("issues", "read", 200),
            ("POST", ["issues"]) => ("issues", "write", 201),
            ("GET", ["actions", "secrets"]) => ("secrets", "read", 200),
            _ => return refused(404, "Not Found"),
        };
        let answer = || Answer::json(status, &json!({ "repository": name, "name": rest.last() }));
        self.forbids(seen, name, permission, level).unwrap_or_else(answer)
    }

    /// The dumb protocol: files, after who asks has shown what for.
    fn git(&self, seen: &Seen, query: &str, name: &str, rest: &[&str]) -> Answer {
        let level = if query.contains("git-receive-pack") { "write" } else { "read" };
        if let Some(answer) = self.forbids(seen, name, "contents", level) {
            let asked = if answer.status == 401 { answer.with("www-authenticate", "Basic realm=\"GitHub\"") } else { answer };
            return asked;
        }
        let inside = rest.iter().all(|part| !part.starts_with('.'));
        let place = self.folder.as_ref().map(|folder| folder.0.join(format!("{name}.git")).join(rest.join("/")));
        match place.and_then(|place| std::fs::read(place).ok()) {
            Some(file) if inside => Answer::bytes(200, "text/plain", file),
            _ => refused(404, "Not Found"),
        }
    }
}

fn covers(has: &str, level: &str) -> bool {
    has == level || has == "write"
}

fn refused(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({ "message": message }))
}
