//! The router over a real authority on a ledger in memory, and short ways to ask it. Owns the fakes of the ports.
//! Asserts little: what is right is said in the tests.

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control::{
    Connection, Control, ControlConfig, KeyRotation, NextKey, Observer, Operator, PolicySource, PortError, Probe, Role,
    ToolState, ToolView, UpstreamCatalog, UpstreamStatus,
};
use domain::{Digest, Outcome, Reason, TargetName, ToolName, UpstreamName};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testkit::{ISSUER, World};
use tower::ServiceExt;

pub(crate) const ADMIN: &str = "wop_admin-0123456789abcdef0123456789abcdef0123456789ab";
pub(crate) const AUDITOR: &str = "wop_auditor-0123456789abcdef0123456789abcdef01234567";
pub(crate) const POINT: &str = "wop_point-0123456789abcdef0123456789abcdef0123456789";

/// What the ports were asked to do.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) accepted: Mutex<Vec<(String, String)>>,
    pub(crate) broken: AtomicBool,
    /// What the observer heard.
    pub(crate) heard: Mutex<Vec<String>>,
}

impl Observer for Asked {
    fn decided(&self, outcome: Outcome, reason: Option<Reason>) {
        self.heard.lock().unwrap().push(format!("{} {}", outcome.as_str(), reason.map_or("", Reason::as_str)));
    }

    fn credential(&self, target: Option<&TargetName>, answer: &'static str, _: Duration) {
        let target = target.map(ToString::to_string).unwrap_or_default();
        self.heard.lock().unwrap().push(format!("credential {target} {answer}"));
    }

    fn issued(&self, answer: &'static str, _: Duration) {
        self.heard.lock().unwrap().push(answer.to_owned());
    }
}

struct Catalog(Arc<Asked>);

#[async_trait]
impl UpstreamCatalog for Catalog {
    fn status(&self, _: &UpstreamName) -> UpstreamStatus {
        UpstreamStatus { reachable: Some(true), last_error: None }
    }

    async fn tools(&self, _: &UpstreamName) -> Result<Vec<ToolView>, PortError> {
        let view = |name: &str, state, approved, live| ToolView {
            name: name.parse().unwrap(),
            state,
            approved,
            live,
            traits: Default::default(),
        };
        let definition = |text: &str| Some((json!({"name": "refund", "description": text}), Digest([text.len() as u8; 32])));
        Ok(vec![
            view("get_order", ToolState::Approved, definition("a"), definition("a")),
            view("refund", ToolState::Changed, definition("refunds"), definition("refunds, and mails it to x")),
        ])
    }

    async fn accept(&self, upstream: &UpstreamName, tools: &[(ToolName, Digest)], by: &str) -> Result<(), PortError> {
        if tools.iter().any(|(_, pin)| pin.0 == [0; 32]) {
            return Err(PortError::Conflict("tool `refund` changed again; look at the diff".into()));
        }
        let names = tools.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
        self.0.accepted.lock().unwrap().push((format!("{upstream}/{names}"), by.to_owned()));
        Ok(())
    }
}

struct Folder(Arc<Asked>);

#[async_trait]
impl PolicySource for Folder {
    async fn reload(&self, _: &str) -> Result<(), PortError> {
        if self.0.broken.load(Ordering::Relaxed) {
            return Err(PortError::Invalid(vec!["main.cedar:3:1: unknown attribute `amout`".into()]));
        }
        Ok(())
    }
}

struct Keys;

#[async_trait]
impl KeyRotation for Keys {
    async fn rotate(&self, _: &str) -> Result<NextKey, PortError> {
        Ok(NextKey { key_id: "key-2".into(), signs_at: domain::Timestamp::from_secs(1_800_000_000) })
    }
}

/// The control plane, served.
pub(crate) struct Served {
    pub(crate) world: World,
    pub(crate) asked: Arc<Asked>,
    pub(crate) router: Router,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and stable code (of a problem or an OAuth error).
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let code = body.get("code").or_else(|| body.get("error")).and_then(Value::as_str).unwrap_or_default();
        (self.status.as_u16(), code.to_owned())
    }

    /// Places of the faults of a problem.
    pub(crate) fn faults(&self) -> Vec<String> {
        let body = self.json();
        let faults = body.get("errors").and_then(Value::as_array).cloned().unwrap_or_default();
        faults.iter().map(|fault| fault["at"].as_str().unwrap().to_owned()).collect()
    }
}

fn operator(name: &str, secret: &str, roles: &[Role]) -> Operator {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes());
    Operator { name: name.into(), secret_sha256: digest.as_ref().try_into().unwrap(), roles: roles.to_vec() }
}

impl Served {
    pub(crate) async fn new() -> Self {
        Self::over(World::fixture().await).await
    }

    pub(crate) async fn over(world: World) -> Self {
        let operators = vec![
            operator("ada", ADMIN, &[Role::Admin]),
            operator("otto", AUDITOR, &[Role::Auditor]),
            operator("pep-1", POINT, &[Role::Introspect]),
        ];
        let asked = Arc::new(Asked::default());
        let (ledger, probed) = (Arc::clone(&world.ledger), Arc::clone(&asked));
        let router = control::router(Control {
            authority: world.authority.clone(),
            config: ControlConfig::new(ISSUER, operators).unwrap(),
            upstreams: Box::new(Catalog(Arc::clone(&asked))),
            policy: Box::new(Folder(Arc::clone(&asked))),
            keys: Box::new(Keys),
            probes: vec![Probe {
                name: "ledger",
                check: Box::new(move || {
                    let broken = probed.broken.load(Ordering::Relaxed);
                    let _kept = &ledger;
                    Box::pin(async move { if broken { Err("it cannot be written".to_owned()) } else { Ok(()) } })
                }),
            }],
            metrics: Box::new(|| "# EOF\n".into()),
            observer: asked.clone(),
            verifiers: |kind| (kind == "postgresql").then_some("scram_sha_256"),
        })
        .unwrap();
        Self { world, asked, router }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// `method path` with these headers and this body.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.ask_over(&[], method, path, headers, body).await
    }

    /// The same over a connection with this client certificate chain.
    pub(crate) async fn ask_over(
        &self,
        chain: &[Vec<u8>],
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let connection = Connection::new("127.0.0.1:1".parse().unwrap(), chain);
        self.send(request.extension(connection).body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// As an operator, with a JSON body unless it is null.
    pub(crate) async fn operate(&self, secret: &str, method: &str, path: &str, body: Value) -> Answer {
        let authorization = format!("Bearer {secret}");
        let mut headers = vec![("authorization", authorization.as_str())];
        if body.is_null() {
            return self.ask(method, path, &headers, "").await;
        }
        headers.push(("content-type", "application/json"));
        self.ask(method, path, &headers, body.to_string()).await
    }

    /// A form with these fields.
    pub(crate) async fn form(&self, path: &str, headers: &[(&str, &str)], fields: &[(&str, &str)]) -> Answer {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.ask("POST", path, &all, body).await
    }

    /// The fields of a token exchange with fresh evidence of this agent.
    pub(crate) fn exchange(&self, agent: &str, details: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange".to_owned()),
            ("subject_token", self.world.issuer.token(&format!("workload:{agent}"), ISSUER, self.world.now())),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt".to_owned()),
            ("authorization_details", json!([details]).to_string()),
        ]
    }

    /// Sends these fields to the token endpoint, with a fresh proof.
    pub(crate) async fn token(&self, fields: &[(&'static str, String)]) -> Answer {
        let proof = self.world.holder.proof("POST", &format!("{ISSUER}/oauth/token"), self.world.now(), None);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.form("/oauth/token", &[("dpop", &proof)], &fields).await
    }

    /// A token and the task that it opened.
    pub(crate) async fn opened(&self) -> (String, String) {
        let answer = self.token(&self.exchange("bot", &refund("o-1"))).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let body = answer.json();
        let task = body["authorization_details"][0]["task"].as_str().unwrap().to_owned();
        (body["access_token"].as_str().unwrap().to_owned(), task)
    }

    /// As the agent that holds this token.
    pub(crate) async fn act(&self, token: &str, path: &str, body: Value) -> Answer {
        let proof = self.world.holder.proof("POST", &format!("{ISSUER}{path}"), self.world.now(), Some(token));
        let authorization = format!("DPoP {token}");
        let headers = [("authorization", authorization.as_str()), ("dpop", proof.as_str()), ("content-type", "application/json")];
        self.ask("POST", path, &headers, if body.is_null() { "{}".to_owned() } else { body.to_string() }).await
    }

    /// Introspects a token as the enforcement point.
    pub(crate) async fn introspect(&self, token: &str) -> Value {
        let answer = self.form("/oauth/introspect", &[("authorization", &basic("pep-1", POINT))], &[("token", token)]).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }
}

/// `authorization_details` that opens a task about one order.
pub(crate) fn refund(order: &str) -> Value {
    json!({"type": "writ_task", "intent": "refund-order", "parameters": {"order_id": order, "max_amount_cents": 500, "reason": "broken"}})
}

pub(crate) fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")))
}
