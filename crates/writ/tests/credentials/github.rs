//! GitHub as its strict peer plays it (an Enterprise Server, by its URL), used by unmodified `git` and `gh`.

use crate::lab::{Lab, Place, UNCONFIRMED_SECS, at_target, install_script, secret};
use crate::platform::{Platform, lines, programs};
use crate::served::text;
use serde_json::json;
use std::fs;
use std::path::Path;
use testkit::peer::github::Hub;
use testkit::peer::{rsa_pem, signed};

/// When no token lives any more whose answer was lost: its hour and the offer's life after that, in seconds.
const TOKEN_IS_OVER_SECS: i64 = UNCONFIRMED_SECS + 3_600 + 300;

impl Place for Platform<Hub> {
    const TARGET: &'static str = "code";
    const READ: (&'static str, Option<&'static str>) = ("read_code", Some("repository=web"));

    fn target_file(&self, dir: &Path) -> String {
        self.write_ca(dir);
        r#"
kind = "github"
owner = "support"
description = "Source code."
[connect]
app_id = "Iv1.app"
installation_id = 42
private_key = { file = "secrets/app.pem" }
url = "URL/api/v3"
ca_file = "platform.pem"
[offers.read_code]
description = "Reads one repository."
lifetime_secs = 300
repositories = { web = 101, api = 102 }
repository_param = "repository"
permissions = { contents = "read" }
[offers.read_code.params.repository]
type = "string"
one_of = ["web", "api"]
description = "Which."
[offers.comment]
description = "Comments issues."
lifetime_secs = 300
repositories = { web = 101 }
permissions = { issues = "write" }
"#
        .replace("URL", &self.peer.url)
    }

    fn policy(&self) -> String {
        r#"@id("read-code")
        permit (principal is Intent::Work, action == Code::Action::"read_code", resource is Writ::Credential)
        when { principal.subject == "eu" && context.input.repository == "web" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "app.pem", &self.state().private_key);
        // The App has what is printed, and nothing else.
        let printed = install_script(dir, "code");
        let rights = printed.lines().filter_map(|line| line.strip_prefix("#   ")?.split_once(": "));
        self.state().permissions = rights.map(|(name, level)| (name.to_owned(), level.to_owned())).collect();
    }

    /// Tokens that work.
    fn standing(&self) -> String {
        self.state().live().join("\n")
    }

    fn later(&self, secs: i64) {
        self.set_ahead(secs);
    }
}

pub(crate) fn lab() -> Option<Lab<Platform<Hub>>> {
    if !programs(&["curl", "git", "gh"]) {
        return None;
    }
    let pem = rsa_pem();
    let platform = Platform::start(|now| Hub::new(now, &pem), Hub::answer);
    platform.state().fill();
    Some(Lab::start(platform))
}

/// A script with the clients in a home of their own.
fn shell(lab: &Lab<Platform<Hub>>, script: &str) -> String {
    format!(
        "export HOME=$(mktemp -d) GIT_SSL_CAINFO={ca} SSL_CERT_FILE={ca} FORGE={url} NO_COLOR=1; cd $HOME; \
         trap 'cd /; rm -rf $HOME' EXIT; said() {{ \"$@\" 2>&1 >/dev/null | grep -oE '(HTTP|error:) [0-9]+|not found' | tail -1; }}\n{script}",
        ca = lab.dir().join("platform.pem").display(),
        url = lab.place.peer.url,
    )
}

#[test]
fn unmodified_git_and_gh_read_what_their_task_may_and_nothing_else_and_then_it_is_over() {
    let Some(lab) = lab() else { return };
    let script = r#"
        git clone -q $FORGE/o/web.git && cat web/README.md
        gh api repos/o/web/contents/README.md --jq .repository
        gh api installation/repositories --jq .total_count
        said git clone -q $FORGE/o/api.git
        said gh api repos/o/api/contents/README.md
        said gh api -X POST repos/o/web/issues -f title=x
        said gh api repos/o/web/actions/secrets
        cd web; git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m two; said git push
        exit 0
    "#;
    let said = lines(&mut lab.command(&shell(&lab, script)));
    let refused = ["not found", "HTTP 404", "HTTP 403", "HTTP 403", "error: 403"];
    assert_eq!(said, [&["# o/web", "o/web", "1"][..], &refused].concat());
    lab.over();
    assert_eq!(text(&lab.credential(), "revoked_because"), "task_ended");
    lab.another_subject_gets_nothing();
    lab.asks_over_rest();
    lab.doctor_is_content();
    assert!(lab.json(&["target", "scan", "code"]).to_string().contains("installation-43"), "another door of the same key");
}

#[test]
fn the_end_of_the_task_ends_the_token_in_the_hands_of_its_command() {
    let Some(lab) = lab() else { return };
    let ask = "gh api installation/repositories --jq .total_count";
    let mut session =
        lab.live(&shell(&lab, &format!("{ask}; read _; said {ask}; said git ls-remote $FORGE/o/web.git; echo out")));
    assert_eq!(session.first, "1");
    lab.end_task();
    lab.over();
    session.go_on();
    assert_eq!(session.line(), "HTTP 401");
    // `git` asks its helper again, gets the same, and has nobody else to ask.
    assert_eq!(session.line(), "out");
}

#[test]
fn killed_while_a_token_is_live_it_is_revoked_and_one_whose_answer_was_lost_is_waited_for() {
    let Some(mut lab) = lab() else { return };
    let revoked = lab.place.state().revoked;
    lab.dies_while_it_is_live(&shell(&lab, "gh api installation/repositories --jq .total_count; read _"));
    assert!(lab.place.state().revoked > revoked);
    lab.killed_right_after_issue();
    lab.is_taken_back_by_the_next_start();
    if !lab.goes_on_later(UNCONFIRMED_SECS) {
        return;
    }
    // Only the token could revoke itself, and nobody has it: that is said, not glossed over.
    lab.stays_until_it_expires();
    lab.kill();
    if lab.goes_on_later(TOKEN_IS_OVER_SECS) {
        lab.over();
    }
    assert_eq!(at_target(&lab.credential()), "verified_dead");
}

#[test]
fn a_broker_turned_evil_gets_from_the_app_what_its_permissions_say_and_no_more() {
    let Some(lab) = lab() else { return };
    let pem = fs::read_to_string(lab.dir().join("secrets/app.pem")).unwrap();
    let vouched = |secs: i64| {
        let claims = lab.place.claims(&[("iss", "Iv1.app")], secs);
        format!("Authorization: Bearer {}", signed(&pem, &lab.place.state().key_set, &claims))
    };
    let asks = |vouched: &str, path: &str, args: &[&str]| lab.place.asked(lab.dir(), path, &[&["-H", vouched], args].concat());
    let tokens = "/api/v3/app/installations/42/access_tokens";
    for (wanted, status) in [
        (json!({ "permissions": { "contents": "write" } }), 422),
        (json!({ "permissions": { "contents": "read", "administration": "write" } }), 422),
        (json!({ "permissions": { "secrets": "read" }, "repository_ids": [101] }), 422),
        (json!({ "permissions": { "contents": "read" }, "repository_ids": [101, 103] }), 422),
    ] {
        let answered = asks(&vouched(540), tokens, &["-d", &wanted.to_string()]);
        assert_eq!(answered.0, status, "{wanted}: {answered:?}");
    }
    assert_eq!(asks(&vouched(86_400), tokens, &["-d", "{}"]).0, 401, "an assertion for a day");
    assert_eq!(asks(&vouched(540), "/api/v3/repos/o/web/contents/README.md", &[]).0, 401, "the key itself reads nothing");
    // What is left to it, as the page says: all that the App may, on all that it is installed on.
    let (status, all) = asks(&vouched(540), tokens, &["-d", "{}"]);
    assert_eq!(status, 201);
    assert_eq!(all.get("permissions"), Some(&json!({ "contents": "read", "issues": "write", "metadata": "read" })));
}
