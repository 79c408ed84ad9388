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
    for (client, mut connection) in connections.into_iter().enumerate() {
        let target = target.of(client);
        loops.spawn(async move {
            let mut latencies = Vec::with_capacity(65_536);
            while Instant::now() < until {
                let request = target.request();
                let sent = Instant::now();
                let (_, body) = connection.exchange(&request).await?;
                target.check(&body)?;
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

    /// Sends a request and reads the whole answer, which must be 200 and no error; gives head and body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(String, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let head = self.until(0, b"\r\n\r\n").await?;
        let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or_default()).into_owned();
        let body = match header(&text, "content-length") {
            Some(length) => self.bytes(head, length.parse()?).await?.to_vec(),
            None if header(&text, "transfer-encoding").is_some_and(|encoding| encoding == "chunked") => self.chunks(head).await?,
            None => bail!("an answer without a length: {text}"),
        };
        if !text.starts_with("HTTP/1.1 200") || contains(&body, b"\"isError\":true") || contains(&body, b"\"error\"") {
            bail!("{text}{}", String::from_utf8_lossy(&body));
        }
        Ok((text, body))
    }

    /// The body of an answer that comes in chunks (RFC 9112 §7.1), as a stream of events does.
    async fn chunks(&mut self, mut at: usize) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let data = self.until(at, b"\r\n").await?;
            let line = String::from_utf8_lossy(self.buffer.get(at..data - 2).unwrap_or_default()).into_owned();
            let length = usize::from_str_radix(&line, 16).with_context(|| format!("not the length of a chunk: {line}"))?;
            body.extend_from_slice(self.bytes(data, length).await?);
            at = self.until(data + length, b"\r\n").await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads up to and with these bytes, from a place on; gives the place behind them.
    async fn until(&mut self, from: usize, wanted: &[u8]) -> Result<usize> {
        loop {
            if let Some(at) = self.buffer.get(from..).and_then(|read| find(read, wanted)) {
                return Ok(from + at + wanted.len());
            }
            self.read().await?;
        }
    }

    /// So many bytes from a place on.
    async fn bytes(&mut self, from: usize, length: usize) -> Result<&[u8]> {
        while self.buffer.len() < from + length {
            self.read().await?;
        }
        Ok(self.buffer.get(from..from + length).unwrap_or_default())
    }

    async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection was closed after {} bytes", self.buffer.len());
        }
        Ok(())
    }
}

/// A header's value in the head of an answer.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find_map(|(field, value)| field.eq_ignore_ascii_case(name).then(|| value.trim()))
}

/// Whether bytes are among others.
pub(crate) fn contains(text: &[u8], wanted: &[u8]) -> bool {
    find(text, wanted).is_some()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
