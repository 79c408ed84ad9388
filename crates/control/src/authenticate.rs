//! Who is asking: an operator by its secret, an enforcement point by HTTP Basic, or an agent by its task token. Nothing
//! here accepts one in place of another, and nothing reads a credential from anywhere but a header.

use crate::config::{Operator, Role};
use crate::problem::Problem;
use crate::respond::{self, OAuthAnswer};
use crate::{App, Connection};
use authority::{Caller, Presented, Scheme};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use token::dpop::TargetUri;

/// Longest `Authorization` or `DPoP` header that is looked at; a token and a proof are far shorter.
const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// The one value of a header.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.len() <= CREDENTIAL_BYTES_MAX => {
            value.to_str().map(Some).map_err(|_| format!("header `{name}` is not plain ASCII"))
        }
        (Some(_), None) => Err(format!("header `{name}` is too long")),
        (Some(_), Some(_)) => Err(format!("header `{name}` occurs more than once")),
    }
}

/// Scheme and credentials of the `Authorization` header.
fn authorization(headers: &HeaderMap) -> Result<Option<(&str, &str)>, String> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    // Without credentials it is a scheme and nothing, which authenticates nobody.
    let (scheme, credentials) = value.split_once(' ').unwrap_or((value, ""));
    Ok(Some((scheme, credentials.trim_start_matches(' '))))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let given = authorization(headers).map_err(Problem::invalid)?;
    Ok(given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret))
}

/// The operator whose secret came with the request.
pub(crate) fn operator<'a>(app: &'a App, headers: &HeaderMap) -> Result<&'a Operator, Problem> {
    let refused = |detail: &str, challenge: &str| {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail).with(WWW_AUTHENTICATE, challenge)
    };
    let Some(secret) = bearer(headers)? else {
        return Err(refused("send an operator secret as `authorization: Bearer …`", r#"Bearer realm="writ""#));
    };
    app.config
        .operator_by_secret(secret.as_bytes())
        .ok_or_else(|| refused("this is not the secret of an operator", r#"Bearer realm="writ", error="invalid_token""#))
}

fn with_role<'a>(app: &'a App, headers: &HeaderMap, roles: &[Role]) -> Result<&'a Operator, Problem> {
    let operator = operator(app, headers)?;
    if roles.iter().any(|role| operator.has(*role)) {
        return Ok(operator);
    }
    let needed = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join("` or `");
    let detail = format!("operator `{}` does not have role `{needed}`", operator.name);
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

/// The name of an operator who may change things.
pub(crate) fn admin(app: &App, headers: &HeaderMap) -> Result<String, Problem> {
    with_role(app, headers, &[Role::Admin]).map(|operator| operator.name.clone())
}

/// An operator who may read.
pub(crate) fn reader<'a>(app: &'a App, headers: &HeaderMap) -> Result<&'a Operator, Problem> {
    with_role(app, headers, &[Role::Admin, Role::Auditor])
}

/// The enforcement point, if the request carries an operator secret: whether it may ask for decisions about any task.
/// `None` if the request carries no operator secret: then it may still be an agent.
pub(crate) fn enforcement_point<'a>(app: &'a App, headers: &HeaderMap) -> Result<Option<&'a Operator>, Problem> {
    let Some(operator) = bearer(headers)?.and_then(|secret| app.config.operator_by_secret(secret.as_bytes())) else {
        return Ok(None);
    };
    if operator.has(Role::Introspect) || operator.has(Role::Admin) {
        return Ok(Some(operator));
    }
    let detail = format!("operator `{}` does not have role `introspect` or `admin`", operator.name);
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}

/// The OAuth client that authenticated with `client_secret_basic` (RFC 6749 §2.3.1) and has role `introspect`.
/// Whatever is wrong, the answer is the same.
pub(crate) fn basic_client<'a>(app: &'a App, headers: &HeaderMap) -> Result<&'a Operator, OAuthAnswer> {
    let client = basic_credentials(headers).and_then(|(name, secret)| app.config.operator_by_name(&name, &secret));
    client.filter(|client| client.has(Role::Introspect) || client.has(Role::Admin)).ok_or_else(respond::invalid_client)
}

/// Whether the request tries to authenticate by the `Authorization` header at all.
pub(crate) fn has_authorization(headers: &HeaderMap) -> bool {
    headers.contains_key(AUTHORIZATION)
}

fn basic_credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = authorization(headers).ok()??;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(encoded.trim_end()).ok()?).ok()?;
    let (name, secret) = pair.split_once(':')?;
    // Both halves are form-encoded before they are joined (RFC 6749 §2.3.1).
    Some((form_decoded(name)?, form_decoded(secret)?.into_bytes()))
}

fn form_decoded(text: &str) -> Option<String> {
    let pair = format!("v={}", text.replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
}

/// The agent whose task token came with the request, proved by its binding.
pub(crate) fn agent(app: &App, parts: &Parts, uri: &TargetUri) -> Result<Caller, Problem> {
    let given = authorization(&parts.headers).map_err(Problem::invalid)?;
    let (scheme, token) = match given {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("dpop") => (Scheme::Dpop, token),
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => (Scheme::Bearer, token),
        Some(_) | None => return Err(respond::no_token()),
    };
    let dpop = single(&parts.headers, &HeaderName::from_static("dpop")).map_err(Problem::invalid)?;
    let certificate = parts.extensions.get::<Connection>().and_then(|connection| connection.thumbprint);
    let presented =
        Presented { scheme, token, dpop, method: parts.method.as_str(), uri, certificate, audience: app.config.issuer() };
    app.authority.authenticate(&presented).map_err(|why| respond::unauthenticated(scheme, why))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let encoded = |pair: &str| headers(&[&format!("Basic {}", STANDARD.encode(pair))]);
        let read =
            |pair: &str| basic_credentials(&encoded(pair)).map(|(name, secret)| (name, String::from_utf8(secret).unwrap()));
        assert_eq!(read("pep:s3"), Some(("pep".into(), "s3".into())));
        assert_eq!(read("my%2Dpep:a%3Ab%2B+%26"), Some(("my-pep".into(), "a:b+ &".into())));
        assert_eq!(read("pep:a&b"), Some(("pep".into(), "a&b".into())));
        assert_eq!(read("pep:a:b"), Some(("pep".into(), "a:b".into())));
        assert_eq!(read("pep"), None);
        assert_eq!(basic_credentials(&headers(&["Bearer x"])), None);
        assert_eq!(basic_credentials(&headers(&["Basic !"])), None);
        let twice = encoded("pep:s3").get(AUTHORIZATION).unwrap().to_str().unwrap().to_owned();
        assert_eq!(basic_credentials(&headers(&[&twice, &twice])), None, "two headers are nobody's");
    }
}
