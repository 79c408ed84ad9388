//! Against a strict peer of STS and IAM: it checks each Signature Version 4 with an implementation of its own, the limits
//! of `AssumeRole`, and keeps versions of the deny policy as IAM does. What it cannot show: how AWS evaluates policies,
//! and how long a new version takes to hold everywhere.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Still, configured, opened, planned};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::sync::Mutex;
use testkit::peer::{Peer, Seen};

const FILE: &str = r#"
[connect]
region = "eu-central-1"
access_key_id = { env = "ID" }
secret_access_key = { env = "SECRET" }
external_id = "writ-prod"
deny_policy_arn = "arn:aws:iam::123456789012:policy/WritDenied"
sts = { url = "URL" }
iam = { url = "URL" }

[offers.read_reports]
role_arn = "arn:aws:iam::123456789012:role/jit/reports-reader"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::reports/${prefix}/*"]
regions = ["eu-central-1"]
"#;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The signature as AWS General Reference describes it, from the secret and what came over the wire.
fn signature(secret: &str, service: &str, region: &str, seen: &Seen, signed_headers: &str) -> String {
    let header = |name: &str| seen.headers.get(name).unwrap().to_str().unwrap().to_owned();
    let canonical_headers: String = signed_headers.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let body = hex(digest(&SHA256, &seen.body).as_ref());
    let request = format!("POST\n/\n\n{canonical_headers}\n{signed_headers}\n{body}");
    let at = header("x-amz-date");
    let day = at.split('T').next().unwrap().to_owned();
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(digest(&SHA256, request.as_bytes()).as_ref()));
    let mac = |key: &[u8], data: &str| sign(&Key::new(HMAC_SHA256, key), data.as_bytes()).as_ref().to_vec();
    let key =
        [region, service, "aws4_request"].iter().fold(mac(format!("AWS4{secret}").as_bytes(), &day), |key, part| mac(&key, part));
    hex(&mac(&key, &text))
}

struct Cloud {
    /// Access key id, secret, token.
    sessions: Vec<(String, String, String)>,
    assumed: Vec<BTreeMap<String, String>>,
    /// Number and document of each version; the last is in force.
    versions: Vec<(u32, String)>,
    next: u32,
}

impl Cloud {
    fn secret(&self, id: &str, token: Option<&str>) -> Option<String> {
        if id == "AKIABROKER" {
            return token.is_none().then(|| "broker-secret".to_owned());
        }
        self.sessions.iter().find(|session| session.0 == id && Some(session.2.as_str()) == token).map(|session| session.1.clone())
    }

    /// The access key that a call is signed with, if the signature is right.
    fn caller(&self, seen: &Seen) -> Option<String> {
        let header = seen.headers.get("authorization")?.to_str().ok()?;
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
        let (credential, rest) = rest.split_once(", SignedHeaders=")?;
        let (signed_headers, given) = rest.split_once(", Signature=")?;
        let parts: Vec<_> = credential.split('/').collect();
        let token = seen.headers.get("x-amz-security-token").map(|token| token.to_str().unwrap());
        let bound = ["host", "x-amz-date"].iter().all(|name| signed_headers.split(';').any(|signed| signed == *name));
        let secret = self.secret(parts[0], token)?;
        (bound && signature(&secret, parts[3], parts[2], seen, signed_headers) == given).then(|| parts[0].to_owned())
    }

    fn answer(&mut self, seen: &Seen) -> (u16, String) {
        let form = seen.form();
        let Some(caller) = self.caller(seen) else {
            return (403, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>".into());
        };
        match form["Action"].as_str() {
            "AssumeRole" => self.assume(form),
            "GetCallerIdentity" => {
                let arn =
                    if caller == "AKIABROKER" { "arn:aws:iam::123456789012:user/writ" } else { "arn:aws:sts::1:assumed-role/x" };
                (200, format!("<R><GetCallerIdentityResult><Arn>{arn}</Arn></GetCallerIdentityResult></R>"))
            }
            "GetPolicy" => (200, format!("<R><DefaultVersionId>v{}</DefaultVersionId></R>", self.versions.last().unwrap().0)),
            "GetPolicyVersion" => {
                let document = &self.versions.iter().find(|version| format!("v{}", version.0) == form["VersionId"]).unwrap().1;
                let encoded: String = url::form_urlencoded::byte_serialize(document.as_bytes()).collect();
                (
                    200,
                    format!(
                        "<R><Document>{}</Document><CreateDate>2026-11-22T00:00:00Z</CreateDate></R>",
                        encoded.replace('+', "%20")
                    ),
                )
            }
            "ListPolicyVersions" => {
                let last = self.versions.last().unwrap().0;
                let member = |version: &(u32, String)| {
                    let default = version.0 == last;
                    format!(
                        "<member><VersionId>v{}</VersionId><IsDefaultVersion>{default}</IsDefaultVersion></member>",
                        version.0
                    )
                };
                (200, format!("<R>{}</R>", self.versions.iter().rev().map(member).collect::<String>()))
            }
            "CreatePolicyVersion" if self.versions.len() >= 5 => (409, "<E><Code>LimitExceeded</Code></E>".into()),
            "CreatePolicyVersion" => {
                self.next += 1;
                self.versions.push((self.next, form["PolicyDocument"].clone()));
                (200, "<R/>".into())
            }
            "DeletePolicyVersion" => {
                assert_ne!(format!("v{}", self.versions.last().unwrap().0), form["VersionId"], "the one in force stays");
                self.versions.retain(|version| format!("v{}", version.0) != form["VersionId"]);
                (200, "<R/>".into())
            }
            _ => (400, "<E><Code>InvalidAction</Code></E>".into()),
        }
    }

    fn assume(&mut self, form: BTreeMap<String, String>) -> (u16, String) {
        let secs: u32 = form["DurationSeconds"].parse().unwrap();
        let tags: Vec<_> = (1..=3).map(|n| form[&format!("Tags.member.{n}.Key")].clone()).collect();
        let good = (900..=43_200).contains(&secs)
            && form["Policy"].len() <= 2_048
            && form["ExternalId"] == "writ-prod"
            && form["RoleSessionName"].starts_with("lease-")
            && form["RoleSessionName"].len() <= 64
            && tags == ["writ:agent", "writ:lease", "writ:task"];
        if !good {
            return (400, "<E><Code>ValidationError</Code></E>".into());
        }
        let n = self.sessions.len();
        let session = (format!("ASIA{n}"), format!("secret{n}"), format!("token{n}"));
        let xml = format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials><AccessKeyId>{}\
             </AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>2026-11-22T00:15:00Z\
             </Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
            session.0, session.1, session.2
        );
        self.sessions.push(session);
        self.assumed.push(form);
        (200, xml)
    }
}

struct Rig {
    cloud: Arc<Mutex<Cloud>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
    _peer: Peer,
}

fn rig() -> Rig {
    let cloud = Cloud { sessions: vec![], assumed: vec![], versions: vec![(1, deny::document(&[]))], next: 1 };
    let cloud = Arc::new(Mutex::new(cloud));
    let served = Arc::clone(&cloud);
    let peer = Peer::plain(move |seen| served.lock().unwrap().answer(&seen));
    let still = Still::new([("ID", "AKIABROKER".to_owned()), ("SECRET", "broker-secret".to_owned())]);
    let config = configured("aws", &FILE.replace("URL", &peer.url), &["prefix"]);
    let target = opened(&config, &still);
    Rig { cloud, still, config, target, _peer: peer }
}

fn handle(plan: &Plan) -> Handle<'_> {
    Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None }
}

#[tokio::test]
async fn a_session_is_cut_down_to_the_parameters_and_to_the_deadline() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", "2026/q3")], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert_eq!(minted.secrets["session_token"].expose_secret(), "token0");
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let cloud = rig.cloud.lock().unwrap();
    let policy: Value = serde_json::from_str(&cloud.assumed[0]["Policy"]).unwrap();
    // The file that `e2e/containment` evaluates.
    let expected: Value = serde_json::from_str(include_str!("../../testdata/aws/session_policy.json")).unwrap();
    assert_eq!(policy, expected);
    assert_eq!(
        (cloud.assumed[0]["DurationSeconds"].as_str(), cloud.assumed[0]["SourceIdentity"].as_str()),
        ("900", "support-bot")
    );
}

#[tokio::test]
async fn a_parameter_cannot_widen_the_resource() {
    let rig = rig();
    for value in ["*", "a?", "${aws:username}", "../x", "a b", "", "a\"b", "ä"] {
        let refused = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", value)], None);
        assert!(matches!(refused, Err(TargetError::Unacceptable(_))), "{value}");
    }
}

#[tokio::test]
async fn taking_back_denies_the_session_once_and_waits_until_that_has_settled() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", "a")], None).unwrap();
    assert!(rig.target.end(Ending::Verify, &handle(&plan)).await.is_err(), "not denied yet");
    for _ in 0..2 {
        rig.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap();
    }
    {
        let cloud = rig.cloud.lock().unwrap();
        assert_eq!(cloud.versions.len(), 2, "a step that is repeated changes nothing");
        let document: Value = serde_json::from_str(&cloud.versions[1].1).unwrap();
        // The file that `e2e/containment` evaluates.
        let expected: Value = serde_json::from_str(include_str!("../../testdata/aws/deny_policy.json")).unwrap();
        assert_eq!(document, expected);
    }
    assert_eq!(rig.target.end(Ending::Verify, &handle(&plan)).await.unwrap().again_at, Some(NOW.plus_secs(300)));
    rig.still.advance_secs(DENY_SETTLES_SECS);
    assert_eq!(rig.target.end(Ending::Verify, &handle(&plan)).await.unwrap().again_at, None);
}

#[tokio::test]
async fn the_deny_policy_keeps_five_versions_and_forgets_sessions_that_are_over() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", "a")], None).unwrap();
    for n in 0..8_u8 {
        let grant = GrantId::from_bytes([n; 16]);
        let expires_at = NOW.plus_secs(if n < 2 { 1 } else { 300 });
        let place = format!("role/{}", session_name(grant, expires_at));
        rig.target.end(Ending::CloseAuth, &Handle { grant, handle: &place, expires_at, ..handle(&plan) }).await.unwrap();
        rig.still.advance_secs(if n == 1 { 62 } else { 0 });
    }
    let cloud = rig.cloud.lock().unwrap();
    assert_eq!(cloud.versions.len(), 5);
    assert_eq!(
        cloud.versions.last().unwrap().1.matches("*:lease-").count(),
        1 + 6,
        "the keeper of the form, and six that can live"
    );
}

#[tokio::test]
async fn a_busy_target_can_take_back_for_ever() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", "a")], None).unwrap();
    // Every minute one is given back early, for five hours.
    for n in 0..300_u16 {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        let grant = GrantId::from_bytes(bytes);
        let expires_at = rig.still.now().plus_secs(900);
        let place = format!("role/{}", session_name(grant, expires_at));
        let handle = Handle { grant, handle: &place, expires_at, ..handle(&plan) };
        let evidence = rig.target.end(Ending::CloseAuth, &handle).await.unwrap();
        assert_eq!(evidence.facts["session"], "denied", "{n}");
        rig.still.advance_secs(60);
    }
    // What is over by itself is not written there, and is proved dead without it.
    let versions = rig.cloud.lock().unwrap().next;
    rig.still.advance_secs(10_000);
    assert_eq!(rig.target.end(Ending::CloseAuth, &handle(&plan)).await.unwrap().facts["session"], "over");
    assert_eq!(rig.target.end(Ending::Verify, &handle(&plan)).await.unwrap().again_at, None);
    assert_eq!(rig.cloud.lock().unwrap().next, versions);
}

#[tokio::test]
async fn a_session_of_another_name_is_never_denied() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[("prefix", "a")], None).unwrap();
    let foreign = Handle { handle: "arn:aws:iam::123456789012:role/jit/x/alice", ..handle(&plan) };
    assert!(matches!(rig.target.end(Ending::CloseAuth, &foreign).await, Err(TargetError::Unacceptable(_))));
    assert_eq!(rig.cloud.lock().unwrap().versions.len(), 1);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_with_the_code_alone() {
    let rig = rig();
    let target = opened(&rig.config, &Still::new([("ID", "AKIABROKER".to_owned()), ("SECRET", "stolen?".to_owned())]));
    let plan = planned(&*target, &rig.config, "read_reports", &[("prefix", "a")], None).unwrap();
    let error = target.issue(&plan, &testkit::shown(&plan).await).await.unwrap_err().to_string();
    assert!(error.contains("SignatureDoesNotMatch") && !error.contains("stolen"), "{error}");
}

#[test]
fn offers_whose_sessions_could_outlive_themselves_are_faults() {
    let surroundings: Arc<dyn Surroundings> = Still::new([]);
    for (from, to) in [
        ("s3:GetObject", "iam:CreateUser"),
        ("s3:GetObject", "*"),
        ("s3:GetObject", "IAM:CreateUser"),
        ("s3:GetObject", "i?m:CreateUser"),
        ("s3:GetObject", "st*:AssumeRole"),
        ("s3:GetObject", "sts:AssumeRole"),
        ("${prefix}", "${other}"),
        ("actions = [\"s3:GetObject\"]\n", ""),
        (":role/jit/", ":user/jit/"),
        (":policy/WritDenied", ":role/WritDenied"),
    ] {
        let config = configured("aws", &FILE.replace("URL", "https://sts.example").replace(from, to), &["prefix"]);
        assert!(crate::open(&config, &surroundings).is_err(), "{to}");
    }
    let config = configured("aws", &FILE.replace("URL", "https://sts.example"), &["prefix"]);
    let script = crate::install_script(&config, &surroundings).unwrap();
    assert!(script.contains("sts:RoleSessionName") && script.contains("iam:CreatePolicyVersion"), "{script}");
}

#[test]
fn the_signature_of_a_form_is_that_of_the_public_vector() {
    // `post-x-www-form-urlencoded` of the AWS Signature Version 4 test suite.
    let credentials = Credentials::of(&Minted {
        fields: BTreeMap::from([("access_key_id".to_owned(), "AKIDEXAMPLE".to_owned())]),
        secrets: BTreeMap::from([("secret_access_key".to_owned(), "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into())]),
        to_revoke: None,
    });
    let at = domain::Timestamp::from_secs(1_440_938_160);
    let place = ("example.amazonaws.com", "");
    let headers = request::signed(place, ("service", "us-east-1"), "Param1=value1", &credentials.unwrap(), at).unwrap();
    assert_eq!(headers["x-amz-date"], "20150830T123600Z");
    let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
    assert_eq!(headers["authorization"].to_str().unwrap(), expected);
}
