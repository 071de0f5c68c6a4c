//! `check`: says whether a configuration can be run, and all that is wrong with it; or what changes between two.

use crate::config::diff::{Comparable, ConfigDiff};
use crate::config::{self, Config};
use crate::gateway::settings::Action;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The exit code for a configuration that can't be run (`EX_CONFIG`, sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Checks a file: prints `ok` with a summary and returns 0, or prints every problem on stderr and returns 78.
///
/// Warnings go to stderr, and do not change the code.
pub fn run(path: &Path) -> ExitCode {
    ExitCode::from(run_with(path, &mut io::stdout().lock(), &mut io::stderr().lock()))
}

/// How differences are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line for each.
    Text,
    /// An array of objects.
    Json,
}

/// Says what changes from one file to another, and returns 0; or prints every problem on stderr and returns 78.
pub fn diff(old: &Path, new: &Path, form: Form) -> ExitCode {
    ExitCode::from(diff_with(old, new, form, &mut io::stdout().lock(), &mut io::stderr().lock()))
}

fn diff_with(old: &Path, new: &Path, form: Form, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (old, new) = match (config::load(old), config::load(new)) {
        (Ok(old), Ok(new)) => (Comparable::of(&old), Comparable::of(&new)),
        (old, new) => {
            for problems in [old.err(), new.err()].into_iter().flatten() {
                let _ = writeln!(err, "{problems}");
            }
            return EXIT_CONFIG;
        }
    };
    let diff = ConfigDiff::between(&old, &new);
    for (key, text) in diff.restart_needed() {
        let _ = writeln!(err, "{key}: {text}");
    }
    let _ = match form {
        Form::Json => writeln!(out, "{:#}", diff.to_json()),
        Form::Text if diff.is_empty() => writeln!(out, "nothing changes"),
        Form::Text => diff.lines().try_for_each(|line| writeln!(out, "{line}")),
    };
    0
}

/// What cannot be written is lost: the exit code tells the same.
fn run_with(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match config::load(path) {
        Ok(config) => {
            for warning in config.warnings.lines() {
                let _ = writeln!(err, "warning: {warning}");
            }
            let _ = writeln!(out, "ok: {}", summary(&config));
            0
        }
        Err(problems) => {
            for problem in problems.lines() {
                let _ = writeln!(err, "{problem}");
            }
            EXIT_CONFIG
        }
    }
}

fn summary(config: &Config) -> String {
    let (mut push, mut websocket, mut proxy) = (0, 0, 0);
    for route in config.gateway.routes.iter() {
        match route.action {
            Action::Push(_) => push += 1,
            Action::WebSocket(_) => websocket += 1,
            Action::Proxy(_) => proxy += 1,
        }
    }
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}, {} ({push} push, {websocket} websocket, {proxy} proxy), {}, {}; publish on {}, admin on {}",
        count(config.listeners.len(), "listener"),
        count(push + websocket + proxy, "route"),
        count(config.gateway.upstreams.len(), "upstream"),
        count(config.workers.get(), "worker"),
        config.publish.address,
        config.admin,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, code: u8, out: &str, err: &str) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, source).expect("written");
        let (mut given_out, mut given_err) = (Vec::new(), Vec::new());
        assert_eq!(run_with(&path, &mut given_out, &mut given_err), code);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8").replace(&*path.to_string_lossy(), "c.yaml");
        assert_eq!((text(given_out), text(given_err)), (out.to_owned(), err.to_owned()));
    }

    #[test]
    fn a_good_file_is_summed_up_and_warned_of() {
        check(
            "listeners: [{ name: http, address: '127.0.0.1:0' }]\n\
             upstreams: { a: { servers: ['http://b'] } }\n\
             routes: [{ name: n, match: { path: /n }, push: { channels: [n] } }]\n\
             runtime: { workers: 2 }\n",
            0,
            "ok: 1 listener, 1 route (1 push, 0 websocket, 0 proxy), 1 upstream, 2 workers; \
             publish on 127.0.0.1:5561, admin on 127.0.0.1:9901\n",
            "warning: upstreams.a: \"a\" is used by no route; remove it (c.yaml:2:17)\n",
        );
    }

    #[test]
    fn a_bad_file_exits_78_with_every_problem() {
        check(
            "listeners: []\nroutes: [{ name: n, match: { path: n }, push: { channels: [n] } }]\n",
            EXIT_CONFIG,
            "",
            "listeners: empty; list at least one with a name and an address (c.yaml:1:12)\n\
             routes[0].match.path: \"n\" does not start with `/`; write \"/n\" (c.yaml:2:36)\n",
        );
    }

    #[test]
    fn what_changes_between_two_files_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, path: &str, workers: usize| {
            let file = folder.path().join(name);
            let source = format!(
                "listeners: [{{ name: http, address: '127.0.0.1:0' }}]\n\
                 routes: [{{ name: n, match: {{ path: {path} }}, push: {{ channels: [n] }} }}]\n\
                 runtime: {{ workers: {workers} }}\n"
            );
            std::fs::write(&file, source).expect("written");
            file
        };
        let (old, new, bad) = (write("old", "/a", 1), write("new", "/b", 2), write("bad", "b", 1));
        let told = |new: &Path, form: Form| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = diff_with(&old, new, form, &mut out, &mut err);
            (code, String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"))
        };
        assert_eq!(told(&old, Form::Text), (0, "nothing changes\n".to_owned(), String::new()));
        let (code, out, err) = told(&new, Form::Text);
        assert_eq!((code, &*out), (0, "route n changed: match.path /a → /b\nruntime changed: workers 1 → 2\n"));
        assert!(err.starts_with("runtime.workers: 1 can't become 2 while running"), "{err}");
        let json: serde_json::Value = serde_json::from_str(&told(&new, Form::Json).1).expect("JSON");
        assert_eq!(json[0]["keys"][0]["new"], "/b");
        assert_eq!(told(&bad, Form::Text).0, EXIT_CONFIG);
    }

    #[test]
    fn a_missing_file_exits_78() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert_eq!(run_with(Path::new("nowhere/c.yaml"), &mut out, &mut err), EXIT_CONFIG);
        let expected = "can't be read: no such file; name the file with --config (nowhere/c.yaml)\n";
        assert_eq!((out, String::from_utf8_lossy(&err).as_ref()), (Vec::new(), expected));
    }
}
