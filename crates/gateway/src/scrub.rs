//! Finds an injected secret in what an upstream sends back: in clear, in base64 (at each of its three alignments, both
//! alphabets), in hexadecimal, percent-encoded, escaped in JSON or HTML, broken over lines, in any letter case, and across
//! the borders of pieces. What could be the beginning of the secret is held back until it is known not to be.
//! It finds echoes; a server that means to hide the secret from it can. Pure, no I/O. Knows no HTTP.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Shortest secret that can be looked for: a shorter one would be found in answers that do not hold it.
pub(crate) const SECRET_BYTES_MIN: usize = 8;
/// Longest character reference of HTML that is decoded, `&#x0000041` for example.
const REFERENCE_BYTES_MAX: usize = 10;

/// The secret was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Echo;

/// What is looked for, in every form that one search through plain bytes can find.
pub(crate) struct Needles {
    patterns: Vec<Pattern>,
    /// Bytes at which something can begin.
    wakes: [bool; 256],
    longest: usize,
}

impl std::fmt::Debug for Needles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Needles")
    }
}

/// One text in lower case, with the table of Knuth, Morris and Pratt: how much of it still matches after a mismatch.
struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    falls: Vec<usize>,
}

impl Pattern {
    fn new(bytes: &[u8]) -> Self {
        let bytes = Zeroizing::new(bytes.to_ascii_lowercase());
        let mut pattern = Self { falls: vec![0; bytes.len()], bytes };
        let mut matched = 0;
        for at in 1..pattern.bytes.len() {
            let byte = pattern.bytes.get(at).copied().unwrap_or_default();
            matched = pattern.step(matched, byte);
            if let Some(fall) = pattern.falls.get_mut(at) {
                *fall = matched;
            }
        }
        pattern
    }

    /// How much matches after one more byte.
    fn step(&self, mut matched: usize, byte: u8) -> usize {
        loop {
            if self.bytes.get(matched) == Some(&byte) {
                return matched + 1;
            }
            match matched.checked_sub(1).and_then(|last| self.falls.get(last)) {
                Some(fall) => matched = *fall,
                None => return 0,
            }
        }
    }
}

impl Needles {
    /// What is looked for when these secrets were sent. Each has at least [`SECRET_BYTES_MIN`] bytes.
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        let mut texts: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        let mut add = |bytes: &[u8]| {
            let lower = Zeroizing::new(bytes.to_ascii_lowercase());
            if lower.len() >= SECRET_BYTES_MIN && !texts.contains(&lower) {
                texts.push(lower);
            }
        };
        for secret in secrets {
            add(secret.as_bytes());
            if secret.contains(' ') {
                add(Zeroizing::new(secret.replace(' ', "+")).as_bytes());
                // As it reads without white space and zero bytes.
                add(Zeroizing::new(secret.replace(' ', "")).as_bytes());
            }
            let hex: Zeroizing<String> = Zeroizing::new(secret.bytes().flat_map(hex).collect());
            add(hex.as_bytes());
            for skipped in 0..3 {
                add(aligned(secret, skipped, &STANDARD_NO_PAD).as_bytes());
                add(aligned(secret, skipped, &URL_SAFE_NO_PAD).as_bytes());
            }
        }
        let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::new(text)).collect();
        let mut wakes = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.bytes.first()).chain(b"%\\&") {
            for byte in [first.to_ascii_lowercase(), first.to_ascii_uppercase()] {
                if let Some(wake) = wakes.get_mut(usize::from(byte)) {
                    *wake = true;
                }
            }
        }
        let longest = patterns.iter().map(|pattern| pattern.bytes.len()).max().unwrap_or(0);
        Arc::new(Self { patterns, wakes, longest })
    }

    /// Whether a whole text holds one of them.
    pub(crate) fn occur_in(self: &Arc<Self>, text: &[u8]) -> bool {
        let mut scanner = Scanner::new(Arc::clone(self));
        scanner.push(text).is_err() || scanner.finish().is_err()
    }
}

fn hex(byte: u8) -> [char; 2] {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    [digit(byte >> 4), digit(byte & 15)]
}

/// The characters that a secret certainly has in base64 when `skipped` bytes (modulo three) stand before it.
fn aligned(secret: &str, skipped: usize, engine: &impl Engine) -> Zeroizing<String> {
    let mut whole = Zeroizing::new(vec![0; skipped]);
    whole.extend_from_slice(secret.as_bytes());
    let encoded = Zeroizing::new(engine.encode(&*whole));
    let (from, to) = ((skipped * 8).div_ceil(6), whole.len() * 8 / 6);
    Zeroizing::new(encoded.get(from..to).unwrap_or_default().to_owned())
}

/// How a stream is read before it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Plain,
    Percent,
    Json,
    Html,
    /// Without white space and zero bytes, as long as no blank line comes.
    Unbroken,
}

const READINGS: [Reading; 5] = [Reading::Plain, Reading::Percent, Reading::Json, Reading::Html, Reading::Unbroken];

/// One reading of a stream.
struct View {
    reading: Reading,
    /// Bytes of an escape that is not complete.
    pending: Vec<u8>,
    pending_at: u64,
    /// How much of each pattern matches.
    matched: Vec<usize>,
    /// Where in the stream the last bytes that were read began.
    begins: VecDeque<u64>,
    newlines: u8,
}

impl View {
    fn new(reading: Reading, patterns: usize) -> Self {
        let matched = vec![0; patterns];
        Self { reading, pending: Vec::new(), pending_at: 0, matched, begins: VecDeque::new(), newlines: 0 }
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.matched.iter().all(|matched| *matched == 0)
    }

    /// Where the earliest thing begins that could still become a match.
    fn undecided_from(&self) -> Option<u64> {
        let escape = (!self.pending.is_empty()).then_some(self.pending_at);
        let longest = self.matched.iter().copied().max().unwrap_or(0);
        let matching = self.begins.len().checked_sub(longest).filter(|_| longest > 0).and_then(|at| self.begins.get(at)).copied();
        match (escape, matching) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        }
    }

    /// Reads one byte of the stream.
    fn feed(&mut self, needles: &Needles, byte: u8, at: u64) -> Result<(), Echo> {
        match self.reading {
            Reading::Plain => self.take(needles, byte, at),
            Reading::Unbroken => self.feed_unbroken(needles, byte, at),
            Reading::Percent => self.feed_escape(needles, byte, at, b'%', percent),
            Reading::Json => self.feed_escape(needles, byte, at, b'\\', json),
            Reading::Html => self.feed_escape(needles, byte, at, b'&', html),
        }
    }

    fn feed_unbroken(&mut self, needles: &Needles, byte: u8, at: u64) -> Result<(), Echo> {
        match byte {
            b'\n' => {
                self.newlines += 1;
                if self.newlines > 1 {
                    self.matched.fill(0);
                    self.newlines = 0;
                }
                Ok(())
            }
            b'\r' | b'\t' | b' ' | 0 => Ok(()),
            byte => {
                self.newlines = 0;
                self.take(needles, byte, at)
            }
        }
    }

    fn feed_escape(&mut self, needles: &Needles, byte: u8, at: u64, begin: u8, decode: fn(&[u8]) -> Escape) -> Result<(), Echo> {
        if self.pending.is_empty() && byte != begin {
            return self.take(needles, byte, at);
        }
        if self.pending.is_empty() {
            self.pending_at = at;
        }
        self.pending.push(byte);
        match decode(&self.pending) {
            Escape::More => Ok(()),
            Escape::Is(character) => {
                let from = self.pending_at;
                self.pending.clear();
                let mut utf8 = [0; 4];
                character.encode_utf8(&mut utf8).bytes().try_for_each(|byte| self.take(needles, byte, from))
            }
            Escape::Byte(byte) => {
                self.pending.clear();
                self.take(needles, byte, self.pending_at)
            }
            Escape::None => {
                // Not an escape: its bytes are themselves, and the last may begin one.
                let last = self.pending.pop();
                let raw = std::mem::take(&mut self.pending);
                for (byte, at) in raw.iter().zip(self.pending_at..) {
                    self.take(needles, *byte, at)?;
                }
                match last {
                    Some(byte) if raw.is_empty() => self.take(needles, byte, at),
                    Some(byte) => self.feed_escape(needles, byte, at, begin, decode),
                    None => Ok(()),
                }
            }
        }
    }

    /// Takes one byte as it reads.
    fn take(&mut self, needles: &Needles, byte: u8, at: u64) -> Result<(), Echo> {
        let byte = byte.to_ascii_lowercase();
        self.begins.push_back(at);
        if self.begins.len() > needles.longest {
            self.begins.pop_front();
        }
        let mut found = Ok(());
        for (matched, pattern) in self.matched.iter_mut().zip(&needles.patterns) {
            *matched = pattern.step(*matched, byte);
            if *matched == pattern.bytes.len() {
                found = Err(Echo);
            }
        }
        found
    }

    /// Whether the stream broke off within a secret, with half of it or more said.
    fn breaks_off_within(&self, needles: &Needles) -> bool {
        self.matched.iter().zip(&needles.patterns).any(|(matched, pattern)| *matched * 2 >= pattern.bytes.len())
    }
}

/// What an escape so far is.
enum Escape {
    More,
    Is(char),
    Byte(u8),
    None,
}

fn percent(so_far: &[u8]) -> Escape {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    match so_far {
        [_] => Escape::More,
        [_, high] if digit(high).is_some() => Escape::More,
        [_, high, low] => match (digit(high), digit(low)) {
            (Some(high), Some(low)) => u8::try_from(high << 4 | low).map_or(Escape::None, Escape::Byte),
            _ => Escape::None,
        },
        _ => Escape::None,
    }
}

fn json(so_far: &[u8]) -> Escape {
    match so_far {
        [_] | [_, b'u'] => Escape::More,
        [_, b'u', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit) => match number(digits, 16) {
            _ if digits.len() < 4 => Escape::More,
            // Half of a pair: no secret that fits into a header has one.
            code => Escape::Is(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)),
        },
        [_, b'n'] => Escape::Is('\n'),
        [_, b'r'] => Escape::Is('\r'),
        [_, b't'] => Escape::Is('\t'),
        [_, byte @ (b'/' | b'\\' | b'"' | b'\'')] => Escape::Byte(*byte),
        _ => Escape::None,
    }
}

fn html(so_far: &[u8]) -> Escape {
    let Some((b';', name)) = so_far.get(1..).and_then(<[u8]>::split_last) else {
        let possible = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
        let more = so_far.len() <= REFERENCE_BYTES_MAX && so_far.iter().skip(1).all(possible);
        return if more { Escape::More } else { Escape::None };
    };
    let code = match name {
        b"amp" => return Escape::Is('&'),
        b"lt" => return Escape::Is('<'),
        b"gt" => return Escape::Is('>'),
        b"quot" => return Escape::Is('"'),
        b"apos" => return Escape::Is('\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    };
    code.and_then(char::from_u32).map_or(Escape::None, Escape::Is)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, radix).ok())
}

/// One search through one stream.
pub(crate) struct Scanner {
    needles: Arc<Needles>,
    views: Vec<View>,
    /// How much of the stream was read.
    read: u64,
    /// The end of it, which is not released.
    held: BytesMut,
}

impl Scanner {
    pub(crate) fn new(needles: Arc<Needles>) -> Self {
        let views = READINGS.iter().map(|reading| View::new(*reading, needles.patterns.len())).collect();
        Self { needles, views, read: 0, held: BytesMut::new() }
    }

    /// Reads the next piece. Gives what may leave now.
    ///
    /// # Errors
    /// [`Echo`]: the secret was found; nothing may leave any more.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Bytes, Echo> {
        let mut idle = self.views.iter().all(View::is_idle);
        for (byte, at) in piece.iter().zip(self.read..) {
            if idle && !self.needles.wakes.get(usize::from(*byte)).copied().unwrap_or(true) {
                continue;
            }
            for view in &mut self.views {
                view.feed(&self.needles, *byte, at)?;
            }
            idle = self.views.iter().all(View::is_idle);
        }
        self.read += piece.len() as u64;
        self.held.extend_from_slice(piece);
        let undecided = self.views.iter().filter_map(View::undecided_from).min().unwrap_or(self.read);
        let kept = usize::try_from(self.read.saturating_sub(undecided)).unwrap_or(usize::MAX);
        Ok(self.held.split_to(self.held.len().saturating_sub(kept)).freeze())
    }

    /// To be asked where a message ends, after which the next may not come for long.
    ///
    /// # Errors
    /// [`Echo`]: it breaks off within the secret.
    pub(crate) fn border(&self) -> Result<(), Echo> {
        if self.views.iter().any(|view| view.breaks_off_within(&self.needles)) { Err(Echo) } else { Ok(()) }
    }

    /// The rest, at the end of the stream.
    ///
    /// # Errors
    /// [`Echo`]: it breaks off within the secret.
    pub(crate) fn finish(self) -> Result<Bytes, Echo> {
        self.border()?;
        Ok(self.held.freeze())
    }
}

#[cfg(test)]
mod tests;
