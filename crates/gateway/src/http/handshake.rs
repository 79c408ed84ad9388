//! The opening of a WebSocket on both sides: what a task's client may ask for, what the API is asked, and whether its answer
//! is the one to that question. Extensions are agreed on with nobody, so that no message is compressed. Pure: the key comes
//! from outside. Knows no message and no secret. RFC 6455 §4.

use super::answer::{ApiBody, Stop};
use super::refuse::Refusal;
use super::route::Route;
use crate::admission::one;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode, Version};

/// Appended to a key before it is digested (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// A WebSocket that a client asked for, and the question to the API.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The answer to the client's key.
    accept: String,
    /// The gateway's own key: a client that chose it could have an API that is no WebSocket answer fittingly.
    key: String,
    /// Subprotocols, in the client's order.
    offered: Vec<String>,
}

impl Opening {
    /// Reads what the client of such a route asked for. `key` is random, of this opening alone.
    ///
    /// # Errors
    /// It is not the opening of a WebSocket, or one with a subprotocol that is not of the route.
    pub(crate) fn read(version: Version, headers: &HeaderMap, subprotocols: &[String], key: [u8; 16]) -> Result<Self, Refusal> {
        let wrong = |text: &str| Refusal::Request(text.to_owned());
        let single = |name: HeaderName| one(headers, name.as_str()).map_err(|()| wrong("a header of the opening cannot be read"));
        let upgrades = single(UPGRADE)?.is_some_and(|value| value.trim().eq_ignore_ascii_case("websocket"));
        if version != Version::HTTP_11 || !upgrades || !lists(headers, CONNECTION, "upgrade") {
            return Err(wrong("this route is a WebSocket: ask for the upgrade, over HTTP/1.1"));
        }
        if single(SEC_WEBSOCKET_VERSION)? != Some(VERSION) {
            return Err(wrong("the version of a WebSocket is 13"));
        }
        let given = single(SEC_WEBSOCKET_KEY)?.unwrap_or_default();
        if STANDARD.decode(given).map_or(0, |key| key.len()) != 16 {
            return Err(wrong("the key of a WebSocket is 16 bytes in base64"));
        }
        let offered = words(headers, SEC_WEBSOCKET_PROTOCOL);
        // Some clients put a token there; what the route does not know is refused, not dropped.
        if !offered.iter().all(|word| subprotocols.contains(word)) {
            return Err(Refusal::Fields(
                "header `sec-websocket-protocol` names a subprotocol that is unknown to this route".into(),
            ));
        }
        Ok(Self { accept: accept(given), key: STANDARD.encode(key), offered })
    }

    /// Puts the question on a request. Behind the credential: no signature covers headers of one connection.
    pub(crate) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        set(headers, SEC_WEBSOCKET_KEY, &self.key);
        if !self.offered.is_empty() {
            set(headers, SEC_WEBSOCKET_PROTOCOL, &self.offered.join(", "));
        }
    }

    /// The answer to the client when the API agreed. Nothing of the API's headers goes along but the subprotocol.
    ///
    /// # Errors
    /// The API agreed to something that it was not asked.
    pub(crate) fn agree(&self, theirs: &HeaderMap) -> Result<Response<ApiBody>, Stop> {
        let single = |name: HeaderName| one(theirs, name.as_str()).map_err(|()| Stop::Broken);
        let upgrades = single(UPGRADE)?.is_some_and(|value| value.trim().eq_ignore_ascii_case("websocket"));
        let chosen = single(SEC_WEBSOCKET_PROTOCOL)?;
        let fits = upgrades
            && lists(theirs, CONNECTION, "upgrade")
            && single(SEC_WEBSOCKET_ACCEPT)? == Some(accept(&self.key).as_str())
            && !theirs.contains_key(SEC_WEBSOCKET_EXTENSIONS)
            && chosen.is_none_or(|chosen| self.offered.iter().any(|offered| offered == chosen));
        if !fits {
            return Err(Stop::Broken);
        }
        let mut response = Response::new(ApiBody::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        set(headers, SEC_WEBSOCKET_ACCEPT, &self.accept);
        if let Some(chosen) = chosen {
            set(headers, SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        Ok(response)
    }
}

/// What a request to this route opens: nothing, unless the route is a WebSocket. `fill` draws its key.
///
/// # Errors
/// As [`Opening::read`].
pub(crate) fn opening(
    parts: &http::request::Parts,
    route: &Route,
    fill: impl FnOnce(&mut [u8]),
) -> Result<Option<Opening>, Refusal> {
    let Some(subprotocols) = &route.websocket else { return Ok(None) };
    let mut key = [0; 16];
    fill(&mut key);
    Opening::read(parts.version, &parts.headers, subprotocols, key).map(Some)
}

fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Base64, or words that came as a header: both fit.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// The words of a header that is a list.
fn words(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
}

fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    words(headers, name).iter().any(|word| word.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The example of RFC 6455 §1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn asked(changed: &str, to: Option<&str>) -> Result<Opening, Refusal> {
        let mut list = vec![
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-protocol", "chat, superchat"),
        ];
        list.retain(|(name, _)| *name != changed);
        list.extend(to.map(|to| (changed, to)));
        Opening::read(Version::HTTP_11, &headers(&list), &["chat".into(), "superchat".into()], [7; 16])
    }

    #[test]
    fn the_key_of_the_standard_has_the_answer_of_the_standard() {
        let opening = asked("", None).unwrap();
        assert_eq!((opening.accept.as_str(), opening.offered.len()), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 2));
        assert_eq!(opening.key, STANDARD.encode([7; 16]), "the gateway's own key, not the client's");
    }

    #[test]
    fn what_is_no_opening_of_a_websocket_is_refused() {
        for (changed, to) in [
            ("connection", None),
            ("connection", Some("keep-alive")),
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("upgrade", Some("websocket, h2c")),
            ("sec-websocket-version", None),
            ("sec-websocket-version", Some("8")),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("c2hvcnQ=")),
            ("sec-websocket-key", Some("not base64")),
            ("sec-websocket-protocol", Some("chat, bearer.token.abc")),
        ] {
            assert!(asked(changed, to).is_err(), "{changed}: {to:?}");
        }
        let twice = headers(&[("sec-websocket-key", KEY), ("sec-websocket-key", KEY), ("upgrade", "websocket")]);
        assert!(Opening::read(Version::HTTP_11, &twice, &[], [7; 16]).is_err());
        assert!(
            Opening::read(Version::HTTP_2, &headers(&[("upgrade", "websocket"), ("connection", "upgrade")]), &[], [7; 16])
                .is_err()
        );
    }

    #[test]
    fn an_api_may_agree_only_to_what_it_was_asked() {
        let opening = asked("", None).unwrap();
        let mut asked = HeaderMap::new();
        opening.ask(&mut asked);
        let right = accept(asked.get(SEC_WEBSOCKET_KEY).unwrap().to_str().unwrap());
        let answer = |changed: &str, to: Option<&str>| {
            let mut list = vec![("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", right.as_str())];
            list.retain(|(name, _)| *name != changed);
            list.extend(to.map(|to| (changed, to)));
            opening.agree(&headers(&list))
        };
        let agreed = answer("sec-websocket-protocol", Some("superchat")).unwrap();
        assert_eq!(agreed.headers().get(SEC_WEBSOCKET_PROTOCOL).unwrap(), "superchat");
        assert!(answer("x-fine", Some("1")).unwrap().headers().get("x-fine").is_none());
        for (changed, to) in [
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("connection", None),
            ("sec-websocket-accept", None),
            ("sec-websocket-accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
            ("sec-websocket-extensions", Some("permessage-deflate")),
            ("sec-websocket-protocol", Some("other")),
        ] {
            assert!(answer(changed, to).is_err(), "{changed}: {to:?}");
        }
    }
}
