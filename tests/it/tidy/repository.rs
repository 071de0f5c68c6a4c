//! The repository's files, as the rules look at them.

use super::source::Source;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The folder with Cargo.toml.
pub struct Repository {
    root: PathBuf,
}

/// A file of text, wherever it stands.
pub struct TextFile {
    /// From the repository's root, parts divided by `/`.
    pub path: String,
    pub text: String,
}

/// Folders that hold what others made.
const FOREIGN: [&str; 4] = ["target", ".git", "node_modules", "proptest-regressions"];

impl Repository {
    pub fn here() -> Self {
        Self { root: PathBuf::from(env!("CARGO_MANIFEST_DIR")) }
    }

    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The Rust files whose path begins so.
    pub fn sources(&self, prefix: &str) -> Vec<Source> {
        let files = self.texts().into_iter().filter(|file| file.path.starts_with(prefix) && file.path.ends_with(".rs"));
        files.map(|file| Source::new(file.path, file.text)).collect()
    }

    /// Every file that is UTF-8, in the order of their paths.
    pub fn texts(&self) -> Vec<TextFile> {
        let mut files = Vec::new();
        let mut ahead = vec![self.root.clone()];
        while let Some(folder) = ahead.pop() {
            for entry in fs::read_dir(&folder).expect("a readable folder") {
                let entry = entry.expect("a readable folder");
                let (path, kind) = (entry.path(), entry.file_type().expect("a kind of file"));
                if kind.is_dir() && !FOREIGN.iter().any(|name| entry.file_name() == *name) {
                    ahead.push(path);
                } else if kind.is_file()
                    && entry.file_name() != ".git"
                    && let Ok(text) = fs::read_to_string(&path)
                {
                    let path = path.strip_prefix(&self.root).expect("below the root").to_string_lossy();
                    files.push(TextFile { path: path.replace('\\', "/"), text });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }
}

impl TextFile {
    pub fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// A path relative to this file, from the root.
    pub fn beside(&self, relative: &str) -> String {
        let folder = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        let mut parts: Vec<String> = Vec::new();
        for part in folder.join(relative).components() {
            match part {
                Component::ParentDir => drop(parts.pop()),
                Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
                _ => {}
            }
        }
        parts.join("/")
    }

    /// Markdown links `](target)` to places in the repository, with their lines; code blocks have none.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (at, line) in prose(&self.text) {
            for part in line.split("](").skip(1) {
                let target = part.split([')', ' ']).next().unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    links.push((at, target.to_owned()));
                }
            }
        }
        links
    }

    /// The anchors of a page's headings, as code hosts make them.
    pub fn headings(page: &str) -> BTreeSet<String> {
        let headings = prose(page).filter_map(|(_, line)| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
        let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        headings.map(|text| text.to_lowercase().chars().filter(keep).collect::<String>().replace(' ', "-")).collect()
    }
}

/// The lines of a page outside code blocks, from 1.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.lines().enumerate().filter_map(move |(at, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((at + 1, line))
    })
}

#[test]
fn links_and_headings_are_found() {
    let text = "# A `b` c!\n[x](../y.md#a) [z](https://z.example)\n```\n[no](no.md)\n```\n".to_owned();
    let page = TextFile { path: "docs/adr/p.md".to_owned(), text };
    assert_eq!(page.links(), [(2, "../y.md#a".to_owned())]);
    assert_eq!(page.beside("../y.md"), "docs/y.md");
    assert!(TextFile::headings(&page.text).contains("a-b-c"));
}
