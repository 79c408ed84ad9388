//! The local endpoint of `writ exec`: plain HTTP on a loopback port and an unguessable path, for clients of MCP and of HTTP
//! APIs that know nothing of tokens. Each request goes on with the task's token and a fresh proof; streams pass as they
//! come, and so does a WebSocket to an API once the server agreed to it. Only the command that was started knows the path; pages in a browser are refused by `Origin` and `Host`.

use super::Agent;
use crate::web::Connector;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, LOCATION, ORIGIN, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Largest body of a request: what the gateway accepts.
const BODY_BYTES_MAX: usize = domain::limits::REQUEST_BYTES_MAX;

/// Headers that are about one connection (RFC 9110 §7.6.1), and those that are set anew.
const NOT_PASSED: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    CONTENT_LENGTH,
    HOST,
    ORIGIN,
    http::header::AUTHORIZATION,
    UPGRADE,
    http::header::TE,
    HeaderName::from_static("keep-alive"),
];

/// The path of the task's API: no name of an upstream.
const TASK: &str = "@task";
/// The path of HTTP APIs, before the name of one: no name of an upstream either.
const HTTP: &str = "@http";

type Body = Either<Incoming, Full<Bytes>>;

/// Sends requests of the command to the server, proved.
#[derive(Clone)]
pub(crate) struct Sender {
    agent: Agent,
    client: Client<Connector, Full<Bytes>>,
}

impl Sender {
    /// For a task.
    pub(crate) fn new(agent: Agent, connector: Connector) -> Self {
        Self { agent, client: Client::builder(TokioExecutor::new()).build(connector) }
    }

    /// Sends one request to an upstream's endpoint. Repeats it once if the server wants a nonce, or a fresh token.
    ///
    /// # Errors
    /// The server could not be reached.
    pub(crate) async fn send(
        &self,
        method: &Method,
        upstream: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        self.send_to((method, &self.agent.endpoint(upstream)), headers, body, false).await
    }

    /// The same to any endpoint of the server, for a WebSocket if that is asked for.
    async fn send_to(
        &self,
        (method, uri): (&Method, &str),
        headers: &HeaderMap,
        body: Bytes,
        socket: bool,
    ) -> Result<Response<Incoming>, String> {
        for attempt in 0.. {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.parse().map_err(|_| "the endpoint is not a URL".to_owned())?;
            for (name, value) in headers.iter().filter(|(name, _)| !NOT_PASSED.contains(name)) {
                request.headers_mut().append(name, value.clone());
            }
            if socket {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                request.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
            self.agent.prove(request.headers_mut(), method, uri).map_err(|failure| failure.to_string())?;
            let response = self.client.request(request).await.map_err(|error| crate::web::chain(&error))?;
            let nonce_wanted = self.agent.learn(response.status(), response.headers());
            // The 401 of an HTTP API behind the gateway has no challenge: it says nothing about the token.
            let ours = response.headers().contains_key(WWW_AUTHENTICATE);
            let again = match (response.status(), attempt) {
                _ if !ours => false,
                (StatusCode::UNAUTHORIZED, 0) => nonce_wanted || self.agent.renew().await.is_ok(),
                (StatusCode::UNAUTHORIZED, 1) => nonce_wanted,
                _ => false,
            };
            if !again {
                return Ok(response);
            }
        }
        Err("the server refused every attempt".to_owned())
    }
}

/// The local endpoint.
pub(crate) struct Bridge {
    address: SocketAddr,
    secret: String,
}

impl Bridge {
    /// Listens on a free loopback port and serves in the background, as long as the runtime lives.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) async fn start(sender: Sender, upstreams: Vec<String>) -> anyhow::Result<Self> {
        let apis = sender.agent.apis();
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let secret = crate::system::random_text::<24>();
        let served = Arc::new(Served { sender, upstreams, apis, secret: secret.clone(), names: own_names(address.port()) });
        tokio::spawn(accept(listener, served));
        Ok(Self { address, secret })
    }

    /// The URL of an upstream.
    pub(crate) fn url(&self, upstream: &str) -> String {
        format!("http://{}/{}/{upstream}", self.address, self.secret)
    }

    /// The base URL of an HTTP API.
    pub(crate) fn api_url(&self, target: &str) -> String {
        format!("{}/{target}", self.url(HTTP))
    }

    /// The URL of the task's API: what may be asked for, and credentials.
    pub(crate) fn task_url(&self) -> String {
        self.url(TASK)
    }
}

struct Served {
    sender: Sender,
    upstreams: Vec<String>,
    apis: Vec<String>,
    secret: String,
    names: [String; 2],
}

/// The authorities under which the endpoint may be addressed: both reach nothing but the loopback interface.
fn own_names(port: u16) -> [String; 2] {
    [format!("127.0.0.1:{port}"), format!("localhost:{port}")]
}

/// Whether a request is addressed to the endpoint under a name of its own, and comes from no page of elsewhere.
fn is_for_us(names: &[String; 2], headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let own = |name: &str| names.iter().any(|own| own == name);
    text(HOST).is_some_and(own) && text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://").is_some_and(own))
}

async fn accept(listener: TcpListener, served: Arc<Served>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| answer(Arc::clone(&served), request));
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new());
            // An error here is a client that went away.
            let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn answer(served: Arc<Served>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(served.forward(request).await.unwrap_or_else(|(status, text)| refusal(status, text)))
}

/// Carries bytes both ways until one side closes: the server cuts them when the task ends.
async fn carry(ours: OnUpgrade, theirs: OnUpgrade) {
    if let Ok((ours, theirs)) = tokio::try_join!(ours, theirs) {
        // An error here is a side that went away.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
    }
}

impl Served {
    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, (StatusCode, String)> {
        let uri = self.destination(&request)?;
        let (parts, body) = request.into_parts();
        let socket = parts.headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let too_large =
            |_| (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {BODY_BYTES_MAX} bytes or broke off"));
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(too_large)?.to_bytes();
        let sent = self.sender.send_to((&parts.method, &uri), &parts.headers, body, socket).await;
        let mut response = sent.map_err(|why| (StatusCode::BAD_GATEWAY, why))?;
        if socket && response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut response);
            tokio::spawn(carry(hyper::upgrade::on(Request::from_parts(parts, ())), theirs));
            return Ok(response.map(Either::Left));
        }
        if response.status() == StatusCode::UNAUTHORIZED && response.headers().contains_key(WWW_AUTHENTICATE) {
            // The command has no way to log in: what it must hear is that its access is over.
            *response.status_mut() = StatusCode::FORBIDDEN;
            response.headers_mut().remove(WWW_AUTHENTICATE);
        }
        for name in [CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(name);
        }
        // A place of an API is found behind the same secret.
        let place = response.headers().get(LOCATION).and_then(|place| place.to_str().ok()?.strip_prefix("/http/"));
        if let Some(Ok(place)) = place.map(|place| HeaderValue::from_str(&format!("/{}/{HTTP}/{place}", self.secret))) {
            response.headers_mut().insert(LOCATION, place);
        }
        Ok(response.map(Either::Left))
    }

    /// Where a request goes, if it comes from somebody who was told the path.
    fn destination(&self, request: &Request<Incoming>) -> Result<String, (StatusCode, String)> {
        if !is_for_us(&self.names, request.headers()) {
            return Err((StatusCode::FORBIDDEN, "this endpoint is for the command that was started with it".to_owned()));
        }
        let mut parts = request.uri().path().splitn(4, '/').skip(1).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (given, named, rest) = (next(), next(), next());
        // Compared by digest, so that the time tells nothing of how much of it was right.
        let digest = |text: &str| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().to_vec();
        let known = digest(&given) == digest(&self.secret);
        let unknown = (StatusCode::NOT_FOUND, "there is no such endpoint".to_owned());
        match known {
            true if named == TASK && is_of_task(&rest) => {
                let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
                Ok(format!("{}/{rest}{query}", self.sender.agent.task_endpoint()))
            }
            true if named == HTTP => self.place(&rest, request.uri().query()).ok_or(unknown),
            true if self.upstreams.contains(&named) => Ok(self.sender.agent.endpoint(&named)),
            _ => Err(unknown),
        }
    }
}

impl Served {
    /// The place of an API that a path names. The server reads what is below the name.
    fn place(&self, path: &str, query: Option<&str>) -> Option<String> {
        let (name, below) = path.split_at(path.find('/').unwrap_or(path.len()));
        let api = self.apis.iter().find(|api| *api == name)?;
        let place = self.sender.agent.api_endpoint(api, below);
        Some(query.map_or_else(|| place.clone(), |query| format!("{place}?{query}")))
    }
}

/// What a command may ask of its task: never to end it, for that is `writ exec`'s.
fn is_of_task(rest: &str) -> bool {
    let id = |text: &str| text.parse::<domain::GrantId>().is_ok();
    matches!(rest, "offers" | "credentials") || rest.strip_prefix("credentials/").is_some_and(id)
}

fn refusal(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reaches_its_credentials_and_nothing_else_of_its_task() {
        let id = format!("grt_{}", "0".repeat(32));
        for rest in ["offers", "credentials", &format!("credentials/{id}")] {
            assert!(is_of_task(rest), "{rest}");
        }
        for rest in ["", "end", "../tasks", "credentials/", "credentials/../end", &format!("credentials/{id}/x"), "offers/"] {
            assert!(!is_of_task(rest), "{rest}");
        }
    }

    #[test]
    fn only_requests_to_a_name_of_ours_and_from_no_foreign_page_are_for_us() {
        for (host, origin, ours) in [
            ("127.0.0.1:7", None, true),
            ("localhost:7", None, true),
            ("localhost:7", Some("http://localhost:7"), true),
            ("127.0.0.1:7", Some("http://127.0.0.1:7"), true),
            ("localhost:8", None, false),
            ("localhost", None, false),
            ("attacker.example:7", None, false),
            ("127.0.0.1:7.attacker.example", None, false),
            ("127.0.0.1:7", Some("http://attacker.example"), false),
            ("127.0.0.1:7", Some("https://localhost:7"), false),
            ("127.0.0.1:7", Some("null"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            assert_eq!(is_for_us(&own_names(7), &headers), ours, "{host} {origin:?}");
        }
        assert!(!is_for_us(&own_names(7), &HeaderMap::new()), "a request without a host");
    }
}
