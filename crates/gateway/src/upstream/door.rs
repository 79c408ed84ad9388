//! The part of the door for fuzz targets that leads to what upstreams stream. Compiled with `--cfg fuzzing` alone.

use super::sse::SseParser;

/// Data, id and waiting time of an event.
pub type Heard = (Vec<u8>, Option<String>, Option<u64>);

/// The events of a stream that arrives in pieces of `step` bytes; `None` if it is refused.
#[must_use]
pub fn events(stream: &[u8], step: usize, bytes_max: usize) -> Option<Vec<Heard>> {
    let mut parser = SseParser::new(bytes_max);
    let mut found = Vec::new();
    for piece in stream.chunks(step.max(1)) {
        parser.push(piece, |event| found.push((event.data, event.id, event.retry_millis))).ok()?;
    }
    Some(found)
}
