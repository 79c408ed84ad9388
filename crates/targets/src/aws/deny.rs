//! The deny policy: one managed policy, attached to every role that Writ may assume, that denies everything to the
//! sessions that it names (`aws:userid` ends in the session's name). Taking back adds a session; sessions that are over
//! by themselves, which their names say, are left out of the next version: IAM's bound on its length is one on how many can be
//! taken back before their time.

use super::Aws;
use super::request::{IAM_VERSION, Service, element, elements};
use authority::target::TargetError;
use domain::{GrantId, Timestamp};
use serde_json::{Value, json};

/// How long a session stays in the policy after it is over by itself, for clocks of AWS that are behind ours, in seconds.
const KEPT_SECS: u64 = 60;
/// The longest managed policy, without white space (IAM quotas).
const POLICY_CHARS_MAX: usize = 6_144;
/// Versions that IAM keeps of one policy.
const VERSIONS_MAX: usize = 5;

pub(super) struct DenyPolicy {
    arn: String,
    /// Reading and writing the policy is one step: two at once would lose one of the names.
    turn: tokio::sync::Mutex<()>,
}

/// When a session is over by itself, by its name; none if the name is not one of ours.
fn over_at(session: &str) -> Option<Timestamp> {
    let (grant, until) = session.strip_prefix("lease-")?.split_once('-')?;
    GrantId::from_digits(grant)?;
    until.parse().ok().map(Timestamp::from_secs)
}

impl DenyPolicy {
    pub(super) fn new(arn: String) -> Self {
        Self { arn, turn: tokio::sync::Mutex::new(()) }
    }

    pub(super) async fn add(&self, aws: &Aws, session: &str, now: Timestamp) -> Result<(), TargetError> {
        let _turn = self.turn.lock().await;
        let (mut sessions, _) = self.in_force(aws).await?;
        if sessions.iter().any(|known| known == session) {
            return Ok(());
        }
        let over = |name: &String| over_at(name).is_none_or(|over| over.plus_secs(KEPT_SECS) < now);
        sessions.retain(|name| !over(name));
        sessions.push(session.to_owned());
        let document = document(&sessions);
        if document.len() > POLICY_CHARS_MAX {
            return Err(TargetError::Refused(
                "the deny policy is full; it has room again when sessions in it are over by themselves".to_owned(),
            ));
        }
        self.make_room(aws).await?;
        let pairs = [
            ("Action", "CreatePolicyVersion"),
            ("Version", IAM_VERSION),
            ("PolicyArn", &self.arn),
            ("PolicyDocument", &document),
            ("SetAsDefault", "true"),
        ];
        aws.call(Service::Iam, &pairs).await.map(drop)
    }

    /// Since when the policy in force, which names the session, is in force; `None` if it does not name it. Later than
    /// the session was denied if another was denied after it.
    pub(super) async fn denies_since(&self, aws: &Aws, session: &str) -> Result<Option<Timestamp>, TargetError> {
        let (sessions, since) = self.in_force(aws).await?;
        Ok(sessions.iter().any(|known| known == session).then_some(since))
    }

    /// The sessions that the policy in force names, and since when it is.
    async fn in_force(&self, aws: &Aws) -> Result<(Vec<String>, Timestamp), TargetError> {
        let policy =
            aws.call(Service::Iam, &[("Action", "GetPolicy"), ("Version", IAM_VERSION), ("PolicyArn", &self.arn)]).await?;
        let lacking = || TargetError::Refused("the deny policy cannot be read".to_owned());
        let version = element(&policy, "DefaultVersionId").ok_or_else(lacking)?;
        let pairs = [("Action", "GetPolicyVersion"), ("Version", IAM_VERSION), ("PolicyArn", &self.arn), ("VersionId", &version)];
        let answer = aws.call(Service::Iam, &pairs).await?;
        // IAM writes the document URL-encoded (RFC 3986).
        let encoded = element(&answer, "Document").ok_or_else(lacking)?;
        let text: String = url::form_urlencoded::parse(format!("d={}", encoded.replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, document)| document.into_owned())
            .ok_or_else(lacking)?;
        let document: Value = serde_json::from_str(&text).map_err(|_| lacking())?;
        let names = document.pointer("/Statement/0/Condition/StringLike/aws:userid").and_then(Value::as_array);
        let names = names.ok_or_else(lacking)?.iter().filter_map(Value::as_str);
        let since = element(&answer, "CreateDate").and_then(|date| date.parse::<jiff::Timestamp>().ok()).ok_or_else(lacking)?;
        let sessions =
            names.filter_map(|name| name.strip_prefix("*:")).filter(|name| over_at(name).is_some()).map(str::to_owned).collect();
        Ok((sessions, Timestamp::from_millis(since.as_millisecond())))
    }

    /// IAM keeps five versions: the oldest that is not in force goes.
    async fn make_room(&self, aws: &Aws) -> Result<(), TargetError> {
        let pairs = [("Action", "ListPolicyVersions"), ("Version", IAM_VERSION), ("PolicyArn", &self.arn)];
        let answer = aws.call(Service::Iam, &pairs).await?;
        let versions = elements(&answer, "VersionId");
        let in_force = elements(&answer, "IsDefaultVersion");
        if versions.len() < VERSIONS_MAX {
            return Ok(());
        }
        let number = |version: &str| version.trim_start_matches('v').parse::<u64>().unwrap_or(u64::MAX);
        let old = versions.iter().zip(&in_force).filter(|(_, default)| *default != "true").map(|(version, _)| version);
        let Some(oldest) = old.min_by_key(|version| number(version)) else { return Ok(()) };
        let pairs =
            [("Action", "DeletePolicyVersion"), ("Version", IAM_VERSION), ("PolicyArn", &self.arn), ("VersionId", oldest)];
        aws.call(Service::Iam, &pairs).await.map(drop)
    }
}

/// The policy that denies everything to these sessions. A list with nobody in it keeps its form by a name that no
/// session has.
pub(super) fn document(sessions: &[String]) -> String {
    let names: Vec<_> =
        std::iter::once("*:lease-none".to_owned()).chain(sessions.iter().map(|name| format!("*:{name}"))).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "WritDeniedSessions", "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": { "StringLike": { "aws:userid": names } },
        }],
    })
    .to_string()
}
