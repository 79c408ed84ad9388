//! What the administrator of the AWS account applies once: the roles' trust, the deny policy, and for our own account the
//! right to assume exactly those roles and to write exactly that policy. A policy version can say `Allow` too, so every
//! role needs a permissions boundary, which an `Allow` there cannot cross.

use super::deny::document;
use serde_json::json;

pub(super) fn text(roles: &[&str], deny_policy_arn: Option<&str>, external_id: Option<&str>) -> String {
    let mut conditions = json!({
        "StringLike": { "sts:RoleSessionName": "lease-*", "aws:RequestTag/writ:lease": "grt_*", "sts:SourceIdentity": "*" },
    });
    if let (Some(id), Some(conditions)) = (external_id, conditions.as_object_mut()) {
        conditions.insert("StringEquals".to_owned(), json!({ "sts:ExternalId": id }));
    }
    let trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "AWS": "BROKER_ARN" },
        "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"], "Condition": conditions,
    }]});
    let mut broker = vec![json!({
        "Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"], "Resource": roles,
    })];
    broker.extend(deny_policy_arn.map(|arn| {
        json!({
            "Effect": "Allow", "Resource": arn,
            "Action": ["iam:GetPolicy", "iam:GetPolicyVersion", "iam:ListPolicyVersions", "iam:CreatePolicyVersion", "iam:DeletePolicyVersion"],
        })
    }));
    let broker = json!({ "Version": "2012-10-17", "Statement": broker });
    let list: Vec<_> = roles.iter().map(|role| format!("#   {role}")).collect();
    let mut text = format!(
        "# 1. The roles, each with a permissions boundary and MaxSessionDuration 3600:\n{}\n\
         # Their trust policy; put the ARN of our own user or role for BROKER_ARN:\n{trust}\n\
         # 2. What our own user or role may do, and nothing else:\n{broker}\n",
        list.join("\n")
    );
    if let Some(arn) = deny_policy_arn {
        text.push_str(&format!(
            "# 3. The deny policy {arn}, attached to every role above; Writ adds sessions to it:\n{}\n",
            document(&[])
        ));
    }
    text
}
