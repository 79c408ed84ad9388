//! Upstreams over TLS: only with a certificate that somebody trusts, and with both versions of HTTP.

use super::*;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A stateless upstream at `https://localhost`, its URL and its certificate. It answers each request with the version of
/// HTTP over which it came.
async fn serve(protocols: &[&str]) -> (String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate.clone())], key)
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/mcp", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else { return };
                let service = hyper::service::service_fn(|request: ::http::Request<hyper::body::Incoming>| async move {
                    let version = format!("{:?}", request.version());
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let asked: Value = serde_json::from_slice(&body).unwrap();
                    let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": {}, "over": version });
                    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result }).to_string();
                    let response = ::http::Response::builder().header("content-type", "application/json");
                    response.body(Full::new(bytes::Bytes::from(answer)))
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    (url, certificate)
}

fn bench(url: &str, extra_roots: Vec<Vec<u8>>) -> Bench {
    let bench = Bench::new(http(url));
    let registry = Arc::clone(&bench.table) as Arc<dyn Registry>;
    // Roots of another upstream beside them, which must not matter.
    let of = |name: &str, roots| (name.parse().unwrap(), roots);
    let extra_roots = [of(name().as_str(), extra_roots), of("another", Vec::new())].into();
    let settings = Settings { extra_roots, ..Settings::default() };
    Bench { upstreams: Upstreams::new(registry, settings).unwrap(), ..bench }
}

#[tokio::test]
async fn an_upstream_over_tls_is_reached_if_its_certificate_is_trusted() {
    for (protocols, over) in [(&["http/1.1"][..], "HTTP/1.1"), (&["h2", "http/1.1"][..], "HTTP/2.0")] {
        let (url, certificate) = serve(protocols).await;
        let connection = bench(&url, vec![certificate]).connect(1, &modern()).await;
        assert_eq!(call(&connection, 1, "tools/call", echo(1)).await.unwrap()["over"], over);
        let error = call(&bench(&url, Vec::new()).connect(1, &modern()).await, 1, "tools/call", echo(1)).await.unwrap_err();
        assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("certificate")), "{error}");
    }
}

#[tokio::test]
async fn roots_of_one_upstream_vouch_for_no_other() {
    let (url, certificate) = serve(&["http/1.1"]).await;
    let bench = Bench::new(http(&url));
    let registry = Arc::clone(&bench.table) as Arc<dyn Registry>;
    let settings = Settings { extra_roots: [("another".parse().unwrap(), vec![certificate])].into(), ..Settings::default() };
    let bench = Bench { upstreams: Upstreams::new(registry, settings).unwrap(), ..bench };
    let error = call(&bench.connect(1, &modern()).await, 1, "tools/call", echo(1)).await.unwrap_err();
    assert!(matches!(&error, UpstreamError::Unreachable(why) if why.contains("certificate")), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (url, certificate) = serve(&["http/1.1"]).await;
    let url = url.replace("localhost", "127.0.0.1");
    let error = call(&bench(&url, vec![certificate]).connect(1, &modern()).await, 1, "tools/call", echo(1)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn an_extra_root_that_is_no_certificate_is_refused() {
    let registry = Arc::clone(&Bench::new(http("https://localhost/")).table) as Arc<dyn Registry>;
    let settings = Settings { extra_roots: [("u".parse().unwrap(), vec![b"no".to_vec()])].into(), ..Settings::default() };
    assert!(Upstreams::new(registry, settings).is_err());
}
