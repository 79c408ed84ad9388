//! How deep a Cedar file is nested, told before it is parsed: Cedar's parser goes down one call for each bracket, and what it
//! makes is walked and dropped the same way. A file that a person or a program wrote badly must be a finding; unmeasured, it
//! would be the end of the process. Knows Cedar's tokens, not its grammar.

/// Most brackets and `if`s around one place.
const BRACKETS_MAX: usize = 200;
/// Most operators in one policy, elements of a list counted apart: no expression is nested deeper than it has operators.
const OPERATORS_MAX: usize = 5_000;
/// Stack for what is nested that deep: in a build without optimisation a bracket takes some sixty kilobytes of it.
const STACK_BYTES: usize = 64 * 1_024 * 1_024;

/// Where a text is nested too deeply, and what to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooDeep {
    /// The byte.
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// A bracket that is not closed yet, or the file.
#[derive(Default)]
struct Open {
    /// `if`s since the last separator: each is within the one before.
    ifs: usize,
    operators: usize,
    /// Most operators between two separators so far.
    most: usize,
}

impl Open {
    fn separate(&mut self) {
        self.most = self.most.max(self.operators);
        (self.operators, self.ifs) = (0, 0);
    }
}

/// Does with room for all that [`check`] lets through.
pub(crate) fn with_room<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK_BYTES, work)
}

/// Looks whether a text is nested deeper than can be parsed.
pub(crate) fn check(text: &str) -> Result<(), TooDeep> {
    let mut open: Vec<Open> = Vec::new();
    let mut here = Open::default();
    let mut depth: usize = 0;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek().is_some_and(|(_, next)| *next == b'/') => {
                while bytes.next_if(|(_, byte)| !matches!(byte, b'\n' | b'\r')).is_some() {}
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                open.push(std::mem::take(&mut here));
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1 + here.ifs);
                here.separate();
                let within = here.most;
                here = open.pop().unwrap_or_default();
                here.operators += within + 1;
            }
            b',' | b';' => {
                depth = depth.saturating_sub(here.ifs);
                here.separate();
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let mut end = at + 1;
                while bytes.next_if(|(_, byte)| byte.is_ascii_alphanumeric() || *byte == b'_').is_some() {
                    end += 1;
                }
                if text.get(at..end) == Some("if") {
                    (depth, here.ifs) = (depth + 1, here.ifs + 1);
                }
            }
            b'0'..=b'9' | b'@' | b'?' => {}
            punctuation if punctuation.is_ascii_punctuation() => {
                bytes.next_if(|(_, next)| b"&|=:".contains(next));
                here.operators += 1;
            }
            _ => {}
        }
        if depth > BRACKETS_MAX {
            let message = format!("nested deeper than {BRACKETS_MAX} brackets and `if`s");
            return Err(TooDeep { at, message });
        }
        if here.operators > OPERATORS_MAX {
            let message = format!("more than {OPERATORS_MAX} operators in one policy");
            return Err(TooDeep { at, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<usize> {
        check(text).err().map(|deep| deep.at)
    }

    #[test]
    fn brackets_and_ifs_are_counted_where_the_parser_sees_them() {
        let most = BRACKETS_MAX;
        assert_eq!(at(&"(".repeat(most)), None);
        assert_eq!(at(&"(".repeat(most + 1)), Some(most));
        assert_eq!(at(&"([{".repeat(most)), Some(most));
        assert_eq!(at(&"if a then ".repeat(most + 1)), Some(most * 10));
        // One after the other is not one within the other.
        assert_eq!(at(&"()".repeat(most * 2)), None);
        assert_eq!(at(&"(if a then b else c), if a then b else c,".repeat(most * 2)), None);
        assert_eq!(at(&"ifs iff _if if1 ".repeat(most + 1)), None);
        // What is no token is not counted, and what follows it is.
        assert_eq!(at(&format!("\"{}\\\"{}\"", "(".repeat(most), "(".repeat(most))), None);
        assert_eq!(at(&format!("// {}", "(".repeat(most + 1))), None);
        for end in ["\n", "\r"] {
            assert!(at(&format!("// \"{end}{}", "(".repeat(most + 1))).is_some());
        }
        assert!(at(&format!("\"\\\\\" {}", "(".repeat(most + 1))).is_some());
        assert_eq!(at(&")".repeat(9)), None);
    }

    #[test]
    fn operators_are_counted_by_policy_and_by_element() {
        let most = OPERATORS_MAX;
        assert!(at(&format!("a{}", ".b".repeat(most + 1))).is_some());
        assert!(at(&format!("((a{}){})", ".b".repeat(most / 2), ".b".repeat(most / 2))).is_some());
        assert_eq!(at(&format!("[{}]", "a.b,".repeat(most * 2))), None);
        assert_eq!(at(&"permit (principal, action, resource) when { a.b == 1 };".repeat(most)), None);
    }
}
