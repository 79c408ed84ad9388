//! What is checked of a request before anybody asks who sent it: where it thinks it goes, which page sent it, and whether
//! its headers can be read in one way only. Pure functions over headers; knows no token and no message.
//! MCP 2026-07-28 "Security & Endpoint" (DNS rebinding); RFC 6750 §2 (one place for a token, never the query).

use crate::config::GatewayConfig;
use crate::respond::Refusal;
use crate::room::{OF_TASK, Part, Room, weight};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderMap, Uri};
use http_body_util::BodyExt;
use std::pin::pin;
use std::time::Duration;
use token::oauth::challenge::Scheme;

/// The names that this gateway answers to.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    hosts: Vec<String>,
    origins: Vec<String>,
    loopback: bool,
}

impl Names {
    /// The names of the issuer URL and of the configuration.
    pub(crate) fn new(issuer: &str, config: &GatewayConfig) -> Self {
        let mut hosts: Vec<String> = config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let mut origins: Vec<String> = config.origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
        if let Ok(url) = url::Url::parse(issuer) {
            origins.push(url.origin().ascii_serialization());
            if let Some(host) = url.host_str() {
                hosts.push(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")));
                if let Some(port) = url.port_or_known_default() {
                    hosts.push(format!("{host}:{port}"));
                }
            }
        }
        Self { hosts, origins, loopback: config.loopback }
    }

    /// Whether the request is meant for us (RFC 9110 §7.2). A page that rebound its own name to our address is not.
    pub(crate) fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
        let header = one(headers, HOST.as_str()).map_err(|()| Refusal::Host)?;
        // HTTP/2 carries it in `:authority`. Where both are there they must agree, or two readers could disagree.
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let host = match (header, authority) {
            (Some(header), Some(authority)) if !header.eq_ignore_ascii_case(authority) => return Err(Refusal::Host),
            (Some(host), _) | (None, Some(host)) => host,
            (None, None) => return Err(Refusal::Host),
        };
        let known = self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        if known || (self.loopback && is_loopback(host)) { Ok(()) } else { Err(Refusal::Host) }
    }

    /// The origin of the page that sent the request, if one did, checked.
    pub(crate) fn check_origin<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Refusal> {
        let Some(origin) = one(headers, ORIGIN.as_str()).map_err(|()| Refusal::Origin)? else { return Ok(None) };
        let known = self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin));
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if known || (self.loopback && name.is_some_and(is_loopback)) { Ok(Some(origin)) } else { Err(Refusal::Origin) }
    }
}

/// Whether `host`, with or without a port, is a loopback name.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

/// The one value of a header; an error if there are several, or if it is not plain text.
pub(crate) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    first.to_str().map(Some).map_err(|_| ())
}

/// A credential as it stands in the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credential<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) token: &'a str,
    pub(crate) dpop: Option<&'a str>,
}

/// The one credential of a request. Two of anything is refused: whoever reads the other one would see another caller.
pub(crate) fn credential<'a>(headers: &'a HeaderMap, uri: &Uri) -> Result<Option<Credential<'a>>, Refusal> {
    if uri.query().is_some_and(|query| query.split('&').any(names_a_token)) {
        return Err(Refusal::TokenInQuery);
    }
    credential_of(headers)
}

/// The one credential of the headers alone, where a query belongs to somebody else.
pub(crate) fn credential_of(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Refusal> {
    let Some(value) = one(headers, AUTHORIZATION.as_str()).map_err(|()| Refusal::SeveralCredentials)? else {
        return Ok(None);
    };
    let dpop = one(headers, "dpop").map_err(|()| Refusal::SeveralCredentials)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::CredentialMalformed)?;
    let scheme = if scheme.eq_ignore_ascii_case("bearer") {
        Scheme::Bearer
    } else if scheme.eq_ignore_ascii_case("dpop") {
        Scheme::Dpop
    } else {
        return Ok(None);
    };
    // RFC 6750 §2.1 `b64token`: nothing that could be two values for somebody else.
    let token = token.trim_matches(' ');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    if token.is_empty() || !token.bytes().all(plain) {
        return Err(Refusal::CredentialMalformed);
    }
    Ok(Some(Credential { scheme, token, dpop }))
}

/// Whether a pair of a query carries a token. The name is decoded, since a reader behind us would do so.
fn names_a_token(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let decoded = url::form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.to_ascii_lowercase());
    decoded.is_some_and(|name| matches!(name.as_str(), "access_token" | "token" | "authorization"))
}

/// Whether a POST carries JSON and takes both forms of answer (MCP "Sending Messages").
pub(crate) fn check_post(headers: &HeaderMap) -> Result<(), Refusal> {
    let content = one(headers, CONTENT_TYPE.as_str()).map_err(|()| Refusal::MediaType)?;
    let essence = content.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::MediaType);
    }
    if accepts(headers, "application/json") && accepts(headers, "text/event-stream") {
        Ok(())
    } else {
        Err(Refusal::NotAcceptable)
    }
}

/// Whether the client takes answers of this media type (RFC 9110 §12.5.1, without weights: nobody refuses with `q=0`).
pub(crate) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let family = media.split('/').next().unwrap_or_default();
    let offered = |range: &str| {
        let range = range.split(';').next().unwrap_or_default().trim();
        let wide = range.strip_suffix("/*").is_some_and(|prefix| prefix == "*" || prefix.eq_ignore_ascii_case(family));
        wide || range.eq_ignore_ascii_case(media)
    };
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(offered)
}

/// Reads the body of a request, up to so many bytes and so much time, and gives it with the room that it takes, as text and as
/// what is made of it.
///
/// # Errors
/// Why it is not read.
pub(crate) async fn read<B>(
    body: B,
    headers: &HeaderMap,
    (bytes_max, time_max): (usize, Duration),
    room: &Room,
) -> Result<(Bytes, Part), Refusal>
where
    B: http_body::Body<Data = Bytes>,
{
    let announced = one(headers, "content-length").ok().flatten().and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(Refusal::BodyTooLarge);
    }
    let mut part = room.empty();
    let collecting = collect(body, bytes_max, &mut part);
    let body = tokio::time::timeout(time_max, collecting).await.map_err(|_| Refusal::BodyTooSlow)??;
    match weight(&body) {
        weight if weight > OF_TASK => Err(Refusal::BodyTooLarge),
        weight if part.cover(weight) => Ok((body, part)),
        _ => Err(NO_ROOM),
    }
}

const NO_ROOM: Refusal = Refusal::Busy("bytes of requests and answers");

async fn collect<B: http_body::Body<Data = Bytes>>(body: B, bytes_max: usize, part: &mut Part) -> Result<Bytes, Refusal> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else { continue };
        let bytes = first.len() + rest.len() + data.len();
        if bytes > bytes_max {
            return Err(Refusal::BodyTooLarge);
        }
        if !part.cover(bytes) {
            return Err(NO_ROOM);
        }
        if first.is_empty() && rest.is_empty() {
            // Small bodies come in one piece: no copy.
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn names(loopback: bool) -> Names {
        let config = GatewayConfig { hosts: vec!["alias.example:8443".into()], loopback, ..GatewayConfig::default() };
        Names::new("https://writ.example", &config)
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused() {
        let path = Uri::from_static("/mcp/orders");
        for (host, public, loopback) in [
            ("writ.example", true, true),
            ("writ.example:443", true, true),
            ("WRIT.example", true, true),
            ("alias.example:8443", true, true),
            ("alias.example", false, false),
            ("localhost:1", false, true),
            ("127.0.0.1", false, true),
            ("[::1]:80", false, true),
            ("evil.example", false, false),
            ("writ.example.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example:80", false, false),
            ("evil.example:127.0.0.1", false, false),
            ("", false, false),
        ] {
            let headers = headers(&[("host", host)]);
            assert_eq!(names(false).check_host(&headers, &path).is_ok(), public, "{host}");
            assert_eq!(names(true).check_host(&headers, &path).is_ok(), loopback, "{host}");
        }
        assert!(names(true).check_host(&HeaderMap::new(), &path).is_err());
        let both = headers(&[("host", "writ.example"), ("host", "evil.example")]);
        assert!(names(false).check_host(&both, &path).is_err());
        let absolute = Uri::from_static("https://evil.example/mcp/orders");
        assert!(names(false).check_host(&headers(&[("host", "writ.example")]), &absolute).is_err());
        assert!(names(false).check_host(&HeaderMap::new(), &Uri::from_static("https://writ.example/mcp/orders")).is_ok());
    }

    #[test]
    fn a_page_that_is_not_ours_is_refused() {
        for (origin, public, loopback) in [
            ("https://writ.example", true, true),
            ("http://writ.example", false, false),
            ("http://localhost:3000", false, true),
            ("https://evil.example", false, false),
            ("null", false, false),
            ("file://", false, false),
            ("localhost", false, false),
        ] {
            let headers = headers(&[("origin", origin)]);
            assert_eq!(names(false).check_origin(&headers).is_ok(), public, "{origin}");
            assert_eq!(names(true).check_origin(&headers).is_ok(), loopback, "{origin}");
        }
        assert!(names(false).check_origin(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_credential_is_read_in_one_way_or_not_at_all() {
        let uri = Uri::from_static("/mcp/orders");
        for (pairs, ok) in [
            (&[("authorization", "Bearer abc.def-_~+/=")][..], true),
            (&[("authorization", "dpop abc"), ("dpop", "x.y.z")][..], true),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")][..], false),
            (&[("authorization", "DPoP a"), ("dpop", "x"), ("dpop", "y")][..], false),
            (&[("authorization", "Bearer a, Bearer b")][..], false),
            (&[("authorization", "Bearer a b")][..], false),
            (&[("authorization", "Bearer")][..], false),
            (&[("authorization", "Bearer  ")][..], false),
        ] {
            assert_eq!(credential(&headers(pairs), &uri).is_ok_and(|found| found.is_some()), ok, "{pairs:?}");
        }
        assert!(credential(&headers(&[("authorization", "Basic abc")]), &uri).unwrap().is_none());
        for query in ["access_token=x", "a=b&access_token=x", "ACCESS_TOKEN=x", "access%5Ftoken=x", "token=x"] {
            let uri: Uri = format!("/mcp/orders?{query}").parse().unwrap();
            let headers = headers(&[("authorization", "Bearer abc")]);
            assert!(matches!(credential(&headers, &uri), Err(Refusal::TokenInQuery)), "{query}");
        }
    }

    #[test]
    fn both_forms_of_answer_must_be_accepted() {
        for (content, accept, ok) in [
            ("application/json", "application/json, text/event-stream", true),
            ("Application/JSON; charset=utf-8", "*/*", true),
            ("application/json", "text/*, application/*;q=0.5", true),
            ("application/json", "application/json", false),
            ("application/json", "text/event-stream", false),
            ("text/plain", "*/*", false),
            ("application/jsonp", "*/*", false),
        ] {
            assert_eq!(check_post(&headers(&[("content-type", content), ("accept", accept)])).is_ok(), ok, "{content} {accept}");
        }
        assert!(check_post(&headers(&[("accept", "*/*")])).is_err());
    }
}
