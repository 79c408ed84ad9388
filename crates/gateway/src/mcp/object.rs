//! A JSON object as its members stand in the text: to change one member and leave every other byte as it was. Numbers,
//! escapes and unknown members of an upstream survive, which a round trip through `Value` would not promise.

use super::message::Raw;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The members of an object, in order, each as text.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Members<'a> {
    /// The members of the object that `raw` is; `None` if it is no object or has a member twice.
    #[must_use]
    pub fn of(raw: &'a Raw) -> Option<Self> {
        let members: Self = serde_json::from_slice(raw.as_bytes()).ok()?;
        let mut names: Vec<&str> = members.0.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        let twice = names.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        (!twice).then_some(members)
    }

    /// The text of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, text)| text.as_ref())
    }

    /// The value of a member.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value> {
        self.get(name).and_then(|text| serde_json::from_str(text).ok())
    }

    /// Sets a member: in its place if it is there, else at the end.
    pub fn set(&mut self, name: &'a str, value: &Value) {
        self.set_text(name, value.to_string());
    }

    /// Sets a member to text that is known to be JSON.
    pub fn set_text(&mut self, name: &'a str, text: String) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = Cow::Owned(text),
            None => self.0.push((Cow::Borrowed(name), Cow::Owned(text))),
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// Leaves the members whose names are wanted. Whether one went.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, _)| wanted(name));
        self.0.len() < before
    }

    /// The object as text.
    #[must_use]
    pub fn to_raw(&self) -> Raw {
        let size = self.0.iter().map(|(name, text)| name.len() + text.len() + 4).sum::<usize>() + 2;
        let mut out = String::with_capacity(size);
        out.push('{');
        for (index, (name, text)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&Value::from(name.as_ref()).to_string());
            out.push(':');
            out.push_str(text);
        }
        out.push('}');
        Raw::trusted(Bytes::from(out))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let text: &'de RawValue = map.next_value()?;
                    members.push((name, Cow::Borrowed(text.get())));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The elements of an array, each as text; `None` if `text` is no array.
#[must_use]
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn raw(text: &str) -> Raw {
        Raw::from_json(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn members_that_are_not_touched_keep_their_bytes() {
        let text = raw(r#"{ "a" : 1.50, "b\u0041": [ 12345678901234567890123 ], "c":{"x" : 1} }"#);
        let mut members = Members::of(&text).unwrap();
        members.set("c", &json!("new"));
        members.set("d", &json!(true));
        members.remove("absent");
        let out = r#"{"a":1.50,"bA":[ 12345678901234567890123 ],"c":"new","d":true}"#;
        assert_eq!(members.to_raw().as_bytes(), out.as_bytes());
    }

    #[test]
    fn an_object_with_a_member_twice_is_not_read() {
        assert!(Members::of(&raw(r#"{"a":1,"a":2}"#)).is_none());
        assert!(Members::of(&raw(r#"{"a":1,"\u0061":2}"#)).is_none());
        assert!(Members::of(&raw("[1]")).is_none());
    }
}
