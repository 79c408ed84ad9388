//! AWS, GitHub, Kubernetes, GCP: credential files and helpers that their command line tools and libraries read.

use super::key::quoted;
use super::{Environment, Folder, Held, only, shown};
use serde_json::json;
use zeroize::Zeroizing;

/// A shared credentials file with a profile for each target; `default` if there is one only.
pub(super) fn aws(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    if credentials.is_empty() {
        return Ok(());
    }
    let mut profiles = Zeroizing::new(String::new());
    for held in credentials {
        let secrets = [
            ("aws_access_key_id", held.field("access_key_id")),
            ("aws_secret_access_key", held.secret("secret_access_key")?),
            ("aws_session_token", held.secret("session_token")?),
        ];
        let profile = if only(credentials).is_some() { "default" } else { &held.target };
        *profiles += &format!("[{profile}]\n");
        secrets.iter().for_each(|(name, value)| *profiles += &format!("{name} = {value}\n"));
        if only(credentials).is_some() && !held.field("region").is_empty() {
            environment.set("AWS_REGION", held.field("region"));
            environment.set("AWS_DEFAULT_REGION", held.field("region"));
        }
    }
    // Each of these would win over the file, or reach for another identity when it has expired.
    environment.unset(&[
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ]);
    environment.set("AWS_EC2_METADATA_DISABLED", "true");
    environment.set("AWS_CONFIG_FILE", folder.write("aws_config", b"")?);
    environment.set("AWS_SHARED_CREDENTIALS_FILE", folder.write("aws_credentials", profiles.as_bytes())?);
    Ok(())
}

/// The host of people and of `git` for that of the API: `api.github.com`, or `HOST/api/v3` of an own server.
fn forge(api: &str) -> &str {
    match api.split('/').next().unwrap_or_default() {
        "" | "api.github.com" => "github.com",
        host => host,
    }
}

/// `gh` reads `GH_TOKEN`; `git` asks a helper that reads a file, configured by variables so that no file of the user's changes.
pub(super) fn github(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    let Some(held) = only(credentials) else { return Ok(()) };
    let token = held.secret("token")?;
    let answer = Zeroizing::new(format!("username=x-access-token\npassword={token}\n"));
    let file = held.write(folder, "git-credential", &answer)?;
    let host = forge(held.field("api"));
    let helper = format!("!f() {{ test \"$1\" = get && cat {}; }}; f", quoted(&shown(&file)));
    let key = format!("credential.https://{host}.helper");
    // The first, empty helper forgets those of the user.
    for (index, value) in ["", &helper].into_iter().enumerate() {
        environment.set(format!("GIT_CONFIG_KEY_{index}"), &key);
        environment.set(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    environment.set("GIT_CONFIG_COUNT", "2");
    environment.set("GIT_TERMINAL_PROMPT", "0");
    if host == "github.com" {
        environment.unset(&["GITHUB_TOKEN"]);
        environment.set("GH_TOKEN", token);
    } else {
        environment.unset(&["GITHUB_ENTERPRISE_TOKEN"]);
        environment.set("GH_ENTERPRISE_TOKEN", token);
        environment.set("GH_HOST", host);
    }
    Ok(())
}

/// One kubeconfig with a context for each target; the token stands in a file of its own.
pub(super) fn kubernetes(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    if credentials.is_empty() {
        return Ok(());
    }
    let (mut clusters, mut users, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
    for held in credentials {
        let token = held.write(folder, "token", held.secret("token")?)?;
        let mut cluster = serde_json::Map::from_iter([("server".to_owned(), json!(format!("https://{}", held.field("server"))))]);
        if !held.field("ca_pem").is_empty() {
            cluster.insert("certificate-authority".to_owned(), json!(held.write(folder, "ca.pem", held.field("ca_pem"))?));
        }
        let mut context = json!({ "cluster": held.target, "user": held.target });
        if let (false, Some(members)) = (held.field("namespace").is_empty(), context.as_object_mut()) {
            members.insert("namespace".to_owned(), json!(held.field("namespace")));
        }
        clusters.push(json!({ "name": held.target, "cluster": cluster }));
        users.push(json!({ "name": held.target, "user": { "tokenFile": token } }));
        contexts.push(json!({ "name": held.target, "context": context }));
    }
    // JSON is YAML.
    let current = credentials.first().map(|held| held.target.as_str());
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": current,
        "clusters": clusters, "users": users, "contexts": contexts,
    });
    environment.set("KUBECONFIG", folder.write("kubeconfig", config.to_string().as_bytes())?);
    Ok(())
}

/// `gcloud` reads an access token from a file.
pub(super) fn gcp(credentials: &[&Held], folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    let Some(held) = only(credentials) else { return Ok(()) };
    environment.set("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", held.write(folder, "access_token", held.secret("token")?)?);
    if !held.field("project").is_empty() {
        environment.set("CLOUDSDK_CORE_PROJECT", held.field("project"));
    }
    environment.unset(&["GOOGLE_APPLICATION_CREDENTIALS"]);
    Ok(())
}
