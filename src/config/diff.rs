//! What changes from one configuration to another, for people and for machines.
//!
//! It compares what is in force, by the keys that it is written with, so that a default that is written out is no
//! change. Secrets and certificates take part by their hashes, which are never shown.

use crate::config::Config;
use crate::config::render::{self, Secrets};
use serde_json::{Map, Value, json};
use std::fmt;

/// A configuration in a form that can be compared, and kept for that.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparable(Value);

/// All that changes, section by section.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigDiff {
    /// What changes, in the order of the configuration's sections.
    pub changes: Vec<Change>,
}

/// What changes with one named thing, or with a section.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it is: `route`, `upstream`, `listener`, `channel`, `webhook`, or a section's key such as `limits`.
    pub what: &'static str,
    /// Its name; empty for a section.
    pub name: String,
    /// What happens to it.
    pub kind: ChangeKind,
}

/// What happens to a thing.
#[derive(Debug, Clone, PartialEq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, with other values.
    Changed(Vec<KeyChange>),
    /// The same things stand in another order, and the first match wins.
    Reordered,
}

/// One key with another value.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyChange {
    /// Keys from the thing on, such as `push.keep_alive`.
    pub key: String,
    /// The value before; `None` if there was none.
    pub old: Option<Value>,
    /// The value after; `None` if there is none.
    pub new: Option<Value>,
}

/// Lists of named things: the section, what one of them is, and the key of its name.
const NAMED: [(&str, &str, &str); 4] = [
    ("listeners", "listener", "name"),
    ("upstreams", "upstream", ""),
    ("routes", "route", "name"),
    ("channels", "channel", "match"),
];
/// Sections without named things.
const SECTIONS: [&str; 8] = ["publish", "admin", "bus", "sessions", "limits", "drain", "telemetry", "runtime"];
/// Keys of sections that are read once, at the start, and why.
const RESTART: [(&str, &str, &str); 5] = [
    ("bus", "", "what was published lives in it"),
    ("sessions", "ttl", "what is kept already has the old one"),
    ("runtime", "workers", "sessions can't move to other threads"),
    ("admin", "address", "probes that look at the old one would end the process"),
    ("telemetry", "log.format", "whoever collects the lines would meet both"),
];
/// Longer values are not shown.
const SHOWN_CHARS_MAX: usize = 60;

impl Comparable {
    /// The comparable form of a configuration.
    pub fn of(config: &Config) -> Self {
        Self(render::render(config, Secrets::Hashed))
    }
}

impl ConfigDiff {
    /// What changes from `old` to `new`.
    pub fn between(old: &Comparable, new: &Comparable) -> Self {
        let mut diff = Self::default();
        for (section, what, key) in NAMED {
            diff.named(what, &named(&old.0[section], key), &named(&new.0[section], key));
        }
        let (before, after) = (&old.0["publish"]["webhooks"], &new.0["publish"]["webhooks"]);
        diff.named("webhook", &named(before, "path"), &named(after, "path"));
        for section in SECTIONS {
            let keys = |config: &Comparable| {
                let mut section = config.0[section].clone();
                section.as_object_mut().map(|keys| keys.remove("webhooks"));
                section
            };
            diff.changed(section, "", &keys(old), &keys(new));
        }
        diff
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes that a running instance can't make, one sentence each.
    pub fn restart_needed(&self) -> Vec<(String, String)> {
        let mut needed = Vec::new();
        for change in &self.changes {
            let ChangeKind::Changed(keys) = &change.kind else { continue };
            for key in keys {
                let found = RESTART
                    .iter()
                    .find(|(section, path, _)| change.what == *section && (path.is_empty() || key.key == *path));
                let Some((_, _, why)) = found else { continue };
                let path = format!("{}.{}", change.what, key.key);
                let (old, new) = (shown(key.old.as_ref()), shown(key.new.as_ref()));
                needed.push((path, format!("{old} can't become {new} while running ({why}); restart needed")));
            }
        }
        needed
    }

    /// One line for each change.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.changes.iter().map(ToString::to_string)
    }

    /// The changes as JSON.
    pub fn to_json(&self) -> Value {
        self.changes.iter().map(Change::to_json).collect()
    }

    fn named(&mut self, what: &'static str, old: &[(String, &Value)], new: &[(String, &Value)]) {
        let has = |list: &[(String, &Value)], name: &str| list.iter().any(|(known, _)| known == name);
        for (name, value) in new {
            match old.iter().find(|(known, _)| known == name) {
                None => self.changes.push(Change { what, name: name.clone(), kind: ChangeKind::Added }),
                Some((_, before)) => self.changed(what, name, before, value),
            }
        }
        for (name, _) in old.iter().filter(|(name, _)| !has(new, name)) {
            self.changes.push(Change { what, name: name.clone(), kind: ChangeKind::Removed });
        }
        let stay = |list: &[(String, &Value)], other: &[(String, &Value)]| -> Vec<String> {
            list.iter().filter(|(name, _)| has(other, name)).map(|(name, _)| name.clone()).collect()
        };
        if matches!(what, "route" | "channel") && stay(old, new) != stay(new, old) {
            self.changes.push(Change { what, name: String::new(), kind: ChangeKind::Reordered });
        }
    }

    fn changed(&mut self, what: &'static str, name: &str, old: &Value, new: &Value) {
        let mut keys = Vec::new();
        compare("", Some(old), Some(new), &mut keys);
        if !keys.is_empty() {
            self.changes.push(Change { what, name: name.to_owned(), kind: ChangeKind::Changed(keys) });
        }
    }
}

impl Change {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("what".into(), self.what.into());
        if !self.name.is_empty() {
            object.insert("name".into(), self.name.as_str().into());
        }
        let change = match &self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed(_) => "changed",
            ChangeKind::Reordered => "reordered",
        };
        object.insert("change".into(), change.into());
        if let ChangeKind::Changed(keys) = &self.kind {
            let value = |value: &Option<Value>| value.as_ref().map(render::masked);
            let keys = keys.iter();
            let keys = keys.map(|key| json!({ "key": key.key, "old": value(&key.old), "new": value(&key.new) }));
            object.insert("keys".into(), keys.collect());
        }
        Value::Object(object)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        match &self.kind {
            ChangeKind::Added => f.write_str(" added"),
            ChangeKind::Removed => f.write_str(" removed"),
            ChangeKind::Reordered => f.write_str("s reordered"),
            ChangeKind::Changed(keys) => {
                f.write_str(" changed: ")?;
                for (at, key) in keys.iter().enumerate() {
                    let comma = if at > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (shown(self.old.as_ref()), shown(self.new.as_ref()));
        match (&self.old, &self.new) {
            // A secret, or something long.
            (Some(_), Some(_)) if old == new => f.write_str(&self.key),
            _ => write!(f, "{} {old} → {new}", self.key),
        }
    }
}

/// The things of a section by name: of a list by the `key` of each, of a mapping by its keys.
fn named<'a>(section: &'a Value, key: &str) -> Vec<(String, &'a Value)> {
    match section {
        Value::Array(items) => {
            items.iter().map(|item| (item[key].as_str().unwrap_or_default().to_owned(), item)).collect()
        }
        Value::Object(entries) => entries.iter().map(|(name, value)| (name.clone(), value)).collect(),
        _ => Vec::new(),
    }
}

/// Goes down where both are mappings, and collects the keys whose values differ.
fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, into: &mut Vec<KeyChange>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let only_new = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(only_new) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, old.get(key), new.get(key), into);
            }
        }
        _ if old == new => {}
        _ => into.push(KeyChange { key: path.to_owned(), old: old.cloned(), new: new.cloned() }),
    }
}

/// A value in a line: secrets masked, long ones cut.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "none".to_owned() };
    let text = match render::masked(value) {
        Value::String(text) => text,
        value => value.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use std::path::Path;

    const BASE: &str = "
listeners: [{ name: http, address: '127.0.0.1:0' }]
upstreams: { a: { servers: ['http://a'] } }
publish:
  auth: [{ bearer: { token_file: token } }]
  webhooks: [{ path: /hook, verify: none, channel: orders }]
routes:
  - { name: one, match: { path: /one }, push: { channels: [one] } }
  - { name: two, match: { path: /two }, proxy: { upstream: a } }
runtime: { workers: 2 }
";

    fn comparable(folder: &Path, source: &str, token: &str) -> Comparable {
        std::fs::write(folder.join("token"), token).expect("written");
        std::fs::write(folder.join("c.yaml"), source).expect("written");
        Comparable::of(&load(&folder.join("c.yaml")).expect("a sound configuration"))
    }

    /// Checks the lines from `BASE` to a text with one part replaced.
    #[track_caller]
    fn check(old: &str, new: &str, expected: &[&str]) -> ConfigDiff {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(BASE.contains(old), "{old}");
        let before = comparable(folder.path(), BASE, "hunter2");
        let after = comparable(folder.path(), &BASE.replace(old, new), "hunter2");
        let diff = ConfigDiff::between(&before, &after);
        assert_eq!(diff.lines().collect::<Vec<_>>(), expected);
        diff
    }

    #[test]
    fn each_change_is_one_line() {
        check("", "", &[]);
        check("name: http,", "name: http, protocols: [h2, http/1.1],", &[]);
        check("path: /one }", "path: /1 }", &["route one changed: match.path /one → /1"]);
        check("[one] }", "[one], keep_alive: 5s }", &["route one changed: push.keep_alive 25s → 5s"]);
        check("name: one,", "name: three,", &["route three added", "route one removed"]);
    }

    #[test]
    fn order_and_sections_are_changes() {
        let lines = "  - { name: one, match: { path: /one }, push: { channels: [one] } }\n";
        let both = format!("{lines}  - {{ name: two, match: {{ path: /two }}, proxy: {{ upstream: a }} }}\n");
        let (first, second) = both.split_at(lines.len());
        check(&both, &format!("{second}{first}"), &["routes reordered"]);
        check("channel: orders", "channel: shop", &["webhook /hook changed: channel"]);
        check("\nrou", "\nlimits: { channels: 5 }\nrou", &["limits changed: channels 100000 → 5"]);
        check("\nrou", "\ndrain: { spread: 5s }\nrou", &["drain changed: spread 1m → 5s"]);
        check("http://a", "http://b", &["upstream a changed: servers [\"http://a:80\"] → [\"http://b:80\"]"]);
    }

    #[test]
    fn secrets_are_compared_and_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let before = comparable(folder.path(), BASE, "hunter2");
        let after = comparable(folder.path(), BASE, "hunter3");
        let diff = ConfigDiff::between(&before, &after);
        assert_eq!(diff.lines().collect::<Vec<_>>(), ["publish changed: auth"]);
        let masked = json!([{ "bearer": "***" }]);
        let expected = json!([{
            "what": "publish", "change": "changed", "keys": [{ "key": "auth", "old": masked, "new": masked }],
        }]);
        assert_eq!(diff.to_json(), expected);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let diff = check("workers: 2", "workers: 4", &["runtime changed: workers 2 → 4"]);
        let text = "2 can't become 4 while running (sessions can't move to other threads); restart needed";
        assert_eq!(diff.restart_needed(), [("runtime.workers".to_owned(), text.to_owned())]);
        let folder = tempfile::tempdir().expect("a folder");
        let with = |ttl| comparable(folder.path(), &format!("{BASE}sessions: {{ ttl: {ttl} }}\n"), "x");
        let diff = ConfigDiff::between(&with("1m"), &with("90s"));
        let text = "1m can't become 90s while running (what is kept already has the old one); restart needed";
        assert_eq!(diff.restart_needed(), [("sessions.ttl".to_owned(), text.to_owned())]);
        assert_eq!(
            check("path: /one }", "path: /1 }", &["route one changed: match.path /one → /1"]).restart_needed(),
            []
        );
    }
}
