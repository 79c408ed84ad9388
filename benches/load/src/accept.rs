//! How the baselines accept: TCP or TLS, HTTP/1.1, as little as hyper allows.

use crate::tls;
use anyhow::Result;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A listener on a free port.
pub(crate) struct Accepting {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// A connection that is not yet served.
pub(crate) struct Accepted {
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
}

impl Accepting {
    /// Binds, and says where on the first line of the output.
    pub(crate) async fn bind(certificate: Option<(&Path, &Path)>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let tls = certificate.map(|(cert, key)| tls::acceptor(cert, key)).transpose()?;
        Ok(Self { listener, tls })
    }

    /// The next connection; `None` if it went away at once.
    pub(crate) async fn next(&self) -> Result<Option<Accepted>> {
        let (stream, _) = self.listener.accept().await?;
        Ok(stream.set_nodelay(true).is_ok().then(|| Accepted { stream, tls: self.tls.clone() }))
    }
}

impl Accepted {
    /// Serves its requests until it is closed.
    pub(crate) async fn serve<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>>,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let http = hyper::server::conn::http1::Builder::new();
        let Some(tls) = self.tls else {
            let _ = http.serve_connection(TokioIo::new(self.stream), service).await;
            return;
        };
        if let Ok(stream) = tls.accept(self.stream).await {
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        }
    }
}
