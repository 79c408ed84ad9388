//! The session policy of one credential: the offer's actions on the offer's resources, with the task's parameters in
//! their places, in the offer's regions, until the deadline. A session policy can only narrow what the role may do.

use crate::config::Section;
use authority::target::TargetError;
use domain::{Param, Params, Timestamp, Value};
use serde_json::json;
use std::collections::BTreeMap;

/// The longest inline session policy (API_AssumeRole).
const POLICY_CHARS_MAX: usize = 2_048;

/// What an offer allows.
pub(super) struct Scope {
    actions: Vec<String>,
    resources: Vec<String>,
    regions: Vec<String>,
}

impl Scope {
    pub(super) fn read(own: &Section<'_>, params: &BTreeMap<String, Param>) -> Self {
        let scope = Self { actions: own.texts("actions"), resources: own.texts("resources"), regions: own.texts("regions") };
        if scope.actions.is_empty() {
            own.fault("actions", "an offer needs at least one action", "actions = [\"s3:GetObject\"]");
        }
        for action in &scope.actions {
            // AWS reads both parts in any case, and `*` and `?` anywhere in them.
            let service = action.split(':').next().unwrap_or_default().to_ascii_lowercase();
            let named = !service.is_empty() && service.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !named || matches!(service.as_str(), "iam" | "sts" | "organizations") {
                // What these start outlives the session.
                own.fault(
                    "actions",
                    format!("`{action}` could outlive the session"),
                    "name a service without wildcards, and none of `iam`, `sts`, `organizations`",
                );
            }
        }
        if scope.resources.is_empty() {
            own.fault("resources", "an offer needs at least one resource", "resources = [\"arn:aws:s3:::reports/${prefix}/*\"]");
        }
        for name in scope.resources.iter().flat_map(|resource| placeholders(resource)) {
            if !params.contains_key(name) {
                own.fault("resources", format!("there is no parameter `{name}`"), "declare it under `params`");
            }
        }
        scope
    }

    pub(super) fn is_wide(&self) -> bool {
        self.actions.iter().any(|action| action.ends_with(":*")) || self.resources.iter().any(|resource| resource == "*")
    }

    /// The policy for these parameters, until this instant.
    pub(super) fn policy(&self, params: &Params, until: Timestamp) -> Result<String, TargetError> {
        let resources: Vec<_> = self.resources.iter().map(|resource| filled(resource, params)).collect::<Result<_, _>>()?;
        let instant = jiff::Timestamp::from_second(until.secs())
            .map_err(|_| TargetError::Unacceptable("the deadline is out of range".to_owned()))?;
        let mut conditions = json!({ "DateLessThan": { "aws:CurrentTime": instant.to_string() } });
        if let (false, Some(conditions)) = (self.regions.is_empty(), conditions.as_object_mut()) {
            conditions.insert("StringEquals".to_owned(), json!({ "aws:RequestedRegion": self.regions }));
        }
        let policy = json!({
            "Version": "2012-10-17",
            "Statement": [{ "Effect": "Allow", "Action": self.actions, "Resource": resources, "Condition": conditions }],
        });
        let text = policy.to_string();
        if text.len() > POLICY_CHARS_MAX {
            let message = format!("the session policy would have {} characters, AWS takes {POLICY_CHARS_MAX}", text.len());
            return Err(TargetError::Unacceptable(message));
        }
        Ok(text)
    }
}

/// The names in `${…}`.
fn placeholders(resource: &str) -> impl Iterator<Item = &str> {
    resource.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

fn filled(resource: &str, params: &Params) -> Result<String, TargetError> {
    let names: Vec<_> = placeholders(resource).collect();
    names.into_iter().try_fold(resource.to_owned(), |text, name| {
        let value = match params.get(name) {
            Some(Value::Text(value)) => value.clone(),
            Some(Value::Long(number)) => number.to_string(),
            _ => return Err(TargetError::Unacceptable(format!("`{name}` must be a text or a number"))),
        };
        // `*` and `?` would widen the resource, `$` would open a policy variable, `..` names a parent at some services.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'=');
        if value.is_empty() || !value.bytes().all(plain) || value.contains("..") {
            return Err(TargetError::Unacceptable(format!("`{name}` may have only letters, digits and `-_./=`")));
        }
        Ok(text.replace(&format!("${{{name}}}"), &value))
    })
}
