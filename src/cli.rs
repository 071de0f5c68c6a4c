
                Ok(runtime.block_on(publish::run(args)))
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Command::Check { config } => Ok(check::run(&config.path)),
            Command::Demo(args) => crate::demo::run(args).map(|()| ExitCode::SUCCESS),
            Command::Publish(args) => {
            Command::Run { config } => run::run(&config.path),
            Command::Schema => Ok(schema::run()),
            Command::Subscribe(args) => subscribe::run(args).map(|()| ExitCode::SUCCESS),
            }
        #[command(flatten)]
        <super::Cli as clap::CommandFactory>::command().debug_assert();
        config: ConfigArg,
        default_value = "/etc/pushbridge/pushbridge.yaml"
        env = "PUSHBRIDGE_CONFIG",
        long = "config",
        match self.command {
        short = 'c',
        value_name = "FILE",
        }
    #[arg(
    #[command(subcommand)]
    #[test]
    )]
    ///
    /// # Errors
    /// Find every problem of a configuration at once
    /// Print events of a push route as they come
    /// Print the JSON Schema of the configuration, for editors
    /// Prints each problem with file, line and column, the offending value and what to do. Exits 0 if there is none,
    /// Publish events to a running pushbridge
    /// Runs the command to its end.
    /// Serve, as a configuration says
    /// Show it all: a live page, a plain backend, and pushbridge in front
    /// The configuration (YAML)
    /// What went wrong, for people.
    /// else 78. Files that the configuration names (certificates, keys, secrets) are looked at too.
    Check {
    Demo(crate::demo::DemoArgs),
    Publish(publish::PublishArgs),
    Run {
    Schema,
    Subscribe(subscribe::SubscribeArgs),
    command: Command,
    fn the_command_line_is_sound() {
    path: PathBuf,
    pub fn execute(self) -> anyhow::Result<ExitCode> {
    }
    },
  pushbridge check --config pushbridge.yaml      every problem of a configuration at once
  pushbridge demo                                a page with live prices, nothing to set up
  pushbridge publish news '{\"hello\":1}' --json   publish an event
  pushbridge run --config pushbridge.yaml        serve
  pushbridge subscribe http://localhost:8080/events/news";
#[cfg(test)]
#[command(name = "pushbridge", version = VERSION, propagate_version = true, after_help = EXAMPLES)]
#[derive(Debug, Parser)]
#[derive(Debug, Subcommand)]
#[derive(Debug, clap::Args)]
//! The command line.
//! The command line: one module a command.
///
/// A reverse proxy that turns a backend's POST into SSE, WebSocket and long poll
/// It stands, ending TLS, in front of a plain request/response backend. The backend publishes by POSTing an event;
/// The exit code of a broken configuration (sysexits.h, EX_CONFIG).
/// every client that is connected gets it, by whichever transport it speaks.
Try it:
Use it:
const EXAMPLES: &str = "\
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PUSHBRIDGE_COMMIT"), ")");
enum Command {
impl Cli {
mod tests {
pub const EXIT_CONFIG: u8 = 78;
pub mod check;
pub mod publish;
pub mod run;
pub mod schema;
pub mod subscribe;
pub struct Cli {
struct ConfigArg {
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
}
