//! Tells the binary which commit it is built from (`PUSHBRIDGE_COMMIT`): the variable of that name when it is set, as
//! an image build without `.git` does, else what git says, else `unknown`. Never fails a build.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "PUSHBRIDGE_COMMIT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    let given = std::env::var(VARIABLE).ok().filter(|commit| is_plain(commit));
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env={VARIABLE}={commit}");
}

/// The commit of this very repository: sources unpacked inside another one have none.
fn from_git() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // HEAD changes on checkout, its log on every commit. Cargo reruns always for a file that is not there.
    for name in ["HEAD", "logs/HEAD", "packed-refs"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_plain(commit))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn is_plain(commit: &str) -> bool {
    (1..=64).contains(&commit.len())
        && commit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}
