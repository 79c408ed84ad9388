//! What targets publish as revoked, for the hosts and servers that check certificates. Public, because whoever checks a
//! certificate has no account here. Owns the forms of HTTP (RFC 9110) and which bytes are such a list at all: nothing else
//! that a path might name is ever answered. Lists are made, signed and kept whole by the target's driver.

use crate::App;
use crate::problem::Problem;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::StatusCode;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use std::path::PathBuf;

/// Largest list that is served, in bytes.
const LIST_BYTES_MAX: u64 = 32 * 1_024 * 1_024;
/// What a list of keys begins with (OpenSSH `PROTOCOL.krl`).
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// `GET /targets/{target}/krl`: revoked SSH certificates, as sshd reads them (OpenSSH `PROTOCOL.krl`).
pub(crate) async fn krl(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Response, Problem> {
    let list = list(&app, &name, "ssh").await?;
    let list = list.filter(|list| list.starts_with(KRL_MAGIC)).ok_or_else(unknown)?;
    Ok(answer(&request, list, "application/octet-stream"))
}

/// `GET /targets/{target}/crl`: revoked X.509 certificates, in DER (RFC 5280 §5, RFC 2585 §4.2).
pub(crate) async fn crl(State(app): State<App>, Path(name): Path<String>, request: Request) -> Result<Response, Problem> {
    let list = list(&app, &name, "x509").await?.ok_or_else(unknown)?;
    // The file is PEM, for servers that read files.
    let list = CertificateRevocationListDer::from_pem_slice(&list).map_err(|_| unknown())?;
    Ok(answer(&request, list.to_vec(), "application/pkix-crl"))
}

fn unknown() -> Problem {
    Problem::not_found("revocation list")
}

/// The file of a target of this kind; `None` if it was not written yet.
async fn list(app: &App, name: &str, kind: &str) -> Result<Option<Vec<u8>>, Problem> {
    let name = name.parse().map_err(|_| unknown())?;
    let profile = app.authority.target_profile(&name).filter(|profile| profile.kind == kind).ok_or_else(unknown)?;
    let path = profile.revocation_list.ok_or_else(unknown)?;
    let failed = |cause: String| {
        Problem::failure(StatusCode::SERVICE_UNAVAILABLE, "list_unreadable", "the list cannot be read at present", cause)
    };
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn read(path: &PathBuf) -> std::io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // A list that was cut off would be a list that forgot.
    if std::io::Read::read_to_end(&mut std::io::Read::take(file, LIST_BYTES_MAX + 1), &mut bytes)? as u64 > LIST_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than any list of ours"));
    }
    Ok(Some(bytes))
}

/// Caches may keep it and must ask each time: a revocation is in the next answer.
fn answer(request: &Request, list: Vec<u8>, kind: &'static str) -> Response {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &list);
    let tag = format!("\"{}\"", HEXLOWER.encode(digest.as_ref()));
    let held = request.headers().get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // RFC 9110 §13.1.2: compared weakly; `*` is for whatever there is.
    let held = held.flat_map(|value| value.split(',')).map(|held| held.trim().trim_start_matches("W/"));
    let unchanged = held.into_iter().any(|held| held == "*" || held == tag);
    let mut response = if unchanged { StatusCode::NOT_MODIFIED.into_response() } else { list.into_response() };
    let headers = response.headers_mut();
    if !unchanged {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}
