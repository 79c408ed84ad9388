//! How names of Writ become names of Cedar, and which known word a mistyped one was meant to be.

/// Words that Cedar keeps for itself: they cannot follow a dot.
const RESERVED: [&str; 9] = ["true", "false", "if", "then", "else", "in", "is", "like", "has"];

/// `refund-order` as `RefundOrder`. Injective it is not: the caller refuses two names with one spelling.
pub(crate) fn pascal_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in name.split(['-', '_', '.']) {
        let mut characters = word.chars();
        out.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(characters.as_str());
    }
    if !out.starts_with(|c: char| c.is_ascii_alphabetic()) {
        out.insert(0, '_');
    }
    out
}

/// Whether the text can be written after a dot in a policy.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with("__cedar")
        && !RESERVED.contains(&text)
}

/// The candidate that was probably meant: at most a third of its letters differ.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word from outside can be of any length: beyond this, nobody mistyped.
    if word.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count().max(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `help` for a mistyped word.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, candidates).map(|meant| format!("did you mean `{meant}`?"))
}

/// The edit distance in characters, two neighbours that swapped places counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut previous = None;
        for (j, to) in b.iter().enumerate() {
            let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
            let mut cell = (at(&row, j) + usize::from(from != *to)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            if last == Some(*to) && previous == Some(from) && j > 0 {
                cell = cell.min(at(&before, j - 1) + 1);
            }
            next.push(cell);
            previous = Some(*to);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(from);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_pascal_case() {
        let cases = [("refund-order", "RefundOrder"), ("a", "A"), ("a.b_c", "ABC"), ("2nd", "_2nd"), ("x--y", "XY"), ("x-", "X")];
        for (name, expected) in cases {
            assert_eq!(pascal_case(name), expected);
            assert!(is_identifier(expected), "{expected}");
        }
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        let known = ["order_id", "amount_cents", "to"];
        let cases = [
            ("order_di", Some("order_id")),
            ("amount_cent", Some("amount_cents")),
            ("body", None),
            ("", None),
            ("t", Some("to")),
        ];
        for (word, expected) in cases {
            assert_eq!(closest(word, known), expected, "{word}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("nmae", "name"), 1);
    }
}
