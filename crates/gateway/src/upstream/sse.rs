//! Server-sent events, one byte stream at a time (WHATWG HTML "Server-sent events", interpretation of a stream).
//! Bounded: an event or line that grows past the limit ends the stream. No I/O, no clock.

use super::error::UpstreamError;

/// Longest event id that is kept; longer ones are ignored, as an id only serves to resume.
const ID_BYTES_MAX: usize = 1_024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SseEvent {
    /// Its data: the lines joined. Empty for an event that only carries an id or a waiting time.
    pub(super) data: Vec<u8>,
    /// The id that it set.
    pub(super) id: Option<String>,
    /// The waiting time that it set, in milliseconds.
    pub(super) retry_millis: Option<u64>,
}

/// Splits bytes into events.
#[derive(Debug)]
pub(super) struct SseParser {
    line: Vec<u8>,
    event: SseEvent,
    has_data: bool,
    started: bool,
    skip_newline: bool,
    bytes_max: usize,
}

impl SseParser {
    /// A parser for a stream whose events have at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { line: Vec::new(), event: SseEvent::default(), has_data: false, started: false, skip_newline: false, bytes_max }
    }

    /// How many bytes of an event that is not finished it holds.
    pub(super) fn held(&self) -> usize {
        self.line.len() + self.event.data.len()
    }

    /// Takes more of the stream and hands each finished event to `found`.
    pub(super) fn push(&mut self, chunk: &[u8], mut found: impl FnMut(SseEvent)) -> Result<(), UpstreamError> {
        let mut rest = chunk;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (head, tail) = rest.split_at(at);
            let mut tail = tail.iter();
            let ending = tail.next().copied();
            rest = tail.as_slice();
            if self.skip_newline && head.is_empty() && ending == Some(b'\n') {
                self.skip_newline = false;
                continue;
            }
            self.skip_newline = ending == Some(b'\r');
            self.grow(head)?;
            let line = std::mem::take(&mut self.line);
            if let Some(event) = self.end_line(&line) {
                found(event);
            }
        }
        if !rest.is_empty() {
            self.skip_newline = false;
            self.grow(rest)?;
        }
        Ok(())
    }

    fn grow(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        if self.held() + bytes.len() > self.bytes_max {
            return Err(UpstreamError::TooLarge(self.bytes_max));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Option<SseEvent> {
        let line = if self.started { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.started = true;
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            self.has_data = false;
            let says_something = !event.data.is_empty() || event.id.is_some() || event.retry_millis.is_some();
            return says_something.then_some(event);
        }
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.has_data = true;
                self.event.data.extend_from_slice(value);
            }
            b"id" => self.event.id = event_id(value),
            b"retry" => self.event.retry_millis = millis(value),
            // Comments (an empty name), `event`, and names of the future. MCP uses no event types.
            _ => {}
        }
        None
    }
}

/// A waiting time: digits alone, no sign.
fn millis(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// An id that can go into a `Last-Event-ID` header.
fn event_id(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let fits = !text.is_empty() && text.len() <= ID_BYTES_MAX && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e));
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn events(stream: &[u8], step: usize) -> Vec<SseEvent> {
        let mut parser = SseParser::new(1_000);
        let mut found = Vec::new();
        for chunk in stream.chunks(step) {
            parser.push(chunk, |event| found.push(event)).unwrap();
        }
        found
    }

    #[test]
    fn a_stream_reads_alike_however_it_is_cut() {
        let stream = b"\xef\xbb\xbf: hello\r\nid: 1\r\nretry: 20\r\ndata:\r\n\r\ndata: {\"a\":\ndata: 1}\nevent: message\n\n\rid:2\rdata:x\r\rdata: unfinished";
        let whole = events(stream, stream.len());
        for step in 1..stream.len() {
            assert_eq!(events(stream, step), whole, "cut every {step} bytes");
        }
        assert_eq!(
            whole,
            [
                SseEvent { data: vec![], id: Some("1".into()), retry_millis: Some(20) },
                SseEvent { data: b"{\"a\":\n1}".to_vec(), id: None, retry_millis: None },
                SseEvent { data: b"x".to_vec(), id: Some("2".into()), retry_millis: None },
            ]
        );
    }

    #[test]
    fn an_endless_line_or_event_ends_the_stream() {
        for piece in [b"data".as_slice(), b"data: x\n", b": comment"] {
            let mut parser = SseParser::new(100);
            let outcome = (0..1_000).try_for_each(|_| parser.push(piece, |_| ()));
            assert_eq!(outcome, Err(UpstreamError::TooLarge(100)), "{piece:?}");
        }
    }

    #[test]
    fn an_id_that_no_header_can_carry_is_ignored() {
        for id in [b"a\x00b".as_slice(), b"a\xffb", "ä".as_bytes(), b""] {
            let stream = [b"id: ", id, b"\ndata: x\n\n"].concat();
            assert_eq!(events(&stream, 3), [SseEvent { data: b"x".to_vec(), id: None, retry_millis: None }], "{id:?}");
        }
    }

    #[test]
    fn a_waiting_time_is_digits_alone() {
        for (time, millis) in [("20", Some(20)), ("+20", None), ("-1", None), ("2 ", None), ("", None)] {
            let stream = format!("retry: {time}\ndata: x\n\n");
            assert_eq!(
                events(stream.as_bytes(), 5),
                [SseEvent { data: b"x".to_vec(), id: None, retry_millis: millis }],
                "{time:?}"
            );
        }
    }
}
