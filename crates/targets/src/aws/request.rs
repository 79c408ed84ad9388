//! The calls of STS and IAM: form bodies (Query protocol), Signature Version 4, XML answers. Owns how they are written
//! and read, and the broker's own credentials; knows nothing of offers.

use super::{Aws, Carried};
use crate::config::{Secret, Section};
use crate::federation::{form, form_headers};
use crate::https::Answer;
use authority::target::{Acceptance, Minted, Standing, TargetError};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use domain::Timestamp;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

const STS_VERSION: &str = "2011-06-15";
pub(super) const IAM_VERSION: &str = "2010-05-08";
/// IAM is global; it is signed for this region.
const IAM_REGION: &str = "us-east-1";

/// Our own account at AWS.
pub(super) struct Broker {
    region: String,
    access_key_id: Secret,
    secret_access_key: Secret,
    session_token: Option<Secret>,
}

impl Broker {
    pub(super) fn read(connect: &Section<'_>) -> Self {
        let region = connect.text("region", "eu-central-1");
        if !region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
            connect.fault("region", format!("`{region}` is no region"), "for example: region = \"eu-central-1\"");
        }
        Self {
            region,
            access_key_id: connect.secret("access_key_id"),
            secret_access_key: connect.secret("secret_access_key"),
            session_token: connect.secret_if("session_token"),
        }
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    fn credentials(&self) -> Result<Credentials, TargetError> {
        Ok(Credentials {
            access_key_id: self.access_key_id.read()?.expose_secret().to_owned(),
            secret_access_key: self.secret_access_key.read()?,
            session_token: self.session_token.as_ref().map(Secret::read).transpose()?,
            expiration: String::new(),
        })
    }
}

/// A key pair and its session.
pub(super) struct Credentials {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expiration: String,
}

impl Credentials {
    pub(super) fn of(minted: &Minted) -> Result<Self, TargetError> {
        let missing = || TargetError::Unacceptable("there is no session to try".to_owned());
        Ok(Self {
            access_key_id: minted.fields.get("access_key_id").ok_or_else(missing)?.clone(),
            secret_access_key: minted.secrets.get("secret_access_key").ok_or_else(missing)?.clone(),
            session_token: minted.secrets.get("session_token").cloned(),
            expiration: String::new(),
        })
    }

    pub(super) fn minted(self, region: &str, session: &str) -> Minted {
        let token = self.session_token.map(|token| ("session_token".to_owned(), token));
        Minted {
            fields: BTreeMap::from([
                ("access_key_id".to_owned(), self.access_key_id),
                ("region".to_owned(), region.to_owned()),
                ("session".to_owned(), session.to_owned()),
                ("native_expiration".to_owned(), self.expiration),
            ]),
            secrets: [("secret_access_key".to_owned(), self.secret_access_key)].into_iter().chain(token).collect(),
            to_revoke: None,
        }
    }
}

/// Which service a call is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Sts,
    Iam,
}

impl Aws {
    pub(super) async fn assume(&self, carried: &Carried) -> Result<Credentials, TargetError> {
        let secs = carried.secs.to_string();
        let mut pairs: Vec<(String, String)> = [
            ("Action", "AssumeRole"),
            ("Version", STS_VERSION),
            ("RoleArn", &carried.role_arn),
            ("RoleSessionName", &carried.session),
            ("DurationSeconds", &secs),
            ("Policy", &carried.policy),
            ("SourceIdentity", &carried.source_identity),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        pairs.extend(carried.external_id.iter().map(|id| ("ExternalId".to_owned(), id.clone())));
        for (index, (name, value)) in carried.tags.iter().enumerate() {
            pairs.push((format!("Tags.member.{}.Key", index + 1), name.clone()));
            pairs.push((format!("Tags.member.{}.Value", index + 1), value.clone()));
            // Whoever the session assumes stays tagged.
            pairs.push((format!("TransitiveTagKeys.member.{}", index + 1), name.clone()));
        }
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = self.call(Service::Sts, &pairs).await?;
        let text = |name: &str| element(&answer, name).ok_or_else(|| incomplete(name));
        Ok(Credentials {
            access_key_id: text("AccessKeyId")?,
            secret_access_key: text("SecretAccessKey")?.into(),
            session_token: Some(text("SessionToken")?.into()),
            expiration: text("Expiration")?,
        })
    }

    pub(super) async fn who_am_i(&self) -> Result<String, TargetError> {
        let answer = self.call(Service::Sts, &[("Action", "GetCallerIdentity"), ("Version", STS_VERSION)]).await?;
        element(&answer, "Arn").ok_or_else(|| incomplete("Arn"))
    }

    /// Whether STS takes these credentials. It answers `GetCallerIdentity` whatever policies say, so that only an expired
    /// or unknown session is refused here.
    pub(super) async fn accepts(&self, credentials: &Credentials) -> Result<Acceptance, TargetError> {
        let pairs = [("Action", "GetCallerIdentity"), ("Version", STS_VERSION)];
        let answer = self.send(Service::Sts, &pairs, credentials).await?;
        match answer.status {
            StatusCode::OK => Ok(Acceptance::Accepted),
            StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Ok(Acceptance::Refused),
            _ => Err(answer.unwanted("trying the session")),
        }
    }

    /// Access keys of users: what stands without an end.
    pub(super) async fn access_keys(&self) -> Result<Vec<Standing>, TargetError> {
        let users = self.call(Service::Iam, &[("Action", "ListUsers"), ("Version", IAM_VERSION)]).await?;
        let mut standing = Vec::new();
        for user in elements(&users, "UserName") {
            let pairs = [("Action", "ListAccessKeys"), ("Version", IAM_VERSION), ("UserName", user.as_str())];
            let keys = self.call(Service::Iam, &pairs).await?;
            for (key, created) in elements(&keys, "AccessKeyId").into_iter().zip(elements(&keys, "CreateDate")) {
                standing.push(Standing {
                    name: format!("{user}/{key}"),
                    kind: "access_key",
                    flags: vec!["no_expiry", "owner_unknown"],
                    details: BTreeMap::from([("user", user.clone()), ("created", created)]),
                    proposal: "role_arn = \"arn:aws:iam::ACCOUNT:role/jit/NAME\"\nactions = []\nresources = []\n".to_owned(),
                });
            }
        }
        Ok(standing)
    }

    /// One call as ourselves; its answer's XML.
    pub(super) async fn call(&self, service: Service, pairs: &[(&str, &str)]) -> Result<String, TargetError> {
        let answer = self.send(service, pairs, &self.broker.credentials()?).await?;
        let what = pairs.first().map_or("a call", |(_, action)| action);
        if answer.status != StatusCode::OK {
            let code = std::str::from_utf8(&answer.body).ok().and_then(|text| element(text, "Code")).unwrap_or_default();
            // The code is one of AWS's own words; the message could repeat what was sent.
            let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
            return Err(match answer.unwanted(what) {
                TargetError::Refused(text) => TargetError::Refused(format!("{text} ({code})")),
                other => other,
            });
        }
        String::from_utf8(answer.body.to_vec()).map_err(|_| incomplete("text"))
    }

    async fn send(&self, service: Service, pairs: &[(&str, &str)], as_whom: &Credentials) -> Result<Answer, TargetError> {
        let (https, name, region) = match service {
            Service::Sts => (&self.sts, "sts", self.broker.region()),
            Service::Iam => (&self.iam, "iam", IAM_REGION),
        };
        let body = form(pairs);
        let place = (https.host(), https.base_path());
        let headers = signed(place, (name, region), &body, as_whom, self.surroundings.now())?;
        https.send(Method::POST, "/", headers, body).await
    }
}

/// The headers of a call, with the signature over exactly what will be sent.
pub(super) fn signed(
    (host, base): (&str, &str),
    (service, region): (&str, &str),
    body: &str,
    as_whom: &Credentials,
    now: Timestamp,
) -> Result<http::HeaderMap, TargetError> {
    let unsignable = || TargetError::Unacceptable("the call cannot be signed".to_owned());
    let token = as_whom.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    let secret = as_whom.secret_access_key.expose_secret();
    let identity = aws_credential_types::Credentials::new(&as_whom.access_key_id, secret, token, None, "writ").into();
    let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.secs()).unwrap_or(0));
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| unsignable())?;
    let url = format!("https://{host}{base}/");
    let headers = [("host", host), ("content-type", "application/x-www-form-urlencoded")];
    let request = SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()));
    let (instructions, _) = sign(request.map_err(|_| unsignable())?, &params.into()).map_err(|_| unsignable())?.into_parts();
    let mut all = form_headers();
    for header in instructions.headers() {
        let mut value = HeaderValue::from_str(header.1).map_err(|_| unsignable())?;
        value.set_sensitive(true);
        all.insert(HeaderName::from_bytes(header.0.as_bytes()).map_err(|_| unsignable())?, value);
    }
    Ok(all)
}

fn incomplete(what: &str) -> TargetError {
    TargetError::Refused(format!("its answer lacks `{what}`"))
}

/// The text of the first element of this name.
pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    elements(xml, name).into_iter().next()
}

/// The texts of all elements of this name, in order. A document type definition makes the answer unreadable.
pub(super) fn elements(xml: &str, name: &str) -> Vec<String> {
    let Ok(document) = roxmltree::Document::parse(xml) else { return Vec::new() };
    let named = document.descendants().filter(|node| node.tag_name().name() == name);
    named.filter_map(|node| node.text().map(str::to_owned)).collect()
}
