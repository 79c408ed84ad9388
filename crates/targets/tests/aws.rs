//! Claims about AWS against an emulator that is not ours (moto): it checks each Signature Version 4 and the policies of the
//! role, and the official SDK uses the session. Skips loudly where it is not installed (fails if WRIT_REQUIRE_SERVICES is
//! set). It reads no session policy, no tag, no source identity and no expiry: what a session may do at most is asked of
//! an evaluator in `e2e/containment`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod issuing;

use authority::target::{Acceptance, Minted, Target, TargetError};
use domain::Ending;
use issuing::{Request, Server, find, handle, has, open, run, target_config, until};
use secrecy::ExposeSecret;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = r#"
[connect]
region = "eu-central-1"
access_key_id = { file = "id" }
secret_access_key = { file = "secret" }
deny_policy_arn = "arn:aws:iam::123456789012:policy/WritDenied"
sts = { url = "URL" }
iam = { url = "URL" }

[offers.read_reports]
role_arn = "arn:aws:iam::123456789012:role/jit/reports-reader"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::reports/${prefix}/*"]
"#;

/// What the administrator of the account did; prints the broker's key.
const ACCOUNT: &str = include_str!("../testdata/aws/account.py");

/// What a task does with its session: one call of S3 by the unmodified SDK, which finds the session in its environment.
const USE: &str = r#"
import boto3, sys
url, call, bucket = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=url)
try:
    answer = {"get": s3.get_object, "delete": s3.delete_object}[call](Bucket=bucket, Key="2026/q3/a")
    print(answer["Body"].read().decode() if call == "get" else "deleted")
except Exception as error:
    print(error.response["Error"]["Code"])
"#;

struct Cloud {
    url: String,
    folder: tempfile::TempDir,
    python: PathBuf,
    _server: Server,
}

async fn cloud() -> Option<Cloud> {
    if !has(&["moto_server"]) {
        return None;
    }
    let program = std::fs::canonicalize(find("moto_server").unwrap().parent().unwrap()).unwrap().join("moto_server");
    let port = testkit::free_port();
    let mut command = Command::new(&program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", "1000");
    let server = Server::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    for _ in 0..6 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    until("moto listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let (url, folder) = (format!("http://127.0.0.1:{port}"), tempfile::tempdir().unwrap());
    let python = program.parent().unwrap().join("python3");
    let key = run(Command::new(&python).args(["-c", ACCOUNT, &url])).unwrap();
    let (id, secret) = key.trim().split_once(' ').unwrap();
    for (name, text) in [("id", id), ("secret", secret)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Some(Cloud { url, folder, python, _server: server })
}

impl Cloud {
    fn target(&self) -> Arc<dyn Target> {
        open(&target_config("aws", &FILE.replace("URL", &self.url), &["prefix"]), self.folder.path())
    }

    fn uses(&self, minted: &Minted, call: &str, bucket: &str) -> String {
        let mut sdk = Command::new(&self.python);
        sdk.args(["-c", USE, &self.url, call, bucket]).env_clear().env("AWS_DEFAULT_REGION", &minted.fields["region"]);
        sdk.env("AWS_ACCESS_KEY_ID", &minted.fields["access_key_id"]);
        sdk.env("AWS_SECRET_ACCESS_KEY", minted.secrets["secret_access_key"].expose_secret());
        sdk.env("AWS_SESSION_TOKEN", minted.secrets["session_token"].expose_secret());
        run(&mut sdk).unwrap().trim().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_issued_used_by_the_official_sdk_and_taken_back() {
    let Some(cloud) = cloud().await else { return };
    let target = cloud.target();
    let request = Request::new("read_reports", &[("prefix", "2026/q3")], None);
    let (plan, minted) = request.issue(&*target).await.unwrap();
    assert_eq!(target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    assert_eq!(cloud.uses(&minted, "get", "reports"), "the report");
    for (call, bucket) in [("delete", "reports"), ("get", "secrets")] {
        assert_eq!(cloud.uses(&minted, call, bucket), "AccessDenied", "{call} {bucket}");
    }
    // A session that was made up is none, and neither is a token with another secret.
    let mut forged = request.issue(&*target).await.unwrap().1;
    forged.secrets.insert("secret_access_key".to_owned(), "made-up".into());
    assert_eq!(target.try_use(&forged, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);

    // The end: denied by name, once, whatever was already done of it when the broker died.
    assert!(matches!(target.end(Ending::Verify, &handle(&plan)).await, Err(TargetError::Refused(_))), "not denied yet");
    for target in [&target, &cloud.target()] {
        let evidence = target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
        assert_eq!(evidence.facts.get("session").map(String::as_str), Some("denied"));
    }
    let evidence = cloud.target().end(Ending::Verify, &handle(&plan)).await.unwrap();
    assert!(evidence.again_at.is_some(), "IAM may need minutes: {evidence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_secret_is_wrong_gets_nothing() {
    let Some(cloud) = cloud().await else { return };
    let request = Request::new("read_reports", &[("prefix", "2026/q3")], None);
    request.issue(&*cloud.target()).await.unwrap();
    std::fs::write(cloud.folder.path().join("secret"), "not-the-secret").unwrap();
    let refused = request.issue(&*cloud.target()).await;
    let text = refused.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("SignatureDoesNotMatch") && !text.contains("not-the-secret"), "{text}");
}
