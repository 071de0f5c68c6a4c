//! The house rules that a test can keep. Each rule says what is wrong where; CONTRIBUTING.md says why.

mod repository;
mod source;

use repository::{Repository, TextFile};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;
/// The most lines of a function, its braces included.
const FUNCTION_LINES_MAX: usize = 70;

/// Imports that go up or sideways: the file (or folder), the room it imports, and why that is right.
const FLOOR_EXCEPTIONS: &[(&str, &str, &str)] =
    &[("src/upstream", "server", "a body passes through from one to the other; server never looks at upstream")];

/// Fails with all violations of one rule at once.
#[track_caller]
fn none(rule: &str, violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

/// The Rust files of the program.
fn program() -> Vec<Source> {
    let sources = Repository::here().sources("src/");
    assert!(sources.len() > 20, "only {} files found in src", sources.len());
    sources
}

/// Where a rule is broken: the file and the lines whose code `is_wrong`.
fn lines_where<'a>(source: &'a Source, is_wrong: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = String> + 'a {
    let wrong = source.product().lines().enumerate().filter(move |(_, line)| is_wrong(line));
    wrong.map(|(at, _)| {
        let line = source.text().lines().nth(at).unwrap_or_default().trim();
        format!("{}:{}: {line}", source.path(), at + 1)
    })
}

#[test]
fn every_file_begins_with_its_module_doc() {
    let repository = Repository::here();
    let sources = [repository.sources("src/"), repository.sources("tests/"), repository.sources("build.rs")].concat();
    let without = sources.iter().filter(|source| !source.text().starts_with("//! "));
    none("say first what the file is", without.map(|source| source.path().to_owned()));
}

#[test]
fn files_stay_short() {
    let long = program().into_iter().filter(|source| source.product_lines() > FILE_LINES_MAX);
    none(
        "split these by what they are about",
        long.map(|source| format!("{}: {} lines without tests", source.path(), source.product_lines())),
    );
}

#[test]
fn functions_stay_short() {
    let long = program().into_iter().flat_map(|source| {
        let functions = source.functions();
        let long = functions.into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
        long.map(|f| format!("{}:{}: {} has {} lines", source.path(), f.line, f.name, f.lines)).collect::<Vec<_>>()
    });
    none("split these by what they do", long);
}

/// Reads the floors from lib.rs: `// F2` stands above the rooms of floor 2.
fn floors() -> BTreeMap<String, usize> {
    let (mut floor, mut floors) = (None, BTreeMap::new());
    for line in Repository::here().text("src/lib.rs").lines() {
        if let Some(number) = line.strip_prefix("// F") {
            floor = Some(number.trim().parse().expect("a floor's number"));
        } else if let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            floors.insert(room.to_owned(), floor.expect("a floor above the first room"));
        }
    }
    assert!(floors.len() > 10 && floors.get("model") == Some(&0), "{floors:?}");
    floors
}

#[test]
fn rooms_import_only_from_lower_floors() {
    let floors = floors();
    let mut wrong = Vec::new();
    for source in program() {
        let Some(&floor) = source.room().and_then(|room| floors.get(room)) else { continue };
        for (line, room) in source.imports() {
            if source.room() == Some(room.as_str()) {
                continue;
            }
            let Some(&other) = floors.get(&room) else {
                wrong.push(format!("{}:{line}: crate::{room} is no room of lib.rs", source.path()));
                continue;
            };
            let excepted =
                FLOOR_EXCEPTIONS.iter().any(|(from, to, _)| source.path().starts_with(from) && *to == room.as_str());
            if other >= floor && !excepted {
                wrong.push(format!("{}:{line}: floor {floor} imports crate::{room} of floor {other}", source.path()));
            }
        }
    }
    none("import from lower floors only, or move what is shared down", wrong);
}

#[test]
fn no_file_is_named_for_what_it_is_not_about() {
    const BANNED: [&str; 9] = ["utils", "util", "common", "helpers", "helper", "manager", "types", "misc", "mod"];
    let banned = program()
        .into_iter()
        .filter(|source| source.path().trim_end_matches(".rs").split('/').any(|part| BANNED.contains(&part)));
    none("name the file for its subject", banned.map(|source| source.path().to_owned()));
}

#[test]
fn only_the_configuration_knows_yaml() {
    let others = program().into_iter().filter(|source| source.room() != Some("config"));
    none(
        "YAML is config's",
        others
            .flat_map(|source| lines_where(&source, |line| source::has_word(line, "serde_saphyr")).collect::<Vec<_>>()),
    );
}

#[test]
fn pure_rooms_use_no_runtime_clock_or_chance() {
    const IMPURE: [&str; 6] = ["tokio", "hyper", "Instant", "SystemTime", "rand", "File"];
    let is_pure = |source: &Source| {
        matches!(source.room(), Some("model" | "proto")) || source.path().starts_with("src/hub/shard")
    };
    let pure: Vec<Source> = program().into_iter().filter(is_pure).collect();
    assert!(pure.len() > 10);
    none(
        "take time and chance as arguments",
        pure.iter()
            .flat_map(|source| lines_where(source, |line| IMPURE.iter().any(|word| source::has_word(line, word)))),
    );
}

#[test]
fn only_the_command_line_prints() {
    const PRINTS: [&str; 5] = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let others = program().into_iter().filter(|source| source.room() != Some("cli") && source.path() != "src/main.rs");
    none(
        "log it, or write to a handle that is given",
        others.flat_map(|source| {
            lines_where(&source, |line| PRINTS.iter().any(|print| line.contains(print))).collect::<Vec<_>>()
        }),
    );
}

#[test]
fn nothing_panics_by_choice_outside_tests() {
    const PANICS: [&str; 6] = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
    none(
        "return an error instead",
        program().iter().flat_map(|source| lines_where(source, |line| PANICS.iter().any(|panic| line.contains(panic)))),
    );
}

#[test]
fn every_source_file_belongs_to_the_program() {
    let repository = Repository::here();
    for (roots, folder) in [(&["src/lib.rs", "src/main.rs"][..], "src/"), (&["tests/it/main.rs"], "tests/")] {
        let sources: BTreeMap<String, Source> =
            repository.sources(folder).into_iter().map(|source| (source.path().to_owned(), source)).collect();
        let mut reached = BTreeSet::new();
        let mut ahead: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        while let Some(path) = ahead.pop() {
            if let Some(source) = sources.get(&path).filter(|_| reached.insert(path.clone())) {
                ahead.extend(source.modules().iter().flat_map(|module| source.module_paths(module)));
            }
        }
        let orphans = sources.keys().filter(|path| !reached.contains(*path));
        none("no `mod` leads to these", orphans.cloned());
    }
}

#[test]
fn no_text_tells_of_the_machine_it_was_written_on() {
    // Put together here, so that this file does not find itself.
    let machine = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let files = Repository::here().texts();
    let wrong = files.iter().flat_map(|file| {
        let lines = file.text.lines().enumerate();
        let wrong = lines.filter(|(_, line)| machine.iter().any(|path| line.contains(path)));
        wrong.map(move |(at, line)| format!("{}:{}: {}", file.path, at + 1, line.trim()))
    });
    none("use a path that every reader has", wrong);
}

#[test]
fn every_crate_comes_from_the_public_registry() {
    const PUBLIC: &str = r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
    let repository = Repository::here();
    let lock = repository.text("Cargo.lock");
    assert!(lock.contains(PUBLIC));
    none(
        "Cargo.lock may name crates.io only",
        lock.lines().filter(|line| line.starts_with("source = ") && *line != PUBLIC).map(str::to_owned),
    );
    let settings = [".cargo/config.toml", ".cargo/config", ".npmrc", "pip.conf"];
    none(
        "registries are a machine's own business",
        settings.iter().filter(|path| repository.has(path)).map(|path| (*path).to_owned()),
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let repository = Repository::here();
    let mut broken = Vec::new();
    for page in repository.texts().iter().filter(|file| file.is_markdown()) {
        for (line, target) in page.links() {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() { page.path.clone() } else { page.beside(path) };
            let missing = !repository.has(&path);
            let anchorless = !anchor.is_empty()
                && path.ends_with(".md")
                && !missing
                && !TextFile::headings(&repository.text(&path)).contains(anchor);
            if missing || anchorless {
                broken.push(format!("{}:{line}: {target}", page.path));
            }
        }
    }
    none("these links lead nowhere", broken);
}

#[test]
fn every_metric_that_is_spoken_of_exists() {
    let metrics = pushbridge::telemetry::metrics::Metrics::new();
    metrics.declare_listener("l");
    metrics.declare_route("r");
    metrics.declare_upstream("u");
    metrics.set_connections_by_worker(std::iter::once(0));
    metrics.run_config(pushbridge::telemetry::metrics::RunningConfig {
        certificates: vec![("c".to_owned(), 0)],
        ..Default::default()
    });
    let text = metrics.render();
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(known.len() > 20, "{known:?}");
    let is_known = |name: &str| {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        known.contains(name) || family.is_some_and(|family| known.contains(family))
    };
    let files = Repository::here().texts();
    let spoken = files.iter().filter(|file| {
        Path::new(&file.path)
            .extension()
            .is_some_and(|kind| ["md", "yaml", "yml", "json", "tpl"].iter().any(|k| kind == *k))
    });
    none(
        "no such metric",
        spoken.flat_map(|file| {
            let names = source::words(&file.text).filter(|(_, word)| word.starts_with("pushbridge_"));
            // `pushbridge_<component>…` and `pushbridge_hub_*` stand for many.
            let unknown = names.filter(|(_, name)| !name.ends_with('_') && !is_known(name));
            unknown.map(|(line, name)| format!("{}:{line}: {name}", file.path)).collect::<Vec<_>>()
        }),
    );
}

#[test]
fn the_protocol_page_lists_every_close_code_and_gap() {
    use pushbridge::model::session::{CloseReason, GapReason};
    let page = Repository::here().text("docs/protocol.md");
    let has_row = |start: &str| page.lines().any(|line| line.starts_with(start));
    let closes = CloseReason::ALL.map(|reason| format!("| {} | `{}` |", reason.close_code(), reason.as_str()));
    let gaps = GapReason::ALL.map(|reason| format!("| `{}` |", reason.as_str()));
    none("no such row in docs/protocol.md", closes.into_iter().chain(gaps).filter(|row| !has_row(row)));
}
