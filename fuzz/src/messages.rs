//! What agents and upstreams send as MCP: JSON, messages, event streams, and what of an answer leaves.

use crate::scan::{Look, look};
use bytes::Bytes;
use domain::json::{FaultKind, Limits, canonical, read, read_text};
use domain::limits::JSON_DEPTH_MAX;
use gateway::door;
use gateway::mcp::message::{BATCH_MAX, ID_BYTES_MAX, METHOD_BYTES_MAX, Malformed, Message, Params, Payload, Raw, strict_value};
use gateway::mcp::object::Members;
use gateway::mcp::stream;
use serde_json::Value;

/// The strict reader agrees with a scanner of another author, and what it read has one spelling.
pub fn json(data: &[u8]) {
    let seen = look(data);
    let text = std::str::from_utf8(data);
    for limits in [Limits::MESSAGE, Limits::RECORD, Limits::TOKEN, Limits::FILE] {
        let result = read(data, limits);
        match (&result, &seen) {
            (Ok(_), None) => panic!("read what is not JSON"),
            (Ok(_), Some(seen)) => {
                assert!(!seen.doubled && !seen.torn && seen.depth <= limits.depth_max, "{seen:?}");
            }
            (Err(fault), Some(seen)) => {
                let cause = match fault.kind {
                    FaultKind::Duplicate(_) => seen.doubled,
                    FaultKind::TooDeep(_) => seen.depth > limits.depth_max,
                    FaultKind::Syntax(_) => seen.torn || seen.wide || seen.depth > 120,
                    FaultKind::Inexact => true,
                    FaultKind::TooLarge(_) | FaultKind::NotUtf8 => false,
                };
                assert!(cause, "{fault:?}, but {seen:?}");
            }
            (Err(_), None) => {}
        }
        let Ok(value) = result else { continue };
        let plain: Value = serde_json::from_slice(data).expect("serde reads what the strict reader reads");
        assert_eq!(plain, value);
        let once = canonical(&value);
        let again = read_text(&once, Limits { bytes_max: usize::MAX, ..limits }).expect("canonical text is read");
        assert_eq!(canonical(&again), once, "canonical text has two spellings");
        members(data);
    }
    if let Ok(text) = text {
        assert_eq!(strict_value(text).is_ok(), read(data, Limits::MESSAGE).is_ok());
    }
}

/// An object taken apart and put together says the same.
fn members(data: &[u8]) {
    let Ok(raw) = Raw::from_json(Bytes::copy_from_slice(data)) else { return };
    match (Members::of(&raw), raw.to_value()) {
        (Some(members), value @ Value::Object(_)) => assert_eq!(members.to_raw().to_value(), value),
        (Some(_), _) => panic!("members of what is no object"),
        (None, Value::Object(_)) => panic!("no members of an object that the strict reader reads"),
        (None, _) => {}
    }
}

/// What was parsed is what is forwarded, and reads as one thing only.
pub fn message(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let seen = look(data);
    let payload = Payload::parse(&body);
    assert_eq!(Message::parse(&body).is_ok(), matches!(payload, Ok(Payload::Single(_))), "two readers of one message differ");
    if payload.is_ok() {
        assert!(seen.is_some(), "a message that is not JSON");
    }
    match payload {
        Ok(Payload::Single(message)) => one(&message),
        Ok(Payload::Batch(messages)) => {
            assert!((1..=BATCH_MAX).contains(&messages.len()));
            messages.iter().for_each(one);
        }
        Err(Malformed::NotUtf8) => assert!(std::str::from_utf8(data).is_err()),
        Err(_) => {}
    }
}

fn one(message: &Message) {
    let (frame, method, given) = match message {
        Message::Request(request) => {
            assert!(request.id.to_string().len() <= 6 * ID_BYTES_MAX + 2);
            (
                stream::call(Some(&request.id), &request.method, request.params.as_ref().map(Params::raw)),
                Some(&request.method),
                request.params.as_ref(),
            )
        }
        Message::Notification(said) => {
            (stream::call(None, &said.method, said.params.as_ref().map(Params::raw)), Some(&said.method), said.params.as_ref())
        }
        Message::Response(response) => match (&response.id, &response.outcome) {
            (Some(id), Ok(raw)) => (stream::result(id, raw), None, None),
            (id, Err(raw)) => (stream::error(id.as_ref(), raw), None, None),
            (None, Ok(_)) => panic!("a result for nobody"),
        },
    };
    if let Some(method) = method {
        assert!((1..=METHOD_BYTES_MAX).contains(&method.len()));
    }
    if let Some(params) = given {
        decided(params);
    }
    // What goes on is read as the same message by whoever reads it next, as JSON and out of a stream.
    let again = Message::parse(&frame).expect("what is forwarded is a message");
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
    let events = door::events(&stream::event(None, &frame), 7, 1 << 24).expect("one event");
    let [(heard, None, None)] = events.as_slice() else { panic!("{events:?}") };
    let heard = Message::parse(&Bytes::copy_from_slice(heard)).expect("what is streamed is a message");
    let plain = |message: &Message| match message {
        Message::Request(request) => request.params.as_ref().map(|params| params.value().clone()),
        Message::Notification(said) => said.params.as_ref().map(|params| params.value().clone()),
        Message::Response(_) => None,
    };
    assert_eq!(plain(&heard), plain(message));
}

/// What is decided on is what every reader of the forwarded text sees.
fn decided(params: &Params) {
    let text = params.raw().as_bytes();
    let Look { doubled, depth, torn, .. } = look(text).expect("what is forwarded is JSON");
    assert!(!doubled && !torn && depth <= JSON_DEPTH_MAX);
    assert_eq!(params.raw().to_value().as_object(), Some(params.value()));
    let mut names: Vec<String> = params.value().keys().map(|name| name.to_ascii_lowercase()).collect();
    for known in ["name", "arguments", "uri", "task", "_meta", "ref", "argument", "context", "requestState", "inputResponses"] {
        let alike = params.value().keys().filter(|name| name.eq_ignore_ascii_case(known));
        assert!(alike.clone().all(|name| name == known), "`{known}` is spelled otherwise");
    }
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two members differ in case only");
}

/// A stream reads as its specification says, however it is cut, and no event outgrows its bound.
pub fn event(data: &[u8]) {
    let Some((step, text)) = data.split_first() else { return };
    let expected = specified(text);
    for step in [usize::from(*step % 16) + 1, 1, text.len().max(1)] {
        let found = door::events(text, step, 1 << 20).expect("within bounds");
        assert_eq!(found, expected, "in pieces of {step}");
    }
    for most in [0, 8, 64] {
        if let Some(found) = door::events(text, 5, most) {
            assert_eq!(found, expected);
            assert!(found.iter().all(|(data, _, _)| data.len() <= most));
        }
    }
}

/// WHATWG HTML "Interpreting an event stream", with ids that a header can carry only.
fn specified(text: &[u8]) -> Vec<door::Heard> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\r' if text.get(at + 1) == Some(&b'\n') => at += 1,
            b'\r' | b'\n' => {}
            other => lines.last_mut().expect("one").push(*other),
        }
        if matches!(byte, b'\r' | b'\n') {
            lines.push(Vec::new());
        }
        at += 1;
    }
    lines.pop();
    let (mut found, mut data, mut id, mut retry) = (Vec::new(), None::<Vec<u8>>, None, None);
    for line in lines {
        if line.is_empty() {
            let event = (data.take().unwrap_or_default(), id.take(), retry.take());
            if event != (Vec::new(), None, None) {
                found.push(event);
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => match &mut data {
                Some(data) => data.extend([&b"\n"[..], value].concat()),
                None => data = Some(value.to_vec()),
            },
            b"id" => {
                let fits = (1..=1_024).contains(&value.len()) && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
                id = fits.then(|| String::from_utf8_lossy(value).into_owned());
            }
            b"retry" => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                retry = digits.then(|| String::from_utf8_lossy(value).parse().ok()).flatten();
            }
            _ => {}
        }
    }
    found
}

/// What leaves of a client's words, and passes of an upstream's, is narrow already: to narrow it once more changes nothing.
pub fn answer(data: &[u8]) {
    let Ok(raw) = Raw::from_json(Bytes::copy_from_slice(data)) else { return };
    let value = raw.to_value();
    if let Some(left) = door::leaving_answer(&raw) {
        let seen = look(left.as_bytes()).expect("an answer that leaves is JSON");
        assert!(!seen.doubled && !seen.torn);
        let again = door::leaving_answer(&left).expect("what left leaves again");
        assert_eq!(again.as_bytes(), left.as_bytes());
    }
    if let Some(tags) = door::leaving_tags(&value) {
        assert_eq!(door::leaving_tags(&without_renamed(tags.clone())), None, "{tags}");
    }
    let able = door::leaving_capabilities(&value);
    assert_eq!(door::leaving_capabilities(&able), able);
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(narrowed) = door::narrowed(text)
    {
        assert_eq!(door::narrowed(&narrowed), None, "{narrowed}");
    }
}

/// A progress token that was renamed is text, which would be renamed again.
fn without_renamed(mut tags: Value) -> Value {
    if let Some(tags) = tags.as_object_mut()
        && tags.get("progressToken").is_some_and(Value::is_string)
    {
        tags.remove("progressToken");
    }
    tags
}
