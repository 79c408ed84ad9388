//! What the client refuses: redirects, answers without end, plain HTTP on a network, paths that would name another host.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn place(url: &str) -> Place {
    Place { url: url.to_owned(), ca_pem: None, allow_http: false, timeout: Duration::from_secs(5) }
}

/// A server that answers one request with `answer` and gives back what it was sent.
async fn serving(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4_096];
        let read = stream.read(&mut request).await.unwrap();
        let _ = stream.write_all(&answer).await;
        request.truncate(read);
        String::from_utf8(request).unwrap()
    });
    (url, served)
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (other, _) = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret".to_vec()).await;
    let (url, _) = serving(format!("HTTP/1.1 302 Found\r\nlocation: {other}\r\ncontent-length: 0\r\n\r\n").into_bytes()).await;
    let answer = Https::new(&place(&url)).unwrap().send(Method::GET, "/", HeaderMap::new(), "").await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", ANSWER_BYTES_MAX + 1).into_bytes();
    answer.resize(answer.len() + ANSWER_BYTES_MAX + 1, b'x');
    let (url, _) = serving(answer).await;
    let error = Https::new(&place(&url)).unwrap().send(Method::GET, "/", HeaderMap::new(), "").await.unwrap_err();
    assert!(matches!(error, TargetError::Unreachable(text) if text.contains("more than")));
}

#[tokio::test]
async fn a_base_path_stands_before_every_path() {
    let (url, served) = serving(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let client = Https::new(&place(&format!("{url}/api/v3/"))).unwrap();
    client.send(Method::POST, "/app?x=1", HeaderMap::new(), "body").await.unwrap();
    let request = served.await.unwrap();
    assert!(request.starts_with("POST /api/v3/app?x=1 HTTP/1.1\r\n") && request.ends_with("\r\n\r\nbody"), "{request}");
}

#[tokio::test]
async fn no_path_moves_a_request_to_another_host() {
    let client = Https::new(&place("http://127.0.0.1:9")).unwrap();
    for path in ["//evil.example/x", "@evil.example/x", "/a b", "https://evil.example/"] {
        match client.request(Method::GET, path, HeaderMap::new(), Bytes::new()) {
            Ok(request) => assert_eq!(request.uri().authority().unwrap(), "127.0.0.1:9", "{path}"),
            Err(error) => assert!(matches!(error, TargetError::Unacceptable(_)), "{path}"),
        }
    }
}

#[test]
fn plain_http_beyond_this_machine_is_refused_unless_it_is_allowed() {
    for url in ["http://api.example", "http://10.0.0.1", "ftp://127.0.0.1", "https://user:pass@host", "https://host/?q", "x"] {
        assert!(matches!(Https::new(&place(url)), Err(("url", _))), "{url}");
    }
    assert!(Https::new(&Place { allow_http: true, ..place("http://10.0.0.1") }).is_ok());
    assert!(Https::new(&place("http://localhost:8080")).is_ok());
}

#[test]
fn trusted_certificates_that_are_none_are_a_fault() {
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let broken = Place { ca_pem: Some(pem.as_bytes().to_vec()), ..place("https://host") };
        assert!(matches!(Https::new(&broken), Err(("ca_file", _))), "{pem}");
    }
}
