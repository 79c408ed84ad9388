//! The pin of a tool definition: a hash over the server's identity and the whole wire object, so that any change of
//! it shows (R21) while a mere re-serialisation does not.

use aws_lc_rs::digest::{Context, SHA256};
use domain::json::canonical;
use domain::{Digest, UpstreamName};
use serde_json::Value;

/// The pin of a tool as an upstream sent it.
#[must_use]
pub fn pin(upstream: &UpstreamName, definition: &Value) -> Digest {
    let mut hash = Context::new(&SHA256);
    // An upstream's name holds no line break: the parts cannot run into each other.
    hash.update(b"writ-tool-pin-v1\n");
    hash.update(upstream.as_str().as_bytes());
    hash.update(b"\n");
    hash.update(canonical(definition).as_bytes());
    let mut digest = [0; 32];
    digest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(digest)
}

/// 64 lower-case hexadecimal digits as 32 bytes: one spelling only.
pub(crate) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut out = [0; 32];
    if pairs.len() != out.len() || !rest.is_empty() {
        return None;
    }
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        *slot = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}
