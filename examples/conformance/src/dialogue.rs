//! Requests that need inputs of the client before they are answered: which round it is, what is still
//! missing, and the state that travels with the client, sealed so that a changed one is refused.
//! MCP 2026-07-28, basic/patterns/mrtr.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rmcp::ErrorData;
use rmcp::model::{ClientCapabilities, InputRequest, InputRequests, InputRequiredResult, InputResponses};
use serde_json::{Value, json};

use crate::fixture::{Dialogue, Fixture};

/// How a dialogue goes on.
pub(crate) enum Step {
    /// The client must give inputs and call again.
    Ask(InputRequiredResult),
    /// All is there: the text of the answer.
    Done(String),
}

/// What the client sent with the request.
pub(crate) struct Given<'a> {
    pub(crate) responses: Option<&'a InputResponses>,
    pub(crate) state: Option<&'a str>,
    pub(crate) declared: &'a ClientCapabilities,
}

/// Seals the state of dialogues. The key lives as long as the process: a test needs no more.
pub(crate) struct Dialogues {
    key: hmac::Key,
}

impl Dialogues {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())?;
        Ok(Self { key })
    }

    /// Goes on with a dialogue from what the client sent.
    pub(crate) fn step(&self, fixture: &Fixture, dialogue: &Dialogue, given: &Given<'_>) -> Result<Step, ErrorData> {
        let asked = given.state.map(|state| self.open(state)).transpose()?;
        let inputs: Value = given.responses.map(|responses| json!(responses)).unwrap_or_default();
        // Without a state the client's inputs can only belong to the first round.
        let round = asked.unwrap_or(0);
        let Some(wanted) = dialogue.rounds.get(round) else { return Err(refused()) };
        let requests = requests(fixture, dialogue, wanted, given.declared)?;
        let all_given = requests.keys().all(|name| inputs.get(name).is_some_and(Value::is_object));
        let begun = given.responses.is_some() && (asked.is_some() || !dialogue.state);
        let complete = requests.is_empty() || (begun && all_given);
        if !complete {
            return Ok(self.ask(dialogue, requests, round));
        }
        match dialogue.rounds.get(round + 1) {
            Some(next) => Ok(self.ask(dialogue, self::requests(fixture, dialogue, next, given.declared)?, round + 1)),
            None => Ok(Step::Done(dialogue.answer(&inputs))),
        }
    }

    fn ask(&self, dialogue: &Dialogue, requests: InputRequests, round: usize) -> Step {
        let state = dialogue.state.then(|| self.seal(round));
        Step::Ask(InputRequiredResult::new(Some(requests), state))
    }

    fn seal(&self, round: usize) -> String {
        let round = round.to_string();
        let tag = hmac::sign(&self.key, round.as_bytes());
        format!("{round}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    fn open(&self, state: &str) -> Result<usize, ErrorData> {
        let (round, tag) = state.split_once('.').ok_or_else(refused)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| refused())?;
        hmac::verify(&self.key, round.as_bytes(), &tag).map_err(|_| refused())?;
        round.parse().map_err(|_| refused())
    }
}

fn refused() -> ErrorData {
    ErrorData::invalid_params("the request state is not one of ours", None)
}

fn requests(
    fixture: &Fixture,
    dialogue: &Dialogue,
    wanted: &[String],
    declared: &ClientCapabilities,
) -> Result<InputRequests, ErrorData> {
    let mut requests = InputRequests::new();
    for name in wanted {
        let request = fixture.input(name)?;
        if !dialogue.declared_only || can_give(declared, &request) {
            requests.insert(name.clone(), request);
        }
    }
    Ok(requests)
}

fn can_give(declared: &ClientCapabilities, request: &InputRequest) -> bool {
    match request {
        InputRequest::Elicitation(_) => declared.elicitation.is_some(),
        InputRequest::CreateMessage(_) => declared.sampling.is_some(),
        InputRequest::ListRoots(_) => declared.roots.is_some(),
        _ => false,
    }
}
