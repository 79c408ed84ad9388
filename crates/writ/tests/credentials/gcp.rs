//! Google Cloud as its strict peer plays it, used by the official SDK (google-cloud-storage). Google takes no token back:
//! what the end of a task ends, and what it does not, is said here as it is.

use crate::lab::{Lab, Place, UNCONFIRMED_SECS, install_script, secret};
use crate::platform::{Platform, lines, of_tasks, programs, python_with};
use crate::served::text;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::peer::google::Google;
use testkit::peer::{rsa_pem, signed};

/// Longer than a token of the offer lives, in seconds.
const TOKEN_IS_OVER_SECS: i64 = UNCONFIRMED_SECS + 300 + 60;

/// Each argument is a call: `get BUCKET`, `put BUCKET`, `list`, or `wait`.
const USE: &str = r#"
import os, sys
from google.api_core.client_options import ClientOptions
from google.auth.exceptions import RefreshError
from google.cloud import storage
from google.oauth2.credentials import Credentials
token = open(os.environ["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"]).read()
client = storage.Client(project="p", credentials=Credentials(token), client_options=ClientOptions(api_endpoint=sys.argv[1]))
def call(what, bucket=None):
    if what == "wait":
        return sys.stdin.readline().strip()
    if what == "list":
        return next(iter(client.list_buckets(retry=None)), None)
    blob = client.bucket(bucket).blob("a")
    return blob.download_as_text(retry=None) if what == "get" else blob.upload_from_string("x", retry=None)
for one in sys.argv[2:]:
    try:
        print(call(*one.split()), flush=True)
    except RefreshError:
        print(401, flush=True)
    except Exception as error:
        print(int(error.code) if hasattr(error, "code") else error, flush=True)
"#;

impl Place for Platform<Google> {
    const TARGET: &'static str = "reports";
    const TAKES_BACK: bool = false;
    const READ: (&'static str, Option<&'static str>) = ("read_reports", None);

    fn target_file(&self, dir: &Path) -> String {
        self.write_ca(dir);
        r#"
kind = "gcp"
owner = "support"
description = "Reports."
[connect]
project_number = 123456
pool = "writ"
provider = "writ-prod"
issuer = "https://writ.example.com/federation"
assertion_key = { file = "secrets/assertion.pem" }
sts = { url = "URL", ca_file = "platform.pem" }
iam = { url = "URL", ca_file = "platform.pem" }
tokeninfo = { url = "URL", ca_file = "platform.pem" }
[offers.read_reports]
description = "Reads the reports."
lifetime_secs = 300
service_account = "reader@p.iam.gserviceaccount.com"
[[offers.read_reports.boundary]]
resource = "//storage.googleapis.com/projects/_/buckets/reports"
permissions = ["inRole:roles/storage.objectViewer"]
[offers.browse]
description = "Reads all that the account reads."
lifetime_secs = 300
service_account = "reader@p.iam.gserviceaccount.com"
scopes = ["https://www.googleapis.com/auth/devstorage.read_only"]
"#
        .replace("URL", &self.peer.url)
    }

    fn policy(&self) -> String {
        r#"@id("read-reports")
        permit (principal is Intent::Work, action in [Reports::Action::"browse", Reports::Action::"read_reports"], resource is Writ::Credential)
        when { principal.subject == "eu" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "assertion.pem", &rsa_pem());
        self.state().install(&install_script(dir, "reports"));
    }

    fn standing(&self) -> String {
        of_tasks(self.state().live())
    }

    fn later(&self, secs: i64) {
        self.set_ahead(secs);
    }
}

fn started() -> Lab<Platform<Google>> {
    let platform = Platform::start(Google::new, Google::answer);
    // The account may more than the offers give.
    let buckets = ["reports", "secrets"].map(str::to_owned).into();
    platform.state().roles.insert("reader@p.iam.gserviceaccount.com".to_owned(), buckets);
    Lab::start(platform)
}

pub(crate) fn lab() -> Option<(Lab<Platform<Google>>, PathBuf)> {
    python_with("google.cloud.storage").map(|python| (started(), python))
}

/// The script of a task that makes these calls.
fn uses(lab: &Lab<Platform<Google>>, python: &Path, calls: &[&str]) -> String {
    let calls: String = calls.iter().map(|call| format!(" \"{call}\"")).collect();
    let ca = lab.dir().join("platform.pem");
    format!("REQUESTS_CA_BUNDLE={} {} -c '{USE}' {}{calls}", ca.display(), python.display(), lab.place.peer.url)
}

#[test]
fn the_official_sdk_reads_what_its_task_may_and_nothing_else_and_after_the_task_only_the_clock_ends_it() {
    let Some((mut lab, python)) = lab() else { return };
    let script = uses(&lab, &python, &["get reports", "get secrets", "put reports", "list", "wait", "get reports"]);
    let mut session = lab.live(&script);
    assert_eq!(session.first, "the object a");
    for refused in ["another bucket of the same account", "writing", "the list of buckets"] {
        assert_eq!(session.line(), "403", "{refused}");
    }
    // Google vouches for nobody else: it was told for which task and agent this is.
    let claims = lab.place.state().vouched.last().cloned().unwrap();
    assert_eq!(text(&claims, "writ_agent"), "support-bot");
    assert!(text(&claims, "sub").starts_with("writ/read_reports/grt_"), "{claims}");
    lab.end_task();
    lab.stays_until_it_expires();
    session.go_on();
    assert_eq!(session.line(), "", "what was waited for");
    assert_eq!(session.line(), "the object a", "what cannot be taken back works on");
    session.end();
    lab.another_subject_gets_nothing();
    lab.doctor_is_content();
    lab.kill();
    if lab.goes_on_later(TOKEN_IS_OVER_SECS) {
        lab.over();
    }
}

#[test]
fn without_a_boundary_the_scope_of_a_token_says_what_it_is_for() {
    let Some((lab, python)) = lab() else { return };
    let browses = uses(&lab, &python, &["get secrets", "put secrets"]);
    assert_eq!(lines(&mut lab.command_with("eu", &[("browse", None)], &browses)), ["the object a", "403"]);
}

#[test]
fn a_token_is_dead_at_google_when_writ_says_so() {
    let Some((lab, python)) = lab() else { return };
    let mut session = lab.live(&uses(&lab, &python, &["get reports", "wait", "get reports"]));
    assert_eq!(session.first, "the object a");
    // As long as the offer says, whatever the account could have.
    lab.place.set_ahead(301);
    session.go_on();
    assert_eq!(session.line(), "");
    assert_eq!(session.line(), "401");
    lab.place.set_ahead(0);
    session.end();
    lab.asks_over_rest();
    assert_eq!(lines(&mut lab.command(&uses(&lab, &python, &["get reports"]))), ["the object a"]);
}

#[test]
fn killed_while_a_token_is_live_or_right_after_its_issue_writ_waits_for_its_end_and_then_nothing_is_left() {
    let Some((lab, python)) = lab() else { return };
    let uses = uses(&lab, &python, &["get reports", "wait"]);
    lab.waits_after_kills(&uses, TOKEN_IS_OVER_SECS);
}

#[test]
fn a_broker_turned_evil_is_the_accounts_that_were_bound_to_it_and_nobody_else() {
    if !programs(&["curl"]) {
        return;
    }
    let lab = started();
    let pem = fs::read_to_string(lab.dir().join("secrets/assertion.pem")).unwrap();
    let audience = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/writ/providers/writ-prod";
    let federated = |changed: (&str, &str), secs: i64| {
        let issuer = "https://writ.example.com/federation";
        let claims = lab.place.claims(&[("iss", issuer), ("aud", audience), ("sub", "writ/read_reports/grt_0"), changed], secs);
        let assertion = signed(&pem, &lab.place.state().key_set, &claims);
        let form = format!(
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&audience={audience}&subject_token={assertion}&\
             subject_token_type=urn:ietf:params:oauth:token-type:jwt"
        );
        lab.place.asked(lab.dir(), "/v1/token", &["-d", &form])
    };
    for (changed, secs) in [
        (("sub", "admin"), 120),
        (("sub", "writ"), 120),
        (("aud", "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/ci/providers/ci"), 120),
        (("iss", "https://ci.example.com"), 120),
        (("sub", "writ/read_reports/grt_1"), 86_400),
    ] {
        assert_eq!(federated(changed, secs).0, 403, "{changed:?} {secs}");
    }
    let (_, document) = federated(("sub", "writ/mine/grt_2"), 120);
    let foreign = document;
    let (_, document) = federated(("sub", "writ/read_reports/grt_2"), 120);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let principal = bearer(text(&document, "access_token"));
    let asks = |bearer: &str, path: &str, body: &str| {
        let args = if body.is_empty() { &["-H", bearer][..] } else { &["-H", bearer, "-d", body] };
        lab.place.asked(lab.dir(), path, args)
    };
    let account = |name: &str| format!("/v1/projects/-/serviceAccounts/{name}@p.iam.gserviceaccount.com:generateAccessToken");
    let all = "https://www.googleapis.com/auth/cloud-platform";
    let hour = json!({ "scope": [all], "lifetime": "3600s" }).to_string();
    assert_eq!(asks(&principal, &account("owner"), &hour).0, 403, "an account that was not bound");
    let foreign = bearer(text(&foreign, "access_token"));
    assert_eq!(asks(&foreign, &account("reader"), &hour).0, 403, "a principal of no offer");
    assert_eq!(asks(&principal, &account("reader"), &hour.replace("3600", "43200")).0, 400, "a longer life");
    assert_eq!(asks(&principal, "/storage/v1/b/reports/o/a", "").0, 401, "the principal itself reads nothing");
    // What is left to it, as the page says: the account as a whole, for an hour.
    let (_, document) = asks(&principal, &account("reader"), &hour);
    let reader = bearer(text(&document, "accessToken"));
    let reads = ["reports", "secrets", "payroll"].map(|bucket| asks(&reader, &format!("/storage/v1/b/{bucket}/o/a"), "").0);
    assert_eq!(reads, [200, 200, 403]);
    assert_eq!(asks(&reader, &account("owner"), &hour).0, 403);
}
