//! Reads one table of a TOML file option by option, collecting faults instead of stopping at the first one. Owns
//! types, places, unknown keys and what the environment overrides; what a value means is the sections' business.

use super::fault::{Fault, Faults, Source};
use super::option::{Section, meant};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// Looks up an environment variable; tests give their own.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    /// The value.
    pub(crate) value: T,
    source: Arc<Source>,
    span: Range<usize>,
}

impl<T> Placed<T> {
    /// A fault at this value.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(&self.source, self.span.clone(), message)
    }

    /// Another value at the same place.
    pub(crate) fn with<U>(&self, value: U) -> Placed<U> {
        Placed { value, source: Arc::clone(&self.source), span: self.span.clone() }
    }
}

/// Where values come from: the faults found, the file, the environment.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    /// Where faults go.
    pub(crate) faults: &'a Faults,
    /// The file.
    pub(crate) source: &'a Arc<Source>,
    /// The environment.
    pub(crate) env: Lookup<'a>,
}

/// One table being read.
pub(crate) struct Table<'a> {
    reader: Reader<'a>,
    section: &'static Section,
    items: &'a DeTable<'a>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
}

/// Parses a file, reporting all syntax errors, and hands its root table over.
pub(crate) fn with_root<T>(reader: Reader<'_>, section: &'static Section, read: impl FnOnce(&Table<'_>) -> T) -> Option<T> {
    let (root, errors) = DeTable::parse_recoverable(reader.source.text());
    for error in &errors {
        reader.faults.push(Fault::new(reader.source, error.span().unwrap_or(0..0), error.message()));
    }
    if !errors.is_empty() {
        return None;
    }
    let table = Table { reader, section, items: root.get_ref(), span: 0..0, asked: RefCell::default() };
    let value = read(&table);
    table.finish();
    Some(value)
}

impl<'a> Table<'a> {
    /// Reports keys that nobody asked for. Called once all options were read.
    fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.items.keys() {
            let name: &str = key.get_ref();
            if asked.contains(name) {
                continue;
            }
            let fault = Fault::new(self.reader.source, key.span(), format!("unknown option `{name}` in {}", self.section.header));
            let known = || self.section.options.iter().map(|option| option.name);
            self.reader.faults.push(match (self.section.option(name), meant(name, known())) {
                (Some(_), _) => fault.help("it does not fit the other options here: see docs/configuration.md"),
                (None, Some(near)) => fault.help(format!("did you mean `{near}`?")),
                (None, None) => fault.help(format!("known here: {}", known().collect::<Vec<_>>().join(", "))),
            });
        }
    }

    /// Notes that an option was asked for, and finds its value in the file.
    fn item(&self, name: &'static str) -> Option<Placed<&'a DeValue<'a>>> {
        debug_assert!(self.section.option(name).is_some(), "`{name}` is not registered in {}", self.section.header);
        self.asked.borrow_mut().insert(name);
        let (_, value) = self.items.get_key_value(name)?;
        Some(Placed { value: value.get_ref(), source: Arc::clone(self.reader.source), span: value.span() })
    }

    /// The value that the environment gives an option instead of the file.
    fn overridden(&self, name: &'static str) -> Option<Placed<String>> {
        let variable = self.section.option(name)?.env?;
        let value = (self.reader.env)(variable)?;
        let text = format!("{variable}={value}");
        let span = variable.len() + 1..text.len();
        Some(Placed { value, source: Source::new("environment", text), span })
    }

    /// Whether the file has the option.
    pub(crate) fn has(&self, name: &'static str) -> bool {
        self.items.contains_key(name)
    }

    /// A fault at the head of this table.
    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.reader.source, self.span.clone(), message)
    }

    /// Reports a fault.
    pub(crate) fn push(&self, fault: Fault) {
        self.reader.faults.push(fault);
    }

    fn mistyped(&self, found: &Placed<&DeValue<'_>>, name: &str, expected: &str) {
        self.push(found.fault(format!("`{name}` must be {expected}, but this is {}", article(found.value.type_str()))));
    }

    /// Text.
    pub(crate) fn text(&self, name: &'static str) -> Option<Placed<String>> {
        let item = self.item(name);
        if let Some(text) = self.overridden(name) {
            return Some(text);
        }
        let item = item?;
        match item.value.as_str() {
            Some(text) => Some(item.with(text.to_owned())),
            None => {
                self.mistyped(&item, name, "text in quotes");
                None
            }
        }
    }

    /// Text that must be there.
    pub(crate) fn needed(&self, name: &'static str) -> Option<Placed<String>> {
        let text = self.text(name);
        if text.is_none() && !self.has(name) {
            let takes = self.section.option(name).map_or("", |option| option.takes);
            self.push(self.fault(format!("{} needs `{name}`", self.section.header)).help(format!("`{name}` takes {takes}")));
        }
        text
    }

    /// Text that must be there and that some type understands.
    pub(crate) fn needed_parsed<T: FromStr<Err: Display>>(&self, name: &'static str) -> Option<Placed<T>> {
        self.parse(&self.needed(name)?)
    }

    /// Turns text into a type, or reports why it cannot be.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self, text: &Placed<String>) -> Option<Placed<T>> {
        match text.value.parse() {
            Ok(value) => Some(text.with(value)),
            Err(error) => {
                self.push(text.fault(error.to_string()));
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&self, name: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let given = self.text(name)?;
        self.choose(&given, words)
    }

    /// Finds text in a list of words, or reports that it is none of them.
    pub(crate) fn choose<T: Copy>(&self, given: &Placed<String>, words: &[(&'static str, T)]) -> Option<T> {
        let known = || words.iter().map(|(word, _)| *word);
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given.value) {
            return Some(*meaning);
        }
        let fault = given.fault(format!("`{}` is not allowed here", given.value));
        self.push(match meant(&given.value, known()) {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault.help(format!("use one of `{}`", known().collect::<Vec<_>>().join("`, `"))),
        });
        None
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &'static str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let item = self.item(name);
        let (place, number) = if let Some(text) = self.overridden(name) {
            let number = text.value.parse::<u64>().ok();
            (text.with(()), number)
        } else {
            let item = item?;
            let Some(integer) = item.value.as_integer() else {
                self.mistyped(&item, name, "a whole number");
                return None;
            };
            (item.with(()), u64::from_str_radix(integer.as_str(), integer.radix()).ok())
        };
        let within = number.filter(|number| bounds.contains(number));
        if within.is_none() {
            self.push(place.fault(format!("`{name}` must be a whole number from {} to {}", bounds.start(), bounds.end())));
        }
        within
    }

    /// A truth value.
    pub(crate) fn flag(&self, name: &'static str) -> Option<bool> {
        let item = self.item(name)?;
        if item.value.as_bool().is_none() {
            self.mistyped(&item, name, "`true` or `false`");
        }
        item.value.as_bool()
    }

    /// A list of texts.
    pub(crate) fn texts(&self, name: &'static str) -> Option<Vec<Placed<String>>> {
        let item = self.item(name)?;
        let Some(array) = item.value.as_array() else {
            self.mistyped(&item, name, "a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for element in array.iter() {
            let place = Placed { value: element.get_ref(), source: Arc::clone(self.reader.source), span: element.span() };
            match place.value.as_str() {
                Some(text) => texts.push(place.with(text.to_owned())),
                None => self.mistyped(&place, name, "a list of texts"),
            }
        }
        Some(texts)
    }

    /// A table within this one.
    pub(crate) fn table<T>(
        &self,
        name: &'static str,
        section: &'static Section,
        read: impl FnOnce(&Table<'_>) -> T,
    ) -> Option<T> {
        let item = self.item(name)?;
        self.enter(&item, name, section, read)
    }

    /// A table that may be absent; then it reads as if it were empty, so that defaults and the environment still hold.
    pub(crate) fn section<T>(
        &self,
        name: &'static str,
        section: &'static Section,
        read: impl FnOnce(&Table<'_>) -> T,
    ) -> Option<T> {
        if self.has(name) {
            return self.table(name, section, read);
        }
        let empty = DeTable::new();
        let end = self.reader.source.text().len();
        let table = Table { reader: self.reader, section, items: &empty, span: end..end, asked: RefCell::default() };
        Some(read(&table))
    }

    /// A list of tables within this one.
    pub(crate) fn tables<T>(
        &self,
        name: &'static str,
        section: &'static Section,
        read: impl Fn(&Table<'_>) -> Option<T>,
    ) -> Vec<T> {
        let Some(item) = self.item(name) else { return Vec::new() };
        let Some(array) = item.value.as_array() else {
            self.push(item.fault(format!("`{name}` is a list: write its header with two brackets")).help(format!("[[{name}]]")));
            return Vec::new();
        };
        let mut read_tables = Vec::new();
        for element in array.iter() {
            let place = Placed { value: element.get_ref(), source: Arc::clone(self.reader.source), span: element.span() };
            read_tables.extend(self.enter(&place, name, section, &read).flatten());
        }
        read_tables
    }

    fn enter<T>(
        &self,
        item: &Placed<&DeValue<'_>>,
        name: &str,
        section: &'static Section,
        read: impl FnOnce(&Table<'_>) -> T,
    ) -> Option<T> {
        let Some(items) = item.value.as_table() else {
            self.mistyped(item, name, "a table");
            return None;
        };
        let table = Table { reader: self.reader, section, items, span: item.span.clone(), asked: RefCell::default() };
        let value = read(&table);
        table.finish();
        Some(value)
    }

    /// A table whose keys people choose: key, place of the value, value.
    pub(crate) fn open_table(&self, name: &'static str) -> Vec<(Placed<String>, Placed<&'a DeValue<'a>>)> {
        let Some(item) = self.item(name) else { return Vec::new() };
        let Some(items) = item.value.as_table() else {
            self.mistyped(&item, name, "a table");
            return Vec::new();
        };
        let place = |span: Range<usize>| Placed { value: (), source: Arc::clone(self.reader.source), span };
        items
            .iter()
            .map(|(key, value)| (place(key.span()).with(key.get_ref().to_string()), place(value.span()).with(value.get_ref())))
            .collect()
    }
}

/// The name of a TOML type with its article.
fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" => format!("an {kind}"),
        "string" => "text".to_owned(),
        _ => format!("a {kind}"),
    }
}
