//! Success answers: token (RFC 6749 §5.1, RFC 8693 §2.2, RFC 9396 §7) and introspection (RFC 7662 §2.2).
//! They say what the token's claims say; they must never add to it.

use serde_json::{Map, Value, json};

use crate::UnixSeconds;
use crate::claims::{AccessClaims, Confirmation};
use crate::oauth::request::TOKEN_TYPE_ACCESS_TOKEN;

/// The body of a token answer; everything but the token is taken from its claims, so that the answer
/// cannot say more than the token. The caller adds `Cache-Control: no-store`.
#[must_use]
pub fn token_response(access_token: &str, claims: &AccessClaims, now: UnixSeconds) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("access_token", access_token.into());
    put("issued_token_type", TOKEN_TYPE_ACCESS_TOKEN.into());
    put("token_type", token_type(claims).into());
    put("expires_in", claims.expires_at.since(now).max(0).into());
    if let Some(scope) = &claims.scope {
        put("scope", scope.clone().into());
    }
    if !claims.authorization_details.is_empty() {
        put("authorization_details", claims.authorization_details.clone().into());
    }
    Value::Object(body)
}

/// What introspection says about a live token of ours: its claims and that it is active.
#[must_use]
pub fn introspection_active(claims: &AccessClaims) -> Value {
    let mut body = claims.to_map();
    body.insert("active".to_owned(), true.into());
    body.insert("token_type".to_owned(), token_type(claims).into());
    Value::Object(body)
}

/// What it says about every other token, whatever the cause.
#[must_use]
pub fn introspection_inactive() -> Value {
    json!({ "active": false })
}

/// `DPoP` only for DPoP-bound tokens (RFC 9449 §5); certificate-bound ones are `Bearer` (RFC 8705 §3).
const fn token_type(claims: &AccessClaims) -> &'static str {
    match claims.confirmation {
        Some(Confirmation::Jkt(_)) => "DPoP",
        Some(Confirmation::X5tS256(_)) | None => "Bearer",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::claims::tests::claims;
    use crate::forge::NOW;

    #[test]
    fn the_answer_says_what_the_token_says() {
        let details = vec![json!({ "type": "writ_task", "task": "tsk_1" })];
        let bound = AccessClaims { authorization_details: details.clone(), scope: Some("mcp".to_owned()), ..claims() };
        let expected = json!({
            "access_token": "t", "token_type": "DPoP", "expires_in": 300, "scope": "mcp", "authorization_details": details,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        });
        assert_eq!(token_response("t", &bound, NOW), expected);
        for confirmation in [None, Some(Confirmation::X5tS256("c".repeat(43)))] {
            let answer = token_response("t", &AccessClaims { confirmation, ..claims() }, NOW.plus(900));
            assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(0)));
        }
    }

    #[test]
    fn introspection_tells_everything_or_nothing() {
        let active = introspection_active(&claims());
        assert_eq!((&active["active"], &active["token_type"], &active["task"]), (&json!(true), &json!("DPoP"), &json!("tsk_1")));
        assert_eq!(introspection_inactive(), json!({ "active": false }));
    }
}
