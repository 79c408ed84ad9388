//! What the App can do beyond what its offers need. An App key mints any subset of the App's permissions on all of its
//! installations, so the App itself is the ceiling, and a wide App is a wide Writ.

use super::GitHub;
use crate::evidence::{broken, fine, warning};
use authority::target::{Finding, Standing, TargetError};
use http::{Method, StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Permissions that lead to more than they say: settings, secrets, code that runs with other rights, people.
const DANGEROUS: [&str; 8] = [
    "administration",
    "environments",
    "members",
    "organization_administration",
    "organization_secrets",
    "secrets",
    "workflows",
    "organization_self_hosted_runners",
];

#[derive(Deserialize)]
struct App {
    #[serde(default)]
    permissions: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
    #[serde(default)]
    repository_selection: String,
    #[serde(default)]
    suspended_at: Option<String>,
    #[serde(default)]
    account: Account,
}

#[derive(Deserialize, Default)]
struct Account {
    #[serde(default)]
    login: String,
}

impl GitHub {
    pub(super) async fn examination(&self) -> Result<Vec<Finding>, TargetError> {
        let answer = self.as_app(Method::GET, "/app", Vec::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("reading the App"));
        }
        let app: App = answer.json()?;
        let mut found = self.of_app(&app);
        let path = format!("/app/installations/{}", self.installation);
        let answer = self.as_app(Method::GET, &path, Vec::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("reading the installation"));
        }
        let installation: Installation = answer.json()?;
        found.push(if installation.suspended_at.is_some() {
            broken("installation.suspended", "the installation is suspended", "unsuspend it, or remove the target")
        } else {
            fine("installation.suspended", "the installation is active")
        });
        found.push(if installation.repository_selection == "selected" {
            fine("installation.repositories", "it covers selected repositories only")
        } else {
            let remedy = "in the installation's settings choose \"Only select repositories\"";
            warning("installation.repositories", "it covers every repository of the account", remedy)
        });
        Ok(found)
    }

    fn of_app(&self, app: &App) -> Vec<Finding> {
        let mut found = Vec::new();
        for (name, level) in &app.permissions {
            let used = self.templates.values().any(|template| template.permissions.contains_key(name));
            if DANGEROUS.contains(&name.as_str()) {
                let text = format!("the App may {level} `{name}`, which leads to more than it says");
                found.push(broken("app.permissions", text, "remove the permission from the App"));
            } else if !used && name != super::IMPLIED.0 {
                found.push(warning("app.permissions", format!("no offer uses `{name}`: {level}"), "remove it from the App"));
            }
        }
        for (offer, template) in &self.templates {
            for (name, level) in &template.permissions {
                let has = app.permissions.get(name).is_some_and(|has| has == level || has == "write" || has == "admin");
                if !has {
                    let text = format!("offer `{offer}` needs `{name}`: {level}, which the App does not have");
                    found.push(broken("app.permissions", text, "add the permission to the App, or narrow the offer"));
                }
            }
        }
        if found.is_empty() {
            found.push(fine("app.permissions", "the App may do what its offers need and no more"));
        }
        found
    }

    /// What the same key reaches elsewhere: each other installation is a standing right of ours that no target uses.
    pub(super) async fn other_installations(&self) -> Result<Vec<Standing>, TargetError> {
        let answer = self.as_app(Method::GET, "/app/installations?per_page=100", Vec::new()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("listing the installations"));
        }
        let all: Vec<Installation> = answer.json()?;
        let others = all.into_iter().filter(|installation| installation.id != self.installation);
        let standing = others.map(|installation| Standing {
            name: format!("installation-{}", installation.id),
            kind: "installation",
            flags: vec!["no_expiry", "owner_unknown"],
            details: BTreeMap::from([
                ("account", installation.account.login),
                ("repositories", installation.repository_selection),
            ]),
            proposal: format!("[connect]\ninstallation_id = {}\n", installation.id),
        });
        Ok(standing.collect())
    }
}
