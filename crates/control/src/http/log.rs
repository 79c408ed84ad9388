//! The read path of the published log (C2SP tlog-tiles): checkpoint, Merkle tiles, entry bundles. Public, because a log
//! that only its owner reads proves nothing; leaves hold sensitive values as commitments only. Owns the grammar of the
//! paths: nothing else ever reaches the storage.

use crate::App;
use crate::problem::Problem;
use crate::respond;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

/// `GET /log/checkpoint`: changes all the time.
pub(crate) async fn checkpoint(State(app): State<App>) -> Result<Response, Problem> {
    file(&app, "checkpoint", "text/plain; charset=utf-8", "no-cache").await
}

/// `GET /log/tile/…`: full tiles never change; a partial one gives way to a larger one.
pub(crate) async fn tile(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    // The raw path: what is percent-encoded is not of the grammar and needs no decoding to be refused.
    let path = request.uri().path().strip_prefix("/log/").unwrap_or_default();
    let caching = match parse(path) {
        Some(Tile::Full) => "public, max-age=31536000, immutable",
        Some(Tile::Partial) => "public, max-age=60",
        None => return Err(Problem::not_found("tile")),
    };
    file(&app, path, "application/octet-stream", caching).await
}

async fn file(app: &App, path: &str, kind: &'static str, caching: &'static str) -> Result<Response, Problem> {
    let found = app.authority.published_log().file(path).await.map_err(|error| respond::archive(&error))?;
    let bytes = found.ok_or_else(|| Problem::not_found("file of the log"))?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tile {
    Full,
    Partial,
}

/// `tile/<level>/<index>[.p/<width>]` or `tile/entries/<index>[.p/<width>]`, in the one spelling that each has
/// (C2SP tlog-tiles, "Merkle Tree" and "Log Entries").
fn parse(path: &str) -> Option<Tile> {
    let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    if level != "entries" && (canonical(level)? > 63) {
        return None;
    }
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, Some(canonical(width)?)),
        None => (rest, None),
    };
    // An index below 2^63 has at most seven groups of three digits.
    let groups: Vec<&str> = index.split('/').collect();
    let (last, leading) = groups.split_last()?;
    let three = |group: &str| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit());
    let leading_fit = leading.iter().all(|group| group.strip_prefix('x').is_some_and(three));
    let spelled_once = leading.first().is_none_or(|group| *group != "x000");
    if !three(last) || !leading_fit || !spelled_once || groups.len() > 7 {
        return None;
    }
    match width {
        None => Some(Tile::Full),
        Some(1..=255) => Some(Tile::Partial),
        Some(_) => None,
    }
}

/// A small number without leading zeros.
fn canonical(text: &str) -> Option<u32> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let spelled_once = text == "0" || !text.starts_with('0');
    if digits && spelled_once { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_grammar_reach_the_storage() {
        for (path, expected) in [
            ("tile/0/000", Some(Tile::Full)),
            ("tile/63/x001/x234/067", Some(Tile::Full)),
            ("tile/entries/x001/000.p/255", Some(Tile::Partial)),
            ("tile/0/000.p/1", Some(Tile::Partial)),
            ("tile/0/000.p/0", None),
            ("tile/0/000.p/256", None),
            ("tile/0/000.p/01", None),
            ("tile/64/000", None),
            ("tile/00/000", None),
            ("tile/0/x000/001", None),
            ("tile/0/0", None),
            ("tile/0/0000", None),
            ("tile/0/x001", None),
            ("tile/0/001/", None),
            ("tile/0//001", None),
            ("tile/0/../../writ.db", None),
            ("tile/entries/../../keys/log", None),
            ("tile/0/%2e%2e/000", None),
            ("tile/0/000%2ep/1", None),
            ("tile/0/000\0", None),
            ("tile/0/x001/x001/x001/x001/x001/x001/x001/001", None),
            ("tile/-1/000", None),
            ("tile/+1/000", None),
            ("tile/0/٠٠٠", None),
            ("tile/", None),
            ("tile", None),
            ("checkpoint", None),
        ] {
            assert_eq!(parse(path), expected, "{path}");
        }
    }
}
