//! A configuration file: a checked configuration, or its problems; never a panic, never much memory.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::config::{document, load};
use std::io::Write as _;

fuzz_target!(|text: &str| {
    let parsed = document::parse(text).is_ok();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    match load(file.path()) {
        Ok(config) => {
            assert!(parsed);
            let shown = config.to_masked_json();
            serde_json::from_str::<serde_json::Value>(&shown).expect("JSON");
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
});
