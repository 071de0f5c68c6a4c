//! From the document's tree to shapes: every wrong key, type and word is a problem of its own, and reading goes on.
//!
//! `shape!` and `words!` declare what may be written; [`super::file`] uses them. What the values mean together is
//! for `resolve`.

use crate::config::document::{Node, Value};
use crate::config::problem::{Problems, Spot, advice};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A thing that can be read from the document.
pub trait Read: Sized {
    /// Reads a node; what is wrong is added to `problems`, and `None` is returned if nothing is left of it.
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self>;
}

/// A value that was read, and where it stands.
#[derive(Debug, Clone)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub spot: Spot,
}

/// What stands under a key.
#[derive(Debug, Clone, Default)]
pub enum Field<T> {
    /// The key is not there.
    #[default]
    Absent,
    /// The key is there, but its value was a problem that is already reported.
    Invalid,
    /// A value.
    Given(Given<T>),
}

impl<T> Field<T> {
    /// The value and its spot.
    pub fn given(&self) -> Option<&Given<T>> {
        match self {
            Field::Given(given) => Some(given),
            Field::Absent | Field::Invalid => None,
        }
    }

    /// The value.
    pub fn value(&self) -> Option<&T> {
        self.given().map(|given| &given.value)
    }

    /// Whether the key is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }
}

/// A mapping with free keys, in its order.
#[derive(Debug, Clone)]
pub struct Named<T>(pub Vec<(String, Given<T>)>);

/// Either a word or a mapping.
#[derive(Debug, Clone)]
pub enum WordOr<W, T> {
    /// A word.
    Word(W),
    /// A mapping.
    Keys(T),
}

/// The entries of a mapping whose keys are known.
pub struct Keys<'a> {
    entries: &'a [(crate::config::document::Key, Node)],
    spot: &'a Spot,
}

impl<'a> Keys<'a> {
    /// Opens a mapping; unknown keys and repeated ones are problems.
    pub fn open(node: &'a Node, spot: &'a Spot, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            // The value is not shown: somebody may have written a secret here.
            let kind = match node.value {
                Value::Null => "nothing",
                Value::List(_) => "a list",
                _ => "a single value",
            };
            let keys = if known.is_empty() { "{}".to_owned() } else { format!("keys: {}", known.join(", ")) };
            problems.add(spot, format!("{kind} stands here, where a mapping belongs; write {keys}"));
            return None;
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            let here = Spot { place: key.place, ..spot.key(&key.text) };
            if !known.contains(&&*key.text) {
                let advice = advice(&key.text, known, "the keys here are");
                problems.add(&here, format!("unknown key {:?}{advice}", key.text));
            } else if entries[..at].iter().any(|(earlier, _)| earlier.text == key.text) {
                problems.add(&here, format!("key {:?} stands here twice; keep one", key.text));
            }
        }
        Some(Self { entries, spot })
    }

    /// Reads what stands under a key.
    pub fn field<T: Read>(&self, key: &str, problems: &mut Problems) -> Field<T> {
        let Some((name, node)) = self.entries.iter().find(|(given, _)| given.text == key) else {
            return Field::Absent;
        };
        let spot = Spot { place: node.place, ..self.spot.key(key) };
        if node.value == Value::Null {
            let spot = Spot { place: name.place, ..spot };
            problems.add(&spot, "nothing stands here; give it a value or remove the key");
            return Field::Invalid;
        }
        match T::read(node, &spot, problems) {
            Some(value) => Field::Given(Given { value, spot }),
            None => Field::Invalid,
        }
    }
}

/// A node's value for an error text: short, and in one line.
pub fn show(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::Text(text) => quote(text),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

/// A text in quotes, cut where it is long.
pub fn quote(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

impl Read for String {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            _ => {
                let advice = if matches!(node.value, Value::Bool(_)) { "put it in quotes" } else { "write a text" };
                problems.add(spot, format!("{} is no text; {advice}", show(node)));
                None
            }
        }
    }
}

impl Read for bool {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        problems.add(spot, format!("{} is neither true nor false; write one of the two", show(node)));
        None
    }
}

impl Read for u64 {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        if let Value::Number(text) = &node.value {
            let plain = text.replace('_', "");
            // Helm writes large whole numbers as 1e+06.
            let float = || plain.parse::<f64>().ok().filter(|f| f.fract() == 0.0 && (0.0..9e15).contains(f));
            if let Some(value) = plain.parse().ok().or_else(|| float().map(|f| f as u64)) {
                return Some(value);
            }
        }
        problems.add(spot, format!("{} is no whole number; write digits only", show(node)));
        None
    }
}

impl<T: Read> Read for Vec<Given<T>> {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        let Value::List(items) = &node.value else {
            let what = match &node.value {
                Value::Map(_) => "a mapping".to_owned(),
                _ => "a single value".to_owned(),
            };
            problems.add(spot, format!("{what} stands here, where a list belongs; put it in [ ], or after `- `"));
            return None;
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let spot = spot.item(index, item.place);
            if let Some(value) = T::read(item, &spot, problems) {
                list.push(Given { value, spot });
            }
        }
        // A list of which nothing is left is not an empty one.
        (!list.is_empty() || items.is_empty()).then_some(list)
    }
}

impl<T: Read> Read for Named<T> {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems.add(spot, "a mapping of names belongs here; write `name: …`");
            return None;
        };
        let mut named: Vec<(String, Given<T>)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let here = spot.key(&key.text);
            if named.iter().any(|(known, _)| *known == key.text) {
                let text = format!("key {:?} stands here twice; keep one", key.text);
                problems.add(&Spot { place: key.place, ..here }, text);
                continue;
            }
            let here = Spot { place: node.place, ..here };
            if let Some(value) = T::read(node, &here, problems) {
                named.push((key.text.clone(), Given { value, spot: here }));
            }
        }
        Some(Self(named))
    }
}

impl<W: Read, T: Read> Read for WordOr<W, T> {
    fn read(node: &Node, spot: &Spot, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Map(_) => T::read(node, spot, problems).map(WordOr::Keys),
            _ => W::read(node, spot, problems).map(WordOr::Word),
        }
    }
}

/// Reads one of a few words.
pub fn read_word<T: Copy>(node: &Node, spot: &Spot, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = match &node.value {
        Value::Text(text) | Value::Number(text) => text.as_str(),
        _ => "",
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let advice = advice(text, &known, if known.len() == 1 { "only this is known:" } else { "write one of:" });
    problems.add(spot, format!("{} is unknown here{advice}", show(node)));
    None
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        BTreeMap::<String, T>::json_schema(generator)
    }
}

impl<W: JsonSchema, T: JsonSchema> JsonSchema for WordOr<W, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_{}", W::schema_name(), T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [generator.subschema_for::<W>(), generator.subschema_for::<T>()] })
    }
}

/// Declares a mapping with known keys: a struct of [`Field`]s whose doc comments are the schema's descriptions.
macro_rules! shape {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(default, deny_unknown_fields)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $crate::config::read::Field<$type>,)*
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::document::Node,
                spot: &$crate::config::problem::Spot,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                let known: &[&str] = &[$($crate::config::read::key(stringify!($field))),*];
                let keys = $crate::config::read::Keys::open(node, spot, known, problems)?;
                let _ = &keys;
                Some(Self { $($field: keys.field($crate::config::read::key(stringify!($field)), problems),)* })
            }
        }
    };
}

/// Declares a closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $variant:ident = $word:literal,)* }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, schemars::JsonSchema)]
        $(#[$meta])*
        pub enum $name {
            $($(#[$word_meta])* #[schemars(rename = $word)] $variant,)*
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::document::Node,
                spot: &$crate::config::problem::Spot,
                problems: &mut $crate::config::problem::Problems,
            ) -> Option<Self> {
                $crate::config::read::read_word(node, spot, &[$(($word, $name::$variant)),*], problems)
            }
        }
    };
}

pub(super) use {shape, words};

/// The key that a field stands for: its name, without the `r#` of a Rust keyword.
pub const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
