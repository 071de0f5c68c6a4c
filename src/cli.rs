//! The command line: one module a command.

pub mod check;
pub mod drain;
pub mod publish;
pub mod run;
pub mod schema;
pub mod subscribe;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a broken configuration (sysexits.h, EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// A reverse proxy that turns a backend's POST into SSE, WebSocket and long poll
///
/// It stands, ending TLS, in front of a plain request/response backend. The backend publishes by POSTing an event;
/// every client that is connected gets it, by whichever transport it speaks.
#[derive(Debug, Parser)]
#[command(name = "pushbridge", version = VERSION, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PUSHBRIDGE_COMMIT"), ")");

const EXAMPLES: &str = "\
Try it:
  pushbridge demo                                a page with live prices, nothing to set up
Use it:
  pushbridge check --config pushbridge.yaml      every problem of a configuration at once
  pushbridge run --config pushbridge.yaml        serve
  pushbridge publish news '{\"hello\":1}' --json   publish an event
  pushbridge subscribe http://localhost:8080/events/news";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve, as a configuration says
    Run {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Find every problem of a configuration at once
    ///
    /// Prints each problem with file, line and column, the offending value and what to do. Exits 0 if there is none,
    /// else 78. Files that the configuration names (certificates, keys, secrets) are looked at too.
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Say what changes from one file to another instead, a line each, and what of it needs a restart
        #[arg(long, num_args = 2, value_names = ["OLD", "NEW"])]
        diff: Option<Vec<PathBuf>>,
        /// Say it as JSON
        #[arg(long, requires = "diff")]
        json: bool,
    },
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Send the clients of a running pushbridge elsewhere, none of them lost
    Drain(drain::DrainArgs),
    /// Publish events to a running pushbridge
    Publish(publish::PublishArgs),
    /// Print events of a push route as they come
    Subscribe(subscribe::SubscribeArgs),
    /// Show it all: a live page, a plain backend, and pushbridge in front
    Demo(crate::demo::DemoArgs),
}

#[derive(Debug, clap::Args)]
struct ConfigArg {
    /// The configuration (YAML)
    #[arg(
        long = "config",
        short = 'c',
        value_name = "FILE",
        env = "PUSHBRIDGE_CONFIG",
        default_value = "/etc/pushbridge/pushbridge.yaml"
    )]
    path: PathBuf,
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run { config } => run::run(&config.path),
            Command::Check { config, diff: None, .. } => Ok(check::run(&config.path)),
            Command::Check { diff: Some(files), json, .. } => {
                let [old, new] = files.as_slice() else { anyhow::bail!("--diff takes two files") };
                Ok(check::diff(old, new, if json { check::Form::Json } else { check::Form::Text }))
            }
            Command::Schema => Ok(schema::run()),
            Command::Drain(args) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(drain::run(args)))
            }
            Command::Publish(args) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let code = runtime.block_on(publish::run(args));
                // A read of a terminal that is still under way would hold the process.
                runtime.shutdown_background();
                Ok(code)
            }
            Command::Subscribe(args) => subscribe::run(args).map(|()| ExitCode::SUCCESS),
            Command::Demo(args) => crate::demo::run(args).map(|()| ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
