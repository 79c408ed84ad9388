//! Rust text made safe to search: comments, strings and character literals are blanked (lines stay
//! where they are), so that a brace is a brace and a word is a word. No grammar beyond that: it finds
//! functions and traits by their keyword and the braces that follow.

/// Rust text with everything but code blanked.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    code: Vec<char>,
}

/// A function or a trait: where it begins and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
    /// For a trait: the functions directly in it.
    pub(crate) functions: usize,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        Self { code: blanked(text) }
    }

    /// The code as text, blanks included.
    pub(crate) fn text(&self) -> String {
        self.code.iter().collect()
    }

    /// Lines that hold code.
    pub(crate) fn lines(&self) -> usize {
        self.text().lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Blanks every module behind `#[cfg(test)]`.
    pub(crate) fn without_test_modules(mut self) -> Self {
        let marker: Vec<char> = "#[cfg(test)]".chars().collect();
        let mut at = 0;
        while let Some(start) = find(&self.code, &marker, at) {
            let after = start + marker.len();
            let end = self.item_end(after).unwrap_or(after);
            for place in self.code.iter_mut().take(end).skip(start) {
                if *place != '\n' {
                    *place = ' ';
                }
            }
            at = end;
        }
        self
    }

    pub(crate) fn functions(&self) -> Vec<Item> {
        self.items("fn")
    }

    pub(crate) fn traits(&self) -> Vec<Item> {
        self.items("trait")
    }

    fn items(&self, keyword: &str) -> Vec<Item> {
        let keyword: Vec<char> = keyword.chars().collect();
        let mut items = Vec::new();
        let mut at = 0;
        while let Some(start) = find(&self.code, &keyword, at) {
            at = start + keyword.len();
            let bounded = start.checked_sub(1).and_then(|before| self.code.get(before)).is_none_or(|c| !is_word(*c));
            let name: String = self.rest(at).skip_while(|c| c.is_whitespace()).take_while(|c| is_word(*c)).collect();
            let spaced = self.code.get(at).is_some_and(|c| c.is_whitespace());
            if !bounded || !spaced || name.is_empty() {
                continue;
            }
            let Some(end) = self.item_end(at) else { continue };
            let newlines = |to: usize| self.code.iter().take(to).filter(|c| **c == '\n').count();
            let line = newlines(start) + 1;
            items.push(Item { name, line, lines: newlines(end) + 2 - line, functions: self.direct_functions(start, end) });
        }
        items
    }

    fn rest(&self, at: usize) -> impl Iterator<Item = char> + '_ {
        self.code.iter().skip(at).copied()
    }

    /// One past the `}` that closes the item whose head is at `at`, or past its `;`.
    fn item_end(&self, at: usize) -> Option<usize> {
        let mut braces = 0_usize;
        let mut brackets = 0_usize;
        for (offset, c) in self.rest(at).enumerate() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.checked_sub(1)?,
                '{' => braces += 1,
                '}' => {
                    braces = braces.checked_sub(1)?;
                    if braces == 0 && brackets == 0 {
                        return Some(at + offset + 1);
                    }
                }
                ';' if braces == 0 && brackets == 0 => return Some(at + offset + 1),
                _ => {}
            }
        }
        None
    }

    fn direct_functions(&self, start: usize, end: usize) -> usize {
        let mut depth = 0_usize;
        let mut count = 0;
        let mut before = ' ';
        for (offset, c) in self.rest(start).take(end - start).enumerate() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                'f' if depth == 1 && !is_word(before) => {
                    let word: String = self.rest(start + offset).take(3).collect();
                    count += usize::from(word == "fn ");
                }
                _ => {}
            }
            before = c;
        }
        count
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(code: &[char], wanted: &[char], from: usize) -> Option<usize> {
    code.windows(wanted.len()).skip(from).position(|window| window == wanted).map(|at| at + from)
}

/// Replaces what is not code by spaces, keeping line ends.
fn blanked(text: &str) -> Vec<char> {
    let code: Vec<char> = text.chars().collect();
    let mut out = Vec::with_capacity(code.len());
    let mut at = 0;
    while let Some(c) = code.get(at).copied() {
        let length = skipped(&code, at, out.last().copied());
        if length == 0 {
            out.push(c);
            at += 1;
        } else {
            out.extend(code.iter().skip(at).take(length).map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

/// How many characters from `at` are a comment or a literal; 0 if it is code.
fn skipped(code: &[char], at: usize, before: Option<char>) -> usize {
    let next = |offset: usize| code.get(at + offset).copied();
    let inside_word = before.is_some_and(is_word);
    match (next(0), next(1)) {
        (Some('/'), Some('/')) => rest(code, at).take_while(|c| *c != '\n').count(),
        (Some('/'), Some('*')) => block_comment(code, at),
        (Some('"'), _) => quoted(code, at, '"'),
        (Some('b' | 'c'), Some('"')) if !inside_word => 1 + quoted(code, at + 1, '"'),
        (Some('r'), Some('"' | '#')) if !inside_word => raw_string(code, at, 1),
        (Some('b' | 'c'), Some('r')) if !inside_word && matches!(next(2), Some('"' | '#')) => raw_string(code, at, 2),
        // A character literal, not a lifetime: it closes after one character or an escape.
        (Some('\''), Some('\\')) => quoted(code, at, '\''),
        (Some('\''), Some(_)) if next(2) == Some('\'') => 3,
        _ => 0,
    }
}

fn rest(code: &[char], at: usize) -> impl Iterator<Item = char> + '_ {
    code.iter().skip(at).copied()
}

fn quoted(code: &[char], at: usize, quote: char) -> usize {
    let mut escaped = false;
    for (offset, c) in rest(code, at).enumerate().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return offset + 1,
            _ => {}
        }
    }
    code.len() - at
}

fn raw_string(code: &[char], at: usize, prefix: usize) -> usize {
    let hashes = rest(code, at + prefix).take_while(|c| *c == '#').count();
    let open = prefix + hashes;
    if code.get(at + open) != Some(&'"') {
        return 0;
    }
    let mut close = vec!['"'];
    close.resize(hashes + 1, '#');
    find(code, &close, at + open + 1).map_or(code.len() - at, |end| end + close.len() - at)
}

fn block_comment(code: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut offset = 0;
    while let Some(c) = code.get(at + offset) {
        match (c, code.get(at + offset + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                offset += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                offset += 2;
                if depth == 0 {
                    return offset;
                }
            }
            _ => offset += 1,
        }
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        for (text, left) in [
            ("a // {\nb", "a b"),
            ("a /* { /* } */ { \n*/ b", "a b"),
            (r#"x("}\"{") y"#, "x( ) y"),
            (r##"r#"a"{"# z"##, "z"),
            ("'{' 'a: &'a str", "'a: &'a str"),
            (r"'\'' {", "{"),
        ] {
            let source = Source::new(text).text();
            assert_eq!(source.split_whitespace().collect::<Vec<_>>().join(" "), left, "{text}");
            assert_eq!(source.chars().count(), text.chars().count(), "{text}");
            assert_eq!(source.lines().count(), text.lines().count(), "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_their_keyword_to_their_brace() {
        let source = Source::new("struct A;\npub fn one(a: [u8; 2]) {\n  if a { \"}\" }\n}\nfn two();\nlet fnord = 1;\n");
        let found: Vec<_> = source.functions().into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_owned(), 2, 3), ("two".to_owned(), 5, 1)]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let source = Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n#[cfg(test)]\nmod more;\nfn c() {}\n");
        let source = source.without_test_modules();
        assert_eq!(source.lines(), 2);
        assert_eq!(source.functions().len(), 2);
    }

    #[test]
    fn traits_count_the_functions_directly_in_them() {
        let source = Source::new("trait T {\n fn a();\n fn b() { fn inner() {} }\n async fn c();\n}\n");
        assert_eq!(source.traits().first().map(|t| t.functions), Some(3));
    }
}
