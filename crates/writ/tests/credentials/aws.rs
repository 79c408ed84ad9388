//! AWS as moto plays it, with its authorisation switched on, and the official SDK (boto3). What moto does not read (session
//! policies, expiry) is asked of an evaluator in `e2e/containment`. AWS cannot be asked whether a denial has settled, so the
//! end is seen here as the session's name in the deny policy; that it counts as dead five minutes later is the driver's test.

use crate::lab::{Lab, Place, err, secret};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// See its first line.
const ACCOUNT: &str = include_str!("../../../targets/testdata/aws/account.py");

/// The document of the deny policy, as the broker reads it.
const DENIED: &str = r#"
import boto3, json, os, sys
iam = boto3.client("iam", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])
arn = "arn:aws:iam::123456789012:policy/WritDenied"
version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
print("\n".join(document["Statement"][0]["Condition"]["StringLike"]["aws:userid"]))
"#;

/// One call of S3 by the SDK, which finds the session where `writ exec` put it.
const USE: &str = r#"
import boto3, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1])
call, bucket = sys.argv[2:]
try:
    answer = {"get": s3.get_object, "delete": s3.delete_object}[call](Bucket=bucket, Key="2026/q3/a")
    print(answer["Body"].read().decode() if call == "get" else "deleted", flush=True)
except Exception as error:
    print(error.response["Error"]["Code"], flush=True)
"#;

/// The account.
struct Cloud {
    url: String,
    python: PathBuf,
    key: (String, String),
    server: Child,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Cloud {
    /// Starts one, or says that there is no moto.
    fn start() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "where programs are, and whether they must be there")]
        let (path, required) = (std::env::var("PATH").unwrap_or_default(), std::env::var_os("WRIT_REQUIRE_SERVICES").is_some());
        let Some(bin) = path.split(':').map(Path::new).find(|folder| folder.join("moto_server").is_file()) else {
            assert!(!required, "moto is not installed, and WRIT_REQUIRE_SERVICES is set");
            eprintln!("SKIPPED: moto is not installed");
            return None;
        };
        let bin = fs::canonicalize(bin).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut moto = Command::new(bin.join("moto_server"));
        moto.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", "1000");
        let server = moto.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (url, python) = (format!("http://127.0.0.1:{port}"), bin.join("python3"));
        let mut cloud = Self { url, python, key: Default::default(), server };
        let begun = std::time::Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed().as_secs() < 60, "moto does not listen");
        }
        let key = cloud.python(ACCOUNT, &[&cloud.url]);
        cloud.key = key.split_once(' ').map(|(id, secret)| (id.to_owned(), secret.to_owned())).unwrap();
        Some(cloud)
    }

    fn python(&self, script: &str, args: &[&str]) -> String {
        let output = Command::new(&self.python).args(["-c", script]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", err(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The script of a task.
    fn uses(&self, call: &str, bucket: &str) -> String {
        format!("{} -c '{}' {} {call} {bucket}", self.python.display(), USE, self.url)
    }
}

impl Place for Cloud {
    const TARGET: &'static str = "reports";
    const READ: (&'static str, Option<&'static str>) = ("read_reports", None);

    fn target_file(&self, _dir: &Path) -> String {
        r#"
kind = "aws"
owner = "support"
description = "Reports."
[connect]
region = "eu-central-1"
access_key_id = { file = "secrets/id" }
secret_access_key = { file = "secrets/key" }
deny_policy_arn = "arn:aws:iam::123456789012:policy/WritDenied"
sts = { url = "URL" }
iam = { url = "URL" }
[offers.read_reports]
description = "Reads the reports of a quarter."
lifetime_secs = 300
role_arn = "arn:aws:iam::123456789012:role/jit/reports-reader"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::reports/2026/q3/*"]
"#
        .replace("URL", &self.url)
    }

    fn policy(&self) -> String {
        r#"@id("read-reports")
        permit (principal is Intent::Work, action == Reports::Action::"read_reports", resource is Writ::Credential)
        when { principal.subject == "eu" };"#
            .to_owned()
    }

    fn install(&self, dir: &Path) {
        secret(dir, "id", &self.key.0);
        secret(dir, "key", &self.key.1);
    }

    /// Names of denied sessions: nothing of ours stands at AWS.
    fn standing(&self) -> String {
        self.python(DENIED, &[&self.url, &self.key.0, &self.key.1])
    }
}

impl Lab<Cloud> {
    /// Waits until the session of the newest credential is denied.
    fn denied(&self) {
        let session = |id: &str| format!("*:lease-{}-", id.trim_start_matches("grt_"));
        self.until("the session is denied", || {
            let credential = self.credential();
            self.place.standing().lines().any(|line| line.starts_with(&session(crate::served::text(&credential, "id"))))
        });
    }
}

#[test]
fn the_official_sdk_does_what_its_task_may_and_nothing_else_and_then_the_session_is_denied() {
    let Some(cloud) = Cloud::start() else { return };
    let mut lab = Lab::start(cloud);
    assert_eq!(lab.says(&lab.place.uses("get", "reports")), "the report");
    lab.denied();
    for (call, bucket) in [("delete", "reports"), ("get", "secrets")] {
        assert_eq!(lab.says(&lab.place.uses(call, bucket)), "AccessDenied", "{call} {bucket}");
    }
    // What policy refuses is not asked of AWS.
    let before = lab.credentials().len();
    let output = lab.command_with("us", &[("read_reports", None)], "true").output().unwrap();
    assert!(!output.status.success() && err(&output).contains("read_reports"), "{}", err(&output));
    assert_eq!(lab.credentials().len(), before);
    // The end of the task, while its command runs.
    let session = lab.live(&format!("{}; read _", lab.place.uses("get", "reports")));
    assert_eq!(session.first, "the report");
    lab.end_task();
    lab.denied();
    drop(session.end());
    // Killed while a session lives: the next start takes it back.
    let mut session = lab.live(&format!("{}; read _", lab.place.uses("get", "reports")));
    lab.recorded();
    lab.kill();
    session.exec.kill().unwrap();
    session.exec.wait().unwrap();
    lab.again(|_| {});
    lab.denied();
}
