//! A second opinion on JSON: a scanner of its own, written from RFC 8259, that says whether a text is JSON, how deep it is
//! nested, and whether an object in it has a member twice.

use std::collections::HashSet;

/// What a JSON text looks like.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Look {
    /// An object has two members of one name.
    pub doubled: bool,
    /// Most objects and arrays around a value.
    pub depth: usize,
    /// A string has half of a surrogate pair.
    pub torn: bool,
    /// A number may be too large for a double.
    pub wide: bool,
}

struct Scanner<'a> {
    rest: &'a [u8],
    look: Look,
}

/// Looks at a text; `None` if it is not JSON.
pub fn look(text: &[u8]) -> Option<Look> {
    let mut scanner = Scanner { rest: text, look: Look::default() };
    std::str::from_utf8(text).ok()?;
    scanner.value(0)?;
    scanner.blank();
    scanner.rest.is_empty().then_some(scanner.look)
}

impl Scanner<'_> {
    fn blank(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, wanted: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > 600 {
            return None;
        }
        self.blank();
        match self.rest.first()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(drop),
            b't' => self.take(b"true"),
            b'f' => self.take(b"false"),
            b'n' => self.take(b"null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.look.depth = self.look.depth.max(depth);
        self.take(b"{")?;
        let mut names = HashSet::new();
        self.blank();
        if self.take(b"}").is_some() {
            return Some(());
        }
        loop {
            self.blank();
            let name = self.string()?;
            self.look.doubled |= !names.insert(name);
            self.blank();
            self.take(b":")?;
            self.value(depth)?;
            self.blank();
            if self.take(b"}").is_some() {
                return Some(());
            }
            self.take(b",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.look.depth = self.look.depth.max(depth);
        self.take(b"[")?;
        self.blank();
        if self.take(b"]").is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.blank();
            if self.take(b"]").is_some() {
                return Some(());
            }
            self.take(b",")?;
        }
    }

    /// A string as UTF-16, so that a torn pair has a value too.
    fn string(&mut self) -> Option<Vec<u16>> {
        self.take(b"\"")?;
        let mut out = Vec::new();
        loop {
            let (first, rest) = self.rest.split_first()?;
            match first {
                b'"' => {
                    self.rest = rest;
                    self.look.torn |= String::from_utf16(&out).is_err();
                    return Some(out);
                }
                b'\\' => {
                    let (letter, rest) = rest.split_first()?;
                    self.rest = rest;
                    out.push(match letter {
                        b'"' | b'\\' | b'/' => u16::from(*letter),
                        b'b' => 8,
                        b'f' => 12,
                        b'n' => 10,
                        b'r' => 13,
                        b't' => 9,
                        b'u' => {
                            let digits = self.rest.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                            let code = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                            self.rest = &self.rest[4..];
                            code
                        }
                        _ => return None,
                    });
                }
                0..0x20 => return None,
                _ => {
                    let text = std::str::from_utf8(self.rest).ok()?;
                    let letter = text.chars().next()?;
                    out.extend_from_slice(letter.encode_utf16(&mut [0; 2]));
                    self.rest = &self.rest[letter.len_utf8()..];
                }
            }
        }
    }

    fn digits(&mut self) -> Option<usize> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        (count > 0).then_some(count)
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b"-");
        if self.take(b"0").is_none() {
            let digits = self.digits()?;
            self.look.wide |= digits > 300;
        }
        if self.take(b".").is_some() {
            self.digits()?;
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest.strip_prefix(b"+").or_else(|| rest.strip_prefix(b"-")).unwrap_or(rest);
            self.digits()?;
            self.look.wide = true;
        }
        Some(())
    }
}
