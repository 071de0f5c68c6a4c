//! The commands that look at a configuration: `check`, `schema`, and a `run` that is refused.

use super::{YAML, run, run_with};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const LISTENERS: &str = "listeners: [{ name: http, address: \"127.0.0.1:0\" }]\n";

/// Writes a configuration to a folder of its own.
fn file(yaml: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("p.yaml");
    std::fs::write(&path, yaml).expect("written");
    let path = path.to_str().expect("text").to_owned();
    (folder, path)
}

#[test]
fn check_tells_every_problem_with_its_place() {
    let (_folder, path) = file(&format!("{LISTENERS}{YAML}"));
    for said in [run(&["check", "--config", &path]), run(&["check", "-c", &path]), {
        run_with(&["check"], b"", &[("PUSHBRIDGE_CONFIG", &path)])
    }] {
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
        assert!(said.out.starts_with("ok: 1 listener, 1 route "), "{}", said.out);
    }
    let (_folder, path) = file(
        "listeners:\n  - name: http\n    adress: 127.0.0.1:0\n  - { name: https, address: \"0.0.0.0:70000\", \
         tls: { certificates: [{ cert_file: none.crt, key_file: none.key }] } }\n\
         publish: { address: \"0.0.0.0:5561\" }\n\
         routes:\n  - { name: a, match: { path: \"/a\" }, push: { channels: [\"{x}\"] } }\n\
         channels:\n  - match: \"a.***\"\n",
    );
    let said = run(&["check", "--config", &path]);
    assert_eq!((said.code, said.out.as_str()), (Some(78), ""));
    for (text, place) in [
        ("did you mean \"address\"", ":3:5"),
        ("70000", ":4:"),
        ("none.crt", ":4:"),
        ("publish", ":5:"),
        ("{x}", ":7:"),
        ("a.***", ":9:"),
    ] {
        let found = said.err.lines().find(|line| line.contains(text));
        let line = found.unwrap_or_else(|| panic!("no {text:?} in {}", said.err));
        assert!(line.contains(&format!("p.yaml{place}")), "no {place} in {line}");
    }
    let (_folder, path) = file("listeners: [\n  {");
    let said = run(&["check", "--config", &path]);
    assert_eq!(said.code, Some(78));
    assert!(said.err.contains("p.yaml:2:"), "{}", said.err);
}

#[test]
fn run_refuses_what_check_refuses() {
    let open = "publish: { address: \"0.0.0.0:0\" }\n";
    let (_folder, path) = file(&format!("{LISTENERS}{YAML}\n{open}"));
    for command in ["check", "run"] {
        let said = run(&[command, "--config", &path]);
        assert_eq!((said.code, said.out.as_str()), (Some(78), ""));
        assert!(said.err.contains("publish") && said.err.contains("auth"), "{}", said.err);
    }
    let said = run_with(&["run"], b"", &[("PUSHBRIDGE_CONFIG", "/nonexistent/p.yaml")]);
    assert_eq!(said.code, Some(78));
    assert!(said.err.contains("/nonexistent/p.yaml"), "{}", said.err);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let (_folder, path) = file(&format!(
        "{LISTENERS}{YAML}\nadmin: {{ address: \"{address}\" }}\npublish: {{ address: \"127.0.0.1:0\" }}\n"
    ));
    let said = run(&["run", "--config", &path]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(&address.to_string()) && said.err.contains("another process"), "{}", said.err);
}

#[test]
fn the_schema_takes_the_example_and_nothing_else() {
    let said = run(&["schema"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in ["example.yaml", "minimal.yaml", "demo.yaml"] {
        let text = std::fs::read_to_string(config.join(name)).expect("a file");
        let mut value: Value = serde_saphyr::from_str(&text).expect("YAML");
        assert_eq!(fault(&schema, &schema, &value, name), None);
        value["listeners"][0]["adress"] = "x".into();
        assert!(fault(&schema, &schema, &value, name).is_some(), "an unknown key is refused");
    }
}

#[test]
fn the_schema_can_be_piped_into_what_ends_early() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pushbridge"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the built binary can be started");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "no panic");
}

/// Where `value` breaks `schema`, as far as the keywords go that the schema uses; an unknown keyword is a panic.
fn fault(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let keywords = schema.as_object()?;
    keywords.iter().find_map(|(keyword, wanted)| {
        let breaks = |broken: bool| broken.then(|| format!("{at}: {value} breaks {keyword}: {wanted}"));
        let passing = |schemas: &Value| {
            let schemas = schemas.as_array().expect("schemas");
            schemas.iter().filter(|one| fault(root, one, value, at).is_none()).count()
        };
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "examples" | "format" => None,
            "pattern" => breaks(!value.is_string()),
            "$ref" => {
                let pointer = wanted.as_str().expect("a text").trim_start_matches('#');
                fault(root, root.pointer(pointer).expect("a definition"), value, at)
            }
            "type" => {
                let kinds = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                breaks(!kinds.iter().any(|kind| is_of(value, kind.as_str().expect("a kind"))))
            }
            "const" => breaks(value != wanted),
            "oneOf" => breaks(passing(wanted) != 1),
            "anyOf" => breaks(passing(wanted) == 0),
            "minimum" => breaks(value.as_f64() < wanted.as_f64()),
            "minProperties" => {
                breaks(value.as_object().is_some_and(|o| (o.len() as u64) < wanted.as_u64().unwrap_or(0)))
            }
            "maxProperties" => breaks(value.as_object().is_some_and(|o| o.len() as u64 > wanted.as_u64().unwrap_or(0))),
            "required" => {
                let names = wanted.as_array().expect("names").iter();
                breaks(
                    value.is_object() && names.clone().any(|name| value.get(name.as_str().expect("a name")).is_none()),
                )
            }
            "items" => value.as_array()?.iter().find_map(|item| fault(root, wanted, item, &format!("{at}[]"))),
            "properties" => value
                .as_object()?
                .iter()
                .find_map(|(name, value)| fault(root, wanted.get(name)?, value, &format!("{at}.{name}"))),
            "additionalProperties" => {
                let known = keywords.get("properties");
                value
                    .as_object()?
                    .iter()
                    .filter(|(name, _)| known.is_none_or(|known| known.get(name).is_none()))
                    .find_map(|(name, value)| match wanted {
                        Value::Bool(false) => Some(format!("{at}.{name} is not known")),
                        schema => fault(root, schema, value, &format!("{at}.{name}")),
                    })
            }
            other => panic!("the test knows no {other}: {wanted}"),
        }
    })
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("no kind {other}"),
    }
}
