//! What a `pushbridge.v1.json` client says.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushbridge::proto::v1::command::Command;
use pushbridge::proto::v1::reply::Reply;

fuzz_target!(|text: &str| {
    if let Err(rejected) = Command::parse(text) {
        // The answer is JSON, whatever of the command stands in it.
        let mut answer = Vec::new();
        Reply::Error(&rejected).write(&mut answer);
        serde_json::from_slice::<serde_json::Value>(&answer).expect("JSON");
    }
});
