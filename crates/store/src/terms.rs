//! What can be searched for in an entry: `(field, value)` terms, read from the leaf's event. Pure. One function
//! serves the index and the final check of each hit, so the two cannot disagree. It reads the text as it stands and
//! builds no tree of values: every entry of the log comes through here once.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

/// Members of an event that are terms under their own name.
const FIELDS: [&str; 11] =
    ["agent", "decision", "grant", "intent", "outcome", "owner", "subject", "target", "task", "type", "upstream"];

/// What an entry can be found by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms<'a> {
    /// The event's time, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Field and value.
    pub(crate) terms: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Terms<'a> {
    /// Reads a leaf. An entry that is none of ours has no terms.
    pub(crate) fn of_leaf(leaf: &'a [u8]) -> Self {
        let mut terms = Self::default();
        let mut text = serde_json::Deserializer::from_slice(leaf);
        let read = Reader { terms: &mut terms, place: Place::Leaf }.deserialize(&mut text).and_then(|()| text.end());
        read.map_or_else(|_| Self::default(), |()| terms)
    }

    /// Whether the entry has this term.
    pub(crate) fn has(&self, field: &str, value: &str) -> bool {
        self.terms.iter().any(|(f, v)| *f == field && v == value)
    }
}

/// Where in the leaf a value stands.
#[derive(Clone, Copy)]
enum Place<'n> {
    Leaf,
    Event,
    Detail,
    /// `params` or `arguments`.
    Values,
    /// Those of them that are in clear.
    Clear,
    /// The event's time.
    At,
    /// A term under its own name.
    Field(&'static str),
    /// A value in clear of this name: `name=value`, one for each member of a set.
    Named(&'n str),
    /// A member of a set of this name.
    MemberOf(&'n str),
    /// Nothing to be found by.
    Elsewhere,
}

impl<'n> Place<'n> {
    fn of_member(self, name: &'n str) -> Self {
        let field = || FIELDS.into_iter().find(|field| *field == name);
        match (self, name) {
            (Self::Leaf, "event") => Self::Event,
            (Self::Event, "at") => Self::At,
            (Self::Event, "detail") => Self::Detail,
            (Self::Event, "params" | "arguments") => Self::Values,
            (Self::Event | Self::Detail, _) => field().map_or(Self::Elsewhere, Self::Field),
            (Self::Values, "clear") => Self::Clear,
            (Self::Clear, name) => Self::Named(name),
            _ => Self::Elsewhere,
        }
    }
}

/// Reads one value at its place.
struct Reader<'t, 'a, 'n> {
    terms: &'t mut Terms<'a>,
    place: Place<'n>,
}

impl<'a> Reader<'_, 'a, '_> {
    fn text(self, text: Cow<'a, str>) {
        match self.place {
            Place::Field(field) => self.terms.terms.push((field, text)),
            _ => self.shown(&text),
        }
    }

    fn shown(self, value: impl fmt::Display) {
        if let Place::Named(name) | Place::MemberOf(name) = self.place {
            self.terms.terms.push(("resource", format!("{name}={value}").into()));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.place {
            Place::Elsewhere => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of an entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = members.next_key()? {
            members.next_value_seed(Reader { terms: self.terms, place: self.place.of_member(&name) })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let place = if let Place::Named(name) = self.place { Place::MemberOf(name) } else { Place::Elsewhere };
        while items.next_element_seed(Reader { terms: self.terms, place })?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.text(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        match self.place {
            Place::At => self.terms.at = number,
            _ => self.shown(number),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => {
                self.shown(number);
                Ok(())
            }
        }
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        // As JSON writes it.
        if let Some(number) = Number::from_f64(number) {
            self.shown(number);
        }
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.shown(truth);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The name of a member, without a copy where the text has none escaped.
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a member")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_from_members_details_and_clear_values() {
        let leaf = br#"{"epoch":1,"event":{"agent":"a","arguments":{"clear":{"n":7,"s":"x"},"committed":{"q":"h"}},"at":5,
            "detail":{"owner":"team"},"determining":["p"],"outcome":"deny","params":{"clear":{"ids":["1","2"]}},"type":"decision"},
            "node":"n","prev":"","seq":0,"v":1}"#;
        let terms = Terms::of_leaf(leaf);
        assert_eq!(terms.at, 5);
        for (field, value) in [
            ("agent", "a"),
            ("outcome", "deny"),
            ("owner", "team"),
            ("type", "decision"),
            ("resource", "n=7"),
            ("resource", "s=x"),
            ("resource", "ids=1"),
            ("resource", "ids=2"),
        ] {
            assert!(terms.has(field, value), "{field}={value}");
        }
        assert_eq!(terms.terms.len(), 8);
        assert_eq!(Terms::of_leaf(b"not json"), Terms::default());
    }

    #[test]
    fn values_of_every_kind_are_found_as_they_are_written_and_what_is_none_is_not() {
        let leaf = br#"{"event":{"agent":7,"at":-5,"arguments":{"clear":{"b":true,"f":1.0,"big":18446744073709551615,
            "quote":"a\"b","null":null,"deep":[["x"],{"y":"z"},3],"of":{"a":"b"}},"agent":"no"},"detail":{"arguments":{"clear":{"n":1}}},
            "subject":"caf\u00e9","other":"x"},"agent":"outside","at":9}"#;
        let terms = Terms::of_leaf(leaf);
        assert_eq!(terms.at, -5);
        let found: Vec<_> = terms.terms.iter().map(|(field, value)| format!("{field} {value}")).collect();
        let expected = [
            "resource b=true",
            "resource f=1.0",
            "resource big=18446744073709551615",
            "resource quote=a\"b",
            "resource deep=3",
            "subject caf\u{e9}",
        ];
        assert_eq!(found, expected);
        for broken in [&b"{\"event\":{\"agent\":\"a\"}} x"[..], b"{\"event\":{\"agent\":\"a\"}", b"[1]", b"7"] {
            assert_eq!(Terms::of_leaf(broken), Terms::default());
        }
    }
}
