//! The protocol of Redis (RESP2), as far as we speak it: commands out, answers in, and for the gate the other way round.
//! Owns its limits and time bounds, and the connection below it (TCP, TLS, a Unix socket). It knows no command, and no
//! error text of it quotes what was sent.

use authority::target::TargetError;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// Longest line, in bytes: an error or a length.
const LINE_BYTES_MAX: usize = 16 * 1_024;
/// Largest value of an answer, in bytes: a list of all clients fits.
const VALUE_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Most values of one answer.
const VALUES_MAX: usize = 200_000;
/// How deep answers nest.
const DEPTH_MAX: usize = 4;
/// Most words of a command that the gate reads, and the longest of them, in bytes.
const WORDS_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 4 * 1_024;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Nil,
    List(Vec<Reply>),
}

impl Reply {
    /// The answer as text, if it is one.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
            _ => None,
        }
    }

    /// The answer as a list of texts.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Self::List(items) => items.iter().filter_map(Self::text).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => out.extend(format!("+{text}\r\n").bytes()),
            Self::Error(text) => out.extend(format!("-{}\r\n", text.replace(['\r', '\n'], " ")).bytes()),
            Self::Number(number) => out.extend(format!(":{number}\r\n").bytes()),
            Self::Bytes(bytes) => {
                out.extend(format!("${}\r\n", bytes.len()).bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Self::Nil => out.extend(b"$-1\r\n"),
            Self::List(items) => {
                out.extend(format!("*{}\r\n", items.len()).bytes());
                items.iter().for_each(|item| item.encode(out));
            }
        }
    }
}

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where a server is.
#[derive(Clone)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp { place: String, tls: Option<Arc<ClientConfig>> },
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { place, .. } => f.write_str(place),
        }
    }
}

impl Address {
    /// `unix:PATH`, or `HOST:PORT` (an IPv6 address in brackets).
    pub(super) fn parse(text: &str, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let good =
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if good {
            Ok(Self::Tcp { place: text.to_owned(), tls })
        } else {
            Err(format!("`{text}` is neither `HOST:PORT` nor `unix:PATH`"))
        }
    }

    /// Whether a connection to it stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        let Self::Tcp { place, .. } = self else { return true };
        let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(super) async fn connect(&self, within: Duration) -> Result<Wire<Box<dyn Stream>>, TargetError> {
        let failed = |error: std::io::Error| TargetError::Unreachable(format!("`{self}`: {error}"));
        let connect = async {
            Ok(match self {
                Self::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?) as Box<dyn Stream>,
                Self::Tcp { place, tls } => {
                    let stream = TcpStream::connect(place).await.map_err(failed)?;
                    stream.set_nodelay(true).map_err(failed)?;
                    match tls {
                        None => Box::new(stream) as Box<dyn Stream>,
                        Some(config) => {
                            let host = place.rsplit_once(':').map_or(place.as_str(), |(host, _)| host).trim_matches(['[', ']']);
                            let name = ServerName::try_from(host.to_owned())
                                .map_err(|_| TargetError::Unreachable(format!("`{host}` is no name of a server")))?;
                            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
                            Box::new(connector.connect(name, stream).await.map_err(failed)?)
                        }
                    }
                }
            })
        };
        let late = |_| TargetError::Unreachable(format!("`{self}`: no connection in time"));
        Ok(Wire::new(tokio::time::timeout(within, connect).await.map_err(late)??, within))
    }
}

/// TLS to a server whose authority is in `pem`, or one of the public roots.
pub(super) fn tls(pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth()))
}

/// One connection.
pub(super) struct Wire<S> {
    stream: BufReader<S>,
    within: Duration,
}

fn broken() -> TargetError {
    TargetError::Unreachable("the connection broke off or did not speak the protocol".to_owned())
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, within: Duration) -> Self {
        Self { stream: BufReader::new(stream), within }
    }

    /// Sends a command and reads its answer; an answer that is an error is an answer.
    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply, TargetError> {
        let command = Reply::List(words.iter().map(|word| Reply::Bytes(word.to_vec())).collect());
        let within = self.within;
        let exchange = async {
            self.send(&command).await?;
            self.reply(0).await
        };
        tokio::time::timeout(within, exchange).await.map_err(|_| TargetError::Unreachable("no answer in time".to_owned()))?
    }

    pub(super) async fn send(&mut self, reply: &Reply) -> Result<(), TargetError> {
        let mut out = Vec::with_capacity(256);
        reply.encode(&mut out);
        self.stream.get_mut().write_all(&out).await.map_err(|_| broken())?;
        self.stream.get_mut().flush().await.map_err(|_| broken())
    }

    /// The next command of a client: a list of words and nothing else. `None` when it is gone.
    pub(super) async fn command(&mut self) -> Result<Option<Vec<Vec<u8>>>, TargetError> {
        if self.stream.fill_buf().await.map_err(|_| broken())?.is_empty() {
            return Ok(None);
        }
        let count = self.length(b'*', WORDS_MAX).await?;
        let mut words = Vec::with_capacity(count);
        for _ in 0..count {
            let length = self.length(b'$', WORD_BYTES_MAX).await?;
            words.push(self.value(length).await?);
        }
        Ok(Some(words))
    }

    async fn length(&mut self, kind: u8, most: usize) -> Result<usize, TargetError> {
        let line = self.line().await?;
        let (first, rest) = line.split_first().ok_or_else(broken)?;
        let length = number(rest).and_then(|number| usize::try_from(number).ok());
        length.filter(|length| *first == kind && *length <= most).ok_or_else(broken)
    }

    async fn line(&mut self) -> Result<Vec<u8>, TargetError> {
        let mut line = Vec::new();
        let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.stream).take(most).read_until(b'\n', &mut line).await.map_err(|_| broken())?;
        line.strip_suffix(b"\r\n").map(<[u8]>::to_vec).ok_or_else(broken)
    }

    async fn value(&mut self, length: usize) -> Result<Vec<u8>, TargetError> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await.map_err(|_| broken())?;
        bytes.strip_suffix(b"\r\n").map(<[u8]>::to_vec).ok_or_else(broken)
    }

    async fn reply(&mut self, depth: usize) -> Result<Reply, TargetError> {
        let line = self.line().await?;
        let (first, rest) = line.split_first().ok_or_else(broken)?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        match first {
            b'+' => Ok(Reply::Text(text())),
            b'-' => Ok(Reply::Error(text())),
            b':' => number(rest).map(Reply::Number).ok_or_else(broken),
            b'$' | b'*' if rest == b"-1" => Ok(Reply::Nil),
            b'$' => {
                let length = number(rest).and_then(|length| usize::try_from(length).ok());
                Ok(Reply::Bytes(self.value(length.filter(|length| *length <= VALUE_BYTES_MAX).ok_or_else(broken)?).await?))
            }
            b'*' => {
                let count = number(rest).and_then(|count| usize::try_from(count).ok());
                let count = count.filter(|count| *count <= VALUES_MAX && depth < DEPTH_MAX).ok_or_else(broken)?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(self.reply(depth + 1)).await?);
                }
                Ok(Reply::List(items))
            }
            _ => Err(broken()),
        }
    }
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    async fn read(bytes: &[u8]) -> Result<Reply, TargetError> {
        let (ours, mut theirs) = tokio::io::duplex(1_024);
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        Wire::new(ours, Duration::from_secs(5)).reply(0).await
    }

    #[tokio::test]
    async fn answers_read_back_as_they_were_written() {
        let list =
            Reply::List(vec![Reply::Number(-3), Reply::Nil, Reply::Bytes(b"a\r\nb".to_vec()), Reply::Text("OK".to_owned())]);
        let mut bytes = Vec::new();
        list.encode(&mut bytes);
        assert_eq!(read(&bytes).await.unwrap(), list);
    }

    #[tokio::test]
    async fn what_is_too_large_too_deep_or_no_protocol_is_refused() {
        for bytes in [
            b"$99999999999\r\n".as_slice(),
            b"*99999999\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b"$-2\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"$3\r\nabcde",
            b"+no end",
            b"",
        ] {
            assert!(read(bytes).await.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
