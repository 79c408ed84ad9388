//! Azure as its strict peer plays it, used by the official SDK (azure-storage-blob). Entra takes no token back: what the
//! end of a task ends, and what it does not, is said here as it is.

use crate::lab::{Lab, Place, UNCONFIRMED_SECS, install_script, secret};
use crate::platform::{Platform, lines, of_tasks, programs, python_with};
use crate::served::text;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::peer::entra::Entra;
use testkit::peer::{rsa_pem, signed};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const APPLICATION: &str = "aaaaaaaa-0000-0000-0000-000000000001";
/// Of the same tenant, and nothing to us.
const OTHER_APPLICATION: &str = "bbbbbbbb-0000-0000-0000-000000000002";
/// Longer than Entra lets a token live after the offer's own life, in seconds.
const TOKEN_IS_OVER_SECS: i64 = UNCONFIRMED_SECS + 2 * 5_400;

/// Each argument is a call: `get CONTAINER`, `put CONTAINER`, or `wait`.
const USE: &str = r#"
import json, os, sys, time
from azure.core.credentials import AccessToken
from azure.storage.blob import BlobClient
token = json.load(open(os.environ["WRIT_CREDENTIAL_BLOBS_READ_BLOBS"]))["secrets"]["token"]
class Held:
    def get_token(self, *scopes, **options):
        return AccessToken(token, int(time.time()) + 3600)
def call(what, container=None):
    if what == "wait":
        return sys.stdin.readline().strip()
    client = BlobClient(sys.argv[1] + "/blobs", container, "a", credential=Held(), connection_verify=sys.argv[2], retry_total=0)
    return client.download_blob().readall().decode() if what == "get" else client.upload_blob(b"x", overwrite=True)
for one in sys.argv[3:]:
    try:
        print(call(*one.split()), flush=True)
    except Exception as error:
        print(getattr(error, "status_code", error), flush=True)
"#;

impl Place for Platform<Entra> {
    const TARGET: &'static str = "blobs";
    const TAKES_BACK: bool = false;
    const READ: (&'static str, Option<&'static str>) = ("read_blobs", None);

    fn target_file(&self, dir: &Path) -> String {
        self.write_ca(dir);
        r#"
kind = "azure"
owner = "support"
description = "Blobs."
[connect]
tenant = "TENANT"
issuer = "https://writ.example.com/federation"
assertion_key = { file = "secrets/assertion.pem" }
login = { url = "URL", ca_file = "platform.pem" }
resource = { url = "URL/blobs", ca_file = "platform.pem" }
[offers.read_blobs]
description = "Reads the shop's blobs."
lifetime_secs = 5400
client_id = "APPLICATION"
scope = "https://storage.azure.com/.default"
try_path = "/?comp=list"
"#
        .replace("URL", &self.peer.url)
        .replace("TENANT", TENANT)
        .replace("APPLICATION", APPLICATION)
    }

    fn policy(&self) -> String {
        r#"@id("read-blobs")
        permit (principal is Intent::Work, action == Blobs::Action::"read_blobs", resource is Writ::Credential)
        when { principal.subject == "eu" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "assertion.pem", &rsa_pem());
        self.state().install(&install_script(dir, "blobs"));
    }

    fn standing(&self) -> String {
        of_tasks(self.state().live())
    }

    fn later(&self, secs: i64) {
        self.set_ahead(secs);
    }
}

fn started() -> Lab<Platform<Entra>> {
    let platform = Platform::start(Entra::new, Entra::answer);
    for (application, container) in [(APPLICATION, "shop"), (OTHER_APPLICATION, "payroll")] {
        platform.state().roles.insert(application.to_owned(), container.to_owned());
    }
    Lab::start(platform)
}

pub(crate) fn lab() -> Option<(Lab<Platform<Entra>>, PathBuf)> {
    python_with("azure.storage.blob").map(|python| (started(), python))
}

/// The script of a task that makes these calls.
fn uses(lab: &Lab<Platform<Entra>>, python: &Path, calls: &[&str]) -> String {
    let calls: String = calls.iter().map(|call| format!(" \"{call}\"")).collect();
    let ca = lab.dir().join("platform.pem");
    format!("{} -c '{USE}' {} {}{calls}", python.display(), lab.place.peer.url, ca.display())
}

#[test]
fn the_official_sdk_reads_what_its_task_may_and_nothing_else_and_after_the_task_only_the_clock_ends_it() {
    let Some((mut lab, python)) = lab() else { return };
    let mut session = lab.live(&uses(&lab, &python, &["get shop", "get payroll", "put shop", "wait", "get shop"]));
    assert_eq!(session.first, "the blob a");
    for refused in ["another container", "writing"] {
        assert_eq!(session.line(), "403", "{refused}");
    }
    lab.end_task();
    lab.stays_until_it_expires();
    session.go_on();
    assert_eq!(session.line(), "", "what was waited for");
    assert_eq!(session.line(), "the blob a", "what cannot be taken back works on");
    session.end();
    lab.another_subject_gets_nothing();
    lab.asks_over_rest();
    lab.doctor_is_content();
    lab.kill();
    if lab.goes_on_later(TOKEN_IS_OVER_SECS) {
        lab.over();
    }
}

#[test]
fn a_token_that_entra_lets_live_too_long_is_not_handed_out_and_a_good_one_is_dead_when_its_time_is_over() {
    let Some((lab, python)) = lab() else { return };
    lab.place.state().lives_secs = 86_399;
    let refused = lab.run("echo it ran");
    assert!(!refused.status.success() && refused.stdout.is_empty());
    lab.place.state().lives_secs = 3_599;
    let mut session = lab.live(&uses(&lab, &python, &["get shop", "wait", "get shop"]));
    assert_eq!(session.first, "the blob a");
    lab.place.set_ahead(3_600);
    session.go_on();
    assert_eq!(session.line(), "");
    assert_eq!(session.line(), "401");
    lab.place.set_ahead(0);
    session.end();
    assert_eq!(lines(&mut lab.command(&uses(&lab, &python, &["get shop"]))), ["the blob a"]);
}

#[test]
fn killed_while_a_token_is_live_or_right_after_its_issue_writ_waits_for_its_end_and_then_nothing_is_left() {
    let Some((lab, python)) = lab() else { return };
    let uses = uses(&lab, &python, &["get shop", "wait"]);
    lab.waits_after_kills(&uses, TOKEN_IS_OVER_SECS);
}

#[test]
fn a_broker_turned_evil_is_the_applications_that_trust_it_and_nobody_else() {
    if !programs(&["curl"]) {
        return;
    }
    let lab = started();
    let pem = fs::read_to_string(lab.dir().join("secrets/assertion.pem")).unwrap();
    let asks = |application: &str, changed: (&str, &str), secs: i64, scope: &str| {
        let issuer = "https://writ.example.com/federation";
        let audience = "api://AzureADTokenExchange";
        let claims = lab.place.claims(&[("iss", issuer), ("aud", audience), ("sub", "writ/blobs/read_blobs"), changed], secs);
        let assertion = signed(&pem, &lab.place.state().key_set, &claims);
        let form = format!(
            "grant_type=client_credentials&client_id={application}&scope={scope}&client_assertion={assertion}&\
             client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        let (status, document) = lab.place.asked(lab.dir(), &format!("/{TENANT}/oauth2/v2.0/token"), &["-d", &form]);
        (status, text(&document, "access_token").to_owned())
    };
    let (storage, as_it_is) = ("https://storage.azure.com/.default", ("sub", "writ/blobs/read_blobs"));
    for (application, changed, secs) in [
        (OTHER_APPLICATION, as_it_is, 120),
        (APPLICATION, ("sub", "writ/blobs/other"), 120),
        (APPLICATION, ("iss", "https://ci.example.com"), 120),
        (APPLICATION, ("aud", "https://storage.azure.com"), 120),
        (APPLICATION, as_it_is, 86_400),
    ] {
        assert_eq!(asks(application, changed, secs, storage).0, 401, "{application} {changed:?} {secs}");
    }
    let reads = |token: &str, container: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        lab.place.asked(lab.dir(), &format!("/blobs/{container}/a"), &["-H", &bearer, "-H", "x-ms-version: 2021-12-02"]).0
    };
    // What is left to it, as the page says: the application with its roles, for each resource a token of its own.
    let token = asks(APPLICATION, as_it_is, 120, storage).1;
    assert_eq!(["shop", "payroll"].map(|container| reads(&token, container)), [200, 403]);
    let elsewhere = asks(APPLICATION, as_it_is, 120, "https://management.azure.com/.default").1;
    assert_eq!(reads(&elsewhere, "shop"), 401);
}
