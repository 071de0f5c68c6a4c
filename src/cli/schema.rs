//! `schema`: prints the JSON Schema of the configuration, for editors and CI.

use crate::config::file::File;
use std::io::{self, Write};
use std::process::ExitCode;

/// Prints the JSON Schema (draft 2020-12) of the configuration on stdout.
pub fn run() -> ExitCode {
    match writeln!(io::stdout().lock(), "{}", schema()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The schema as indented JSON; keys have their order by name.
pub fn schema() -> String {
    format!("{:#}", schemars::schema_for!(File).as_value())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed() -> Value {
        serde_json::from_str(&schema()).expect("JSON")
    }

    #[test]
    fn the_schema_names_what_is_required_and_refuses_the_rest() {
        let schema = parsed();
        assert_eq!(schema["required"], serde_json::json!(["listeners", "routes"]));
        assert_eq!(schema["additionalProperties"], false);
        let route = &schema["$defs"]["Route"];
        assert_eq!(route["required"], serde_json::json!(["name", "match"]));
        assert!(route["properties"]["match"].is_object(), "{route:#}");
        assert_eq!(schema["$defs"]["Balance"]["oneOf"][1]["const"], "least_requests");
    }

    #[test]
    fn every_key_has_a_description() {
        let schema = parsed();
        let definitions = schema["$defs"].as_object().expect("definitions").values();
        for definition in definitions.chain([&schema]) {
            assert!(definition["description"].is_string(), "{definition:#}");
            for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{key}: {property:#}");
            }
        }
    }
}
