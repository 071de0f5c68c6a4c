//! A Rust file, as far as the rules must understand it: what is code, what is a test, where a function ends.

/// One Rust file.
#[derive(Clone)]
pub struct Source {
    path: String,
    text: String,
    /// The text with comments, literals and tests blanked, line by line at the same place.
    product: String,
    /// As `product`, tests left in.
    code: String,
}

/// A function of the file.
pub struct Function {
    pub name: String,
    /// Where it begins, from 1.
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn new(path: String, text: String) -> Self {
        let code = without_literals(&text);
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let product = if is_test { blank(&code) } else { without_tests(&code) };
        Self { path, text, product, code }
    }

    /// From the repository's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The code that is part of the program, line by line where it stands in the text.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// How long the file is, up to its tests' absence: comments count, tests do not.
    pub fn product_lines(&self) -> usize {
        let in_tests = |(product, code): &(&str, &str)| product.trim().is_empty() && !code.trim().is_empty();
        let tests = self.product.lines().zip(self.code.lines()).filter(in_tests).count();
        self.text.lines().count() - tests
    }

    /// The folder or file below `src/` that it belongs to.
    pub fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let room = below.split('/').next()?;
        Some(room.strip_suffix(".rs").unwrap_or(room))
    }

    /// The rooms named after `crate::`, with their lines; `crate::{a, b}` names two.
    pub fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        for (at, _) in self.product.match_indices("crate::") {
            if self.product[..at].ends_with(is_word) {
                continue;
            }
            let line = self.product[..at].lines().count().max(1);
            let rest = &self.product[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                imports.extend(heads_of_group(group).into_iter().map(|room| (line, room)));
            } else {
                imports.push((line, rest.chars().take_while(|c| is_word(*c)).collect()));
            }
        }
        imports
    }

    /// The names of `mod name;`.
    pub fn modules(&self) -> Vec<String> {
        let declared = self.code.lines().filter_map(|line| {
            let rest = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
            rest.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')
        });
        declared.map(str::to_owned).collect()
    }

    /// Where the file of a module declared here may stand.
    pub fn module_paths(&self, module: &str) -> [String; 2] {
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")]
    }

    /// The functions that are part of the program and have a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, _) in self.product.match_indices("fn ") {
            let name: String = self.product[at + 3..].chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() || self.product[..at].ends_with(is_word) {
                continue;
            }
            let Some(body) = self.product[at..].find(['{', ';']).map(|found| at + found) else { continue };
            if self.product[body..].starts_with('{') {
                let end = closing(&self.product, body);
                let line = self.product[..at].matches('\n').count() + 1;
                functions.push(Function { name, line, lines: self.product[at..end].matches('\n').count() + 1 });
            }
        }
        functions
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The words of a text with their lines, from 1.
pub fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(at, line)| {
        line.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| (at + 1, word))
    })
}

pub fn has_word(line: &str, word: &str) -> bool {
    words(line).any(|(_, found)| found == word)
}

/// The first names in a `{a::b, c::{d, e}}` whose brace was just opened.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (1, Vec::new(), true);
    let mut rest = group;
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            c if is_word(c) => {
                len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                if at_head {
                    heads.push(rest[..len].to_owned());
                }
                at_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        rest = &rest[len..];
    }
    heads
}

/// Behind the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// Spaces for all but line ends.
fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { ' ' }).collect()
}

/// Blanks every item under `#[cfg(test)]`: up to its closing brace, or its semicolon.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut product = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let body = rest[at..].find(['{', ';']).map_or(rest.len(), |found| at + found);
        let end = if rest[body..].starts_with('{') { closing(rest, body) } else { (body + 1).min(rest.len()) };
        product.push_str(&rest[..at]);
        product.push_str(&blank(&rest[at..end]));
        rest = &rest[end..];
    }
    product.push_str(rest);
    product
}

/// Blanks comments and the insides of literals, so that braces and words in them count for nothing.
fn without_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let before = code.chars().next_back();
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !before.is_some_and(|c| is_word(c) && c != 'b') && raw_string(rest) > 0 => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if len == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.push_str(&blank(&rest[..len]));
            rest = &rest[len..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 2;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// The length of a character literal; a lifetime is none.
fn character(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match inside.next() {
        Some('\\') => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        Some(c) if inside.next() == Some('\'') => c.len_utf8() + 2,
        _ => 0,
    }
}

#[test]
fn literals_and_comments_are_no_code() {
    #[track_caller]
    fn check(text: &str, code: &str) {
        assert_eq!(without_literals(text), code);
    }
    check("a // {\nb", "a     \nb");
    check("a /* { /* } */ { */ b", "a                   b");
    check(r#"x("{\"{", '{', '\'', b'}')"#, "x(      ,    ,     , b   )");
    check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
    check("r#\"{\"{\"# + br\"{\" + for \"{\"", "         + b     + for    ");
}

#[test]
fn tests_are_no_product() {
    let text = "fn a() {\n    b();\n}\n#[cfg(test)]\nmod tests {\n    fn c() { \"}\" }\n}\nfn d() {}\n";
    let source = Source::new("src/x.rs".to_owned(), text.to_owned());
    let functions = source.functions();
    let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(found, [("a", 1, 3), ("d", 8, 1)]);
    assert_eq!(source.product_lines(), 4);
}

#[test]
fn imports_are_found_in_groups_and_paths() {
    let text = "use crate::{model::{a, b}, proto};\n// crate::no\nfn f() { crate::hub::x() }\npub(crate) fn g() {}\n";
    let source = Source::new("src/session/sse.rs".to_owned(), text.to_owned());
    let found = source.imports();
    let found: Vec<_> = found.iter().map(|(line, room)| (*line, room.as_str())).collect();
    assert_eq!(found, [(1, "model"), (1, "proto"), (3, "hub")]);
    assert_eq!(source.room(), Some("session"));
    assert_eq!(source.module_paths("frame")[0], "src/session/sse/frame.rs");
}
