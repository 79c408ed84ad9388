//! A small MCP server on standard input and output, built on the official Rust SDK: a peer for the gateway's tests.

mod server;

use rmcp::ServiceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let running = server::Peer.serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}
