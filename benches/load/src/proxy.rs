//! The lower bounds: a reverse proxy that decides nothing, and the same with one record a call that is synced to disk, in
//! groups, before the call is forwarded. Whatever governs calls and logs them durably cannot be faster than the second.

use crate::accept::Accepting;
use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

type Upstream = Client<HttpConnector, Full<Bytes>>;
type Records = mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>;

/// Serves on this listener, for good; with a file, a record of each call is on disk before it is forwarded.
pub(crate) async fn serve(listener: Accepting, upstream: SocketAddr, records: Option<PathBuf>) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let records = records.map(writer).transpose()?;
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
        let (done, synced) = oneshot::channel();
        records.send((record(&body)?, done)).await?;
        synced.await?;
    }
    head.uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query("/mcp").build()?;
    let (head, body) = client.request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
}

/// About 300 bytes: what was called, and room for who called it.
fn record(body: &[u8]) -> Result<Vec<u8>> {
    let message: Value = serde_json::from_slice(body)?;
    let tool = message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default();
    let method = message.get("method").and_then(Value::as_str).unwrap_or_default();
    let room = ".".repeat(240);
    let record = json!({ "bytes": body.len(), "method": method, "room": room, "tool": tool });
    Ok(serde_json::to_vec(&record)?)
}

/// One thread that writes whatever waits and syncs once.
fn writer(path: PathBuf) -> Result<Records> {
    let mut file = std::fs::File::create(path)?;
    let (send, mut receive) = mpsc::channel::<(Vec<u8>, oneshot::Sender<()>)>(1_024);
    std::thread::spawn(move || {
        while let Some(first) = receive.blocking_recv() {
            let mut group = vec![first];
            while let Ok(next) = receive.try_recv() {
                group.push(next);
            }
            let bytes: Vec<u8> = group.iter().flat_map(|(record, _)| record.iter().copied()).collect();
            if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            for (_, done) in group {
                let _ = done.send(());
            }
        }
    });
    Ok(send)
}
