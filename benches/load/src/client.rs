//! A closed-loop HTTP/1.1 client on kept-alive connections, written on the socket so that it costs as little as it can.

use crate::target::Target;
use anyhow::{Context, Result, bail};
use rustls_pki_types::ServerName;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much load.
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) time: Duration,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
    /// Processor time of the server that was called, and of nothing behind it.
    pub(crate) processor: Duration,
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<W: AsyncRead + AsyncWrite + Unpin + Send> Wire for W {}

/// One connection.
pub(crate) struct Connection {
    stream: Box<dyn Wire>,
    buffer: Vec<u8>,
}

/// Runs closed loops side by side until the time is over.
pub(crate) async fn run(target: &Target, load: &Load) -> Result<Measured> {
    let mut connections = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        connections.push(Connection::open(target).await?);
    }
    let used = target.server.processor();
    let began = Instant::now();
    let until = began + load.time;
    let mut loops = tokio::task::JoinSet::new();
    for mut connection in connections {
        let target = target.clone();
        loops.spawn(async move {
            let mut latencies = Vec::with_capacity(65_536);
            while Instant::now() < until {
                let request = target.request();
                let sent = Instant::now();
                connection.exchange(&request).await?;
                latencies.push(sent.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = loops.join_next().await {
        latencies.extend(done??);
    }
    let (elapsed, processor) = (began.elapsed(), target.server.processor().saturating_sub(used));
    latencies.sort_unstable();
    Ok(Measured { latencies, elapsed, processor })
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.server.at).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Wire> = match &target.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?),
        };
        Ok(Self { stream, buffer: Vec::with_capacity(8_192) })
    }

    /// Sends a request and reads the whole answer, which must be 200 with a length; gives head and body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(String, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or_default()).to_ascii_lowercase();
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .with_context(|| format!("an answer without a length: {text}"))?
            .trim()
            .parse()?;
        while self.buffer.len() < head + length {
            self.read().await?;
        }
        let body = self.buffer.get(head..head + length).unwrap_or_default();
        if !text.starts_with("http/1.1 200") || find(body, b"\"isError\":true").is_some() || find(body, b"\"error\"").is_some() {
            bail!("{text}{}", String::from_utf8_lossy(body));
        }
        Ok((text, body.to_vec()))
    }

    async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection was closed after {} bytes", self.buffer.len());
        }
        Ok(())
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
