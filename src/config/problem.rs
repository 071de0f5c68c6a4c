//! What is wrong with a configuration, and where.

use crate::config::document::Place;
use std::fmt;

/// A key or value of the configuration: its path, such as `routes[2].proxy.upstream`, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Keys and indices from the top; empty for the whole file.
    pub path: String,
    /// Where it starts.
    pub place: Place,
}

impl Spot {
    /// The same place, with a key more in its path.
    pub fn key(&self, key: &str) -> Spot {
        let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let path = match (self.path.is_empty(), plain) {
            (true, true) => key.to_owned(),
            (false, true) => format!("{}.{key}", self.path),
            (_, false) => format!("{}[{key:?}]", self.path),
        };
        Spot { path, place: self.place }
    }

    /// An item of the list here, which stands at `place`.
    pub fn item(&self, index: usize, place: Place) -> Spot {
        Spot { path: format!("{}[{index}]", self.path), place }
    }
}

/// One thing that is wrong: the path, what it is and what to do, the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Keys and indices from the top; empty for the whole file.
    pub path: String,
    /// The offending value, what is wrong with it and what to do.
    pub text: String,
    /// Where; `None` when there is no file to point into.
    pub place: Option<Place>,
}

/// Everything that is wrong with a file, in its order; displayed as one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file, as it was given.
    pub file: String,
    /// What was found.
    pub found: Vec<Problem>,
}

impl Problems {
    /// An empty list for a file.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: Vec::new() }
    }

    /// Adds what is wrong at a spot.
    pub fn add(&mut self, spot: &Spot, text: impl Into<String>) {
        self.found.push(Problem { path: spot.path.clone(), text: text.into(), place: Some(spot.place) });
    }

    /// Adds what is wrong with a key, wherever it stands.
    pub fn add_for_key(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.found.push(Problem { path: path.into(), text: text.into(), place: None });
    }

    /// Adds what is wrong with the whole file.
    pub fn add_for_file(&mut self, text: impl Into<String>, place: Option<Place>) {
        self.found.push(Problem { path: String::new(), text: text.into(), place });
    }

    /// Brings them into the file's order and drops repetitions (an alias is read wherever it is used).
    pub fn sort(&mut self) {
        self.found.sort_by_key(|problem| problem.place);
        self.found.dedup();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// One line for each.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.found.iter().map(|problem| {
            let head = if problem.path.is_empty() { String::new() } else { format!("{}: ", problem.path) };
            match problem.place {
                Some(place) => format!("{head}{} ({}:{}:{})", problem.text, self.file, place.line, place.column),
                None => format!("{head}{} ({})", problem.text, self.file),
            }
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in self.lines().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The closest of `known` to `given`, if it may be what was meant.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given_lower = given.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&given_lower, &word.to_lowercase()), word))
        .filter(|(distance, word)| *distance <= (word.chars().count().max(given.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// `; did you mean "chat"?`, or else `; ` and `otherwise` with all that is known.
pub fn advice(given: &str, known: &[&str], otherwise: &str) -> String {
    match nearest(given, known.iter().copied()) {
        Some(word) => format!("; did you mean {word:?}?"),
        None if known.is_empty() => String::new(),
        None => format!("; {otherwise} {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["chat", "shop", "listeners"];
        assert_eq!(nearest("chta", known), Some("chat"));
        assert_eq!(nearest("Listener", known), Some("listeners"));
        assert_eq!(nearest("nothing", known), None);
        assert_eq!(advice("sohp", &known, "use"), "; did you mean \"shop\"?");
        assert_eq!(advice("zzz", &known, "known are"), "; known are chat, shop, listeners");
        assert_eq!(advice("zzz", &[], "known are"), "");
    }

    #[test]
    fn paths_are_written_as_they_are_thought() {
        let top = Spot { path: String::new(), place: Place { line: 1, column: 1 } };
        let item = top.key("routes").item(2, Place { line: 3, column: 5 });
        assert_eq!(item.key("proxy").key("upstream").path, "routes[2].proxy.upstream");
        assert_eq!(top.key("upstreams").key("a.b").path, "upstreams[\"a.b\"]");
    }
}
