//! Runs the helpdesk by itself: `cargo run -p helpdesk --example serve -- [PORT] [DATABASE]`.
//! It prints the address that it serves; port 0 or none takes a free one.

use std::error::Error;
use std::path::Path;

use helpdesk::Helpdesk;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let helpdesk = match arguments.next() {
        Some(path) => Helpdesk::open(Path::new(&path))?,
        None => Helpdesk::in_memory()?,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/mcp", listener.local_addr()?);
    helpdesk.serve(listener, async { _ = tokio::signal::ctrl_c().await }).await?;
    Ok(())
}
