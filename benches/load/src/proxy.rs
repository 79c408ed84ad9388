//! The lower bounds: a reverse proxy that decides nothing, and the same with one record a call that is synced to disk, in
//! groups, before the call is forwarded. Whatever governs calls and logs them durably cannot be faster than the second.

use crate::accept::Accepting;
use crate::records::{self, Records};
use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::path::PathBuf;

type Upstream = Client<HttpConnector, Full<Bytes>>;

/// Serves on this listener, for good; with a file, a record of each call is on disk before it is forwarded.
pub(crate) async fn serve(listener: Accepting, upstream: SocketAddr, records: Option<PathBuf>) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let records = records.map(records::open).transpose()?;
    loop {
        let Some(stream) = listener.next().await? else { continue };
        let (client, records) = (client.clone(), records.clone());
        let service = service_fn(move |request| forward(client.clone(), records.clone(), upstream, request));
        tokio::spawn(stream.serve(service));
    }
}

async fn forward(
    client: Upstream,
    records: Option<Records>,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if let Some(records) = records {
        records::keep(&records, &serde_json::from_slice(&body)?).await?;
    }
    head.uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query("/mcp").build()?;
    let (head, body) = client.request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
}
