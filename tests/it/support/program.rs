//! The built binary as a child process, ended when the test ends.

use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const LINE_TIMEOUT: Duration = Duration::from_secs(60);

/// A running `pushbridge`.
pub struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts the binary with `arguments`; its error output goes to the test's.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pushbridge"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the built binary can be started");
        let stdout = child.stdout.take().expect("its output is piped");
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    /// Reads the output until a line holds `text`, and gives that line.
    pub async fn line_with(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.expect("its output is text") {
                if line.contains(text) {
                    return Some(line);
                }
                read.push(line);
            }
            None
        };
        match tokio::time::timeout(LINE_TIMEOUT, waiting).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("pushbridge ended without saying {text:?}; it said {read:?}"),
            Err(_) => panic!("pushbridge did not say {text:?}; it said {read:?}"),
        }
    }

    /// Asks it to end, as Ctrl-C does, and gives its exit code.
    pub async fn interrupt(mut self) -> Option<i32> {
        let id = self.child.id().expect("it still runs").to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().await.expect("kill can be run");
        assert!(sent.success(), "the signal was not sent");
        let ended = tokio::time::timeout(LINE_TIMEOUT, self.child.wait()).await;
        ended.expect("it ends after the signal").expect("its status can be read").code()
    }
}
