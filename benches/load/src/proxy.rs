//! The lower bounds: a reverse proxy that decides nothing; the same with one record a call that is synced to disk, in groups,
//! before the call is forwarded; and the same with Writ's ledger in place of those records. Whatever governs calls and logs
//! them durably cannot be faster than the second, and what logs them as Writ does cannot be faster than the third.

use crate::accept::Accepting;
use crate::keeping::Keeping;
use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;

type Upstream = Client<HttpConnector, Full<Bytes>>;

/// Serves on this listener, for good; what is kept of a call is on disk before it is forwarded.
pub(crate) async fn serve(listener: Accepting, upstream: SocketAddr, keeping: Keeping) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let Some(stream) = listener.next().await? else { continue };
        let (client, keeping) = (client.clone(), keeping.clone());
        let service = service_fn(move |request| forward(client.clone(), keeping.clone(), upstream, request));
        tokio::spawn(stream.serve(service));
    }
}

async fn forward(
    client: Upstream,
    keeping: Keeping,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // Who keeps nothing does not look at the call either.
    let message = if matches!(keeping, Keeping::Nothing) { Value::Null } else { serde_json::from_slice(&body)? };
    keeping.decided(&message).await?;
    head.uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query("/mcp").build()?;
    let (head, body) = client.request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    keeping.ended(&message)?;
    Ok(Response::from_parts(head, Full::new(body)))
}
