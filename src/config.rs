//! The configuration: from a YAML file to checked settings, or to every problem at once.
//!
//! The sole owner of YAML, in four steps: [`document`] reads a tree that knows where everything stands, [`read`] makes
//! the shapes of [`mod@file`] of it, `resolve` checks them, fills in [`defaults`] and makes each room's settings, and
//! `render` shows what is in force, without secrets.

pub mod defaults;
pub mod document;
pub mod file;
pub mod problem;
pub mod quantity;
pub mod read;
mod render;
mod resolve;

use crate::bus::settings::{BusSettings, SessionSettings};
use crate::config::document::Node;
use crate::config::problem::Spot;
use crate::config::read::Read as _;
use crate::gateway::settings::GatewaySettings;
use crate::hub::policy::ChannelPolicies;
use crate::publish::settings::PublishSettings;
use crate::server::limits::ServerLimits;
use crate::server::listener::ListenerSettings;
use crate::telemetry::log::LogSettings;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

pub use problem::{Problem, Problems};

/// A checked configuration: nothing in it can be wrong any more but what only the network knows.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<ListenerSettings>,
    /// Where backends publish.
    pub publish: PublishSettings,
    /// Where metrics, probes and the configuration are.
    pub admin: SocketAddr,
    /// Routes and upstreams.
    pub gateway: GatewaySettings,
    /// What channels keep.
    pub channels: ChannelPolicies,
    /// How instances share messages.
    pub bus: BusSettings,
    /// What sessions that are lost may expect.
    pub sessions: SessionSettings,
    /// Bounds on connections.
    pub limits: ServerLimits,
    /// Bounds on channels.
    pub hub_limits: HubLimits,
    /// How logs are written.
    pub log: LogSettings,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// What may be a mistake but can be run.
    pub warnings: Problems,
}

/// The part of `limits` that is about channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubLimits {
    /// Channels of this instance.
    pub channels_max: usize,
    /// History of all channels together.
    pub history_bytes_max: usize,
    /// Channels of one session.
    pub subscriptions_per_session_max: usize,
}

impl Config {
    /// The configuration in force, defaults and all, as indented JSON; secrets are shown as `***`.
    pub fn to_masked_json(&self) -> String {
        format!("{:#}", render::render(self))
    }
}

/// Reads and checks a configuration file, and looks at the files that it names.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let mut problems = Problems::new(path.display().to_string());
    let source = match read_source(path) {
        Ok(source) => source,
        Err(error) => {
            let reason = reason(&error);
            problems.add_for_file(format!("can't be read: {reason}; name the file with --config"), None);
            return Err(problems);
        }
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    check(&source, folder, &|name| std::env::var(name).ok(), problems)
}

/// Checks a source text; relative paths start at `folder`.
fn check(
    source: &str,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    mut problems: Problems,
) -> Result<Config, Problems> {
    let document: Node = match document::parse(source) {
        Ok(document) => document,
        Err(error) => {
            problems.add_for_file(error.text, error.place);
            return Err(problems);
        }
    };
    let top = Spot { path: String::new(), place: document.place };
    match file::File::read(&document, &top, &mut problems) {
        Some(file) => resolve::resolve(&file, &top, folder, env, problems),
        None => Err(problems),
    }
}

fn read_source(path: &Path) -> io::Result<String> {
    let limit = document::FILE_BYTES_MAX as u64;
    let mut source = String::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut source)?;
    if source.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(source)
}

/// The system's reason in lower case, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is no UTF-8".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests;
