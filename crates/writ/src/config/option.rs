//! What an option is: its name, what it takes, its default, and what it means. The registry of all options is the
//! source of `docs/configuration.md`, of the list of known names, and of what the environment may override.

/// One option of a section.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Its key.
    pub(crate) name: &'static str,
    /// What it takes, for people.
    pub(crate) takes: &'static str,
    /// What holds if it is absent, for people.
    pub(crate) default: &'static str,
    /// The environment variable that overrides it, if any.
    pub(crate) env: Option<&'static str>,
    /// What it means.
    pub(crate) doc: &'static str,
}

/// A table of options.
#[derive(Debug)]
pub(crate) struct Section {
    /// How its header is written, for example `[server]`.
    pub(crate) header: &'static str,
    /// What it is for.
    pub(crate) doc: &'static str,
    /// Its options.
    pub(crate) options: &'static [Opt],
}

impl Section {
    /// The option of this name.
    pub(crate) fn option(&self, name: &str) -> Option<&'static Opt> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// An option that the environment cannot override.
pub(crate) const fn opt(name: &'static str, takes: &'static str, default: &'static str, doc: &'static str) -> Opt {
    Opt { name, takes, default, env: None, doc }
}

/// An option that an environment variable overrides.
pub(crate) const fn env_opt(
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    env: &'static str,
    doc: &'static str,
) -> Opt {
    Opt { name, takes, default, env: Some(env), doc }
}

/// The word of `known` that was probably meant.
pub(crate) fn meant<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let near = known.into_iter().map(|word| (distance(&given, word), word)).min()?;
    (near.0 <= (given.chars().count() / 3).clamp(1, 3)).then_some(near.1)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (slot, to) in row.iter_mut().skip(1).zip(&b) {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = *slot;
            left = substituted.min(*slot + 1).min(left + 1);
            *slot = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        let known = ["listen", "public_url", "allowed_hosts"];
        assert_eq!(meant("lisen", known), Some("listen"));
        assert_eq!(meant("publicurl", known), Some("public_url"));
        assert_eq!(meant("alowed_host", known), Some("allowed_hosts"));
        assert_eq!(meant("colour", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
