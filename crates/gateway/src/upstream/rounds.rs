//! A stateless upstream behind a client with sessions: a result that says `input_required` becomes requests to the
//! client, and its answers become the next round of the same request. The upstream's `requestState` goes back exactly as
//! it came; each round has a new id. Bounded. MCP 2026-07-28 "Multi Round-Trip Requests".

use super::error::UpstreamError;
use super::exchange::{Event, Source};
use super::link::{Link, Prepared};
use crate::mcp::message::{Id, Raw};
use crate::mcp::object::Members;
use authority::Warrant;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most rounds of one request.
const ROUNDS_MAX: usize = 16;
/// Most questions of one round.
const QUESTIONS_MAX: usize = 16;

/// The answer to a question.
pub(super) struct Answered {
    pub(super) id: Id,
    pub(super) outcome: Result<Raw, Raw>,
    /// Of the decision that let it go; a refusal needs none.
    pub(super) warrant: Option<Warrant>,
}

/// Where it goes.
pub(super) type AnswerTo = mpsc::Sender<Answered>;

/// The rounds of one request.
pub(super) struct Rounds {
    request: Prepared,
    round: usize,
    questions: VecDeque<Event>,
    /// Id of a question, its key in `inputRequests`, its method, and the answer when it is there.
    open: Vec<(Id, String, String, Option<String>)>,
    state: Option<String>,
    waiting: bool,
    sender: AnswerTo,
    answers: mpsc::Receiver<Answered>,
    /// The first of the answers of this round, which is the one that falls first.
    warrant: Option<Warrant>,
}

impl Rounds {
    pub(super) fn new(request: Prepared) -> Self {
        let (sender, answers) = mpsc::channel(QUESTIONS_MAX);
        Self {
            request,
            round: 0,
            questions: VecDeque::new(),
            open: Vec::new(),
            state: None,
            waiting: false,
            sender,
            answers,
            warrant: None,
        }
    }

    /// The next question for the client.
    pub(super) fn question(&mut self) -> Option<Event> {
        self.questions.pop_front()
    }

    /// Whether answers are awaited.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Where answers go while the client is asked.
    pub(super) fn answers_to(&self) -> Option<AnswerTo> {
        self.waiting.then(|| self.sender.clone())
    }

    /// Whether a result asks for input.
    pub(super) fn wants_input(&self, result: &Raw) -> Result<bool, UpstreamError> {
        let members = Members::of(result).ok_or(UpstreamError::Protocol("a result is not an object"))?;
        Ok(members.value("resultType").is_some_and(|kind| kind == "input_required"))
    }

    /// Turns the result into questions.
    pub(super) fn ask(&mut self, link: &Arc<Link>, result: &Raw) -> Result<(), UpstreamError> {
        const MALFORMED: UpstreamError = UpstreamError::Protocol("a request for input is malformed");
        self.round += 1;
        if self.round > ROUNDS_MAX {
            return Err(UpstreamError::TooManyRounds(ROUNDS_MAX));
        }
        let members = Members::of(result).ok_or(MALFORMED)?;
        self.state = members.get("requestState").map(str::to_owned);
        if self.state.as_deref().is_some_and(|text| !text.starts_with('"')) {
            return Err(MALFORMED);
        }
        let asked: Value = members.value("inputRequests").unwrap_or_else(|| json!({}));
        let asked = asked.as_object().ok_or(MALFORMED)?;
        if asked.len() > QUESTIONS_MAX || (asked.is_empty() && self.state.is_none()) {
            return Err(MALFORMED);
        }
        self.open.clear();
        for (key, question) in asked {
            let method = question.get("method").and_then(Value::as_str).ok_or(MALFORMED)?;
            if !matches!(method, "elicitation/create" | "sampling/createMessage" | "roots/list") {
                return Err(MALFORMED);
            }
            let id = link.own_id();
            self.open.push((id.clone(), key.clone(), method.to_owned(), None));
            let params = question.get("params").map(Raw::from_value);
            self.questions.push_back(Event::Request { id, method: method.to_owned(), params });
        }
        self.waiting = true;
        Ok(())
    }

    /// Resolves when every question has its answer: the parameters of the next round, or the client's refusal. Safe to
    /// cancel.
    pub(super) async fn answered(&mut self) -> Result<Result<Raw, Raw>, UpstreamError> {
        while self.open.iter().any(|(.., answer)| answer.is_none()) {
            let Answered { id, outcome, warrant } = self.answers.recv().await.ok_or(UpstreamError::Closed)?;
            let Some((_, _, method, answer)) = self.open.iter_mut().find(|(open, ..)| *open == id) else { continue };
            self.warrant = self.warrant.take().or(warrant);
            *answer = Some(match outcome {
                Ok(result) => String::from_utf8_lossy(result.as_bytes()).into_owned(),
                // A client that cannot ask its user is one whose user gave no answer.
                Err(_) if method == "elicitation/create" => r#"{"action":"cancel"}"#.to_owned(),
                Err(error) => {
                    self.waiting = false;
                    return Ok(Err(error));
                }
            });
        }
        self.waiting = false;
        let none = Raw::from_value(&json!({}));
        let base = self.request.params.as_ref().unwrap_or(&none);
        let mut members = Members::of(base).ok_or(UpstreamError::Protocol("parameters are not an object"))?;
        members.remove("inputResponses");
        members.remove("requestState");
        if !self.open.is_empty() {
            let pairs: Vec<String> = self
                .open
                .iter()
                .filter_map(|(_, key, _, answer)| Some(format!("{}:{}", Value::from(key.as_str()), answer.as_ref()?)))
                .collect();
            members.set_text("inputResponses", format!("{{{}}}", pairs.join(",")));
        }
        if let Some(state) = &self.state {
            members.set_text("requestState", state.clone());
        }
        Ok(Ok(members.to_raw()))
    }

    /// Sends the next round: by what was decided of the answers, or else of the request. The policy may have been replaced
    /// while the client was asked.
    pub(super) fn again(&mut self, link: &Arc<Link>, params: Raw) -> Source {
        let warrant = self.warrant.take().or_else(|| self.request.warrant.clone());
        let request = Prepared { id: link.own_id(), params: Some(params), warrant, ..self.request.clone() };
        let link = Arc::clone(link);
        Source::Opening(Box::pin(async move {
            link.open(request).await.map_err(|error| match error {
                UpstreamError::PolicyChanged => UpstreamError::PolicyChangedBetween,
                error => error,
            })
        }))
    }
}
