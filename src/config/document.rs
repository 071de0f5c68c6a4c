//! A YAML document as a tree that knows where everything stands.
//!
//! The only file that meets the YAML parser. Aliases and merge keys are resolved within tight budgets; booleans are
//! `true` and `false` only. What the tree means is for [`super::read`].

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Spanned};
use std::fmt;

/// The largest configuration file, in bytes.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How deep lists and mappings may be nested.
const DEPTH_MAX: usize = 32;
/// The most values in a file, aliases resolved.
const NODES_MAX: usize = 200_000;
/// The most `*alias`es in a file.
const ALIASES_MAX: usize = 10_000;

/// Where something stands, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it starts; of an alias: where it is used.
    pub place: Place,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// Any other scalar.
    Text(String),
    /// `[…]`, or lines with `-`.
    List(Vec<Node>),
    /// `{…}`, or lines with `key:`; keys may come twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The key.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// Why a text is no YAML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DocumentError {
    /// What is wrong.
    pub text: String,
    /// Where, if that is known.
    pub place: Option<Place>,
}

/// Reads one YAML document.
///
/// # Errors
/// When it is malformed or over a budget.
pub fn parse(source: &str) -> Result<Node, DocumentError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 2,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 2 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: FILE_BYTES_MAX,
            max_total_scalar_bytes: FILE_BYTES_MAX,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        emit_comments: false,
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let tree = serde_saphyr::from_str_with_options::<Spanned<Tree>>(source, options).map_err(explain)?;
    Ok(node(tree, source))
}

/// The parser's error in our words: its place is told apart, and its advice on Rust is no help here.
fn explain(error: Error) -> DocumentError {
    let place = error.location().and_then(place);
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let text = match cause {
        Error::MultipleDocuments { .. } => "a second document begins; keep one, without `---` after it".to_owned(),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            "the file is too large or too deep once its aliases are resolved; write it with fewer".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "the alias stands inside of what it names; write it out".to_owned()
        }
        other => {
            let text = other.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            format!("no valid YAML: {text}")
        }
    };
    DocumentError { text, place }
}

/// What serde makes of a value, before numbers get back their spelling.
enum Tree {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<Tree>, Spanned<Tree>)>),
}

fn node(tree: Spanned<Tree>, source: &str) -> Node {
    let place_or_start = |location| place(location).unwrap_or(Place { line: 1, column: 1 });
    let value = match tree.value {
        Tree::Null => Value::Null,
        Tree::Bool(value) => Value::Bool(value),
        Tree::Number(value) => Value::Number(spelling(tree.defined, source).unwrap_or(value)),
        Tree::Text(text) => Value::Text(text),
        Tree::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Tree::Map(entries) => Value::Map(
            entries.into_iter().map(|(name, value)| (key(node(name, source)), node(value, source))).collect(),
        ),
    };
    Node { value, place: place_or_start(tree.referenced) }
}

/// A key as text; one that is none is shown, so that it is reported as an unknown key.
fn key(node: Node) -> Key {
    let text = match node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) | Value::Text(text) => text,
        Value::List(_) => "[…]".to_owned(),
        Value::Map(_) => "{…}".to_owned(),
    };
    Key { text, place: node.place }
}

fn place(location: Location) -> Option<Place> {
    let part = |number: u64| u32::try_from(number).ok().filter(|number| *number > 0);
    Some(Place { line: part(location.line())?, column: part(location.column())? })
}

fn spelling(location: Location, source: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let text = source.get(start..start.checked_add(length)?)?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tree in one line: values with their places.
    fn show(node: &Node) -> String {
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("bool {value}"),
            Value::Number(text) => format!("number {text}"),
            Value::Text(text) => format!("text {text}"),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    format!("{}@{}:{} = {}", key.text, key.place.line, key.place.column, show(value))
                });
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        };
        format!("{value}@{}:{}", node.place.line, node.place.column)
    }

    #[track_caller]
    fn check(source: &str, expected: &str) {
        assert_eq!(parse(source).as_ref().map(show), Ok(expected.to_owned()), "{source}");
    }

    #[test]
    fn everything_knows_its_place() {
        check("a: x\nb:\n  - é: 'y'\n", "{a@1:1 = text x@1:4, b@2:1 = [{é@3:5 = text y@3:8}@3:5]@3:3}@1:1");
        check("", "null@1:1");
        check("a:\n", "{a@1:1 = null@1:2}@1:1");
    }

    #[test]
    fn only_true_and_false_are_booleans() {
        check("[true, false, yes, on]", "[bool true@1:2, bool false@1:8, text yes@1:15, text on@1:20]@1:1");
    }

    #[test]
    fn numbers_keep_their_spelling() {
        check(
            "[1.20, 1_000, 0x10, 007, 1e+06]",
            "[number 1.20@1:2, number 1_000@1:8, number 0x10@1:15, number 007@1:21, number 1e+06@1:26]@1:1",
        );
        check("[\"1\", .inf]", "[text 1@1:2, text .inf@1:7]@1:1");
    }

    #[test]
    fn aliases_and_merges_stand_where_they_are_used() {
        check("a: &a 1.50\nb: *a\n", "{a@1:1 = number 1.50@1:7, b@2:1 = number 1.50@2:4}@1:1");
        check(
            "a: &a {x: 1}\nb: {<<: *a, y: 2}\n",
            "{a@1:1 = {x@1:8 = number 1@1:11}@1:7, b@2:1 = {y@2:13 = number 2@2:16, x@2:9 = number 1@2:9}@2:4}@1:1",
        );
    }

    #[test]
    fn keys_that_come_twice_are_both_there() {
        check("a: 1\na: 2\n", "{a@1:1 = number 1@1:4, a@2:1 = number 2@2:4}@1:1");
    }

    #[test]
    fn keys_are_texts() {
        check("{1: a, null: b, [x]: c}", "{1@1:2 = text a@1:5, null@1:8 = text b@1:14, […]@1:17 = text c@1:22}@1:1");
    }

    #[track_caller]
    fn refused(source: &str, text: &str, line: u32, column: u32) {
        let expected = DocumentError { text: text.to_owned(), place: Some(Place { line, column }) };
        assert_eq!(parse(source), Err(expected), "{source}");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        refused("a: [1", "no valid YAML: unclosed bracket '['", 1, 4);
        refused("a: b: c", "no valid YAML: mapping values are not allowed in this context", 1, 5);
        refused("a:\n\t- b", "no valid YAML: tabs disallowed within this context (block indentation)", 2, 2);
        refused("a: *x", "no valid YAML: alias references unknown anchor", 1, 4);
        refused("a: 1\n---\nb: 2\n", "a second document begins; keep one, without `---` after it", 3, 1);
        refused("a: &a [x, *a]", "the alias stands inside of what it names; write it out", 1, 11);
    }

    #[test]
    fn an_alias_bomb_is_refused_early() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, earlier) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            let aliases = vec![format!("*{earlier}"); 10].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        refused(&bomb, "the file is too large or too deep once its aliases are resolved; write it with fewer", 6, 8);
    }

    #[test]
    fn deep_nesting_is_refused() {
        let error = parse(&"[".repeat(10_000)).expect_err("too deep");
        assert_eq!(error.text, "no valid YAML: recursion limit exceeded");
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(source in r"([a-z0-9:&*<>\[\]{},'|!\-# \n]|: |- |\n  ){0,60}") {
            let _ = parse(&source);
        }
    }
}
