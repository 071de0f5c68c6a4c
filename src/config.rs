//! The configuration: from a YAML file to checked settings, or to every problem at once.
//!
//! The sole owner of YAML, in four steps: [`document`] reads a tree that knows where everything stands, [`read`] makes
//! the shapes of [`mod@file`] of it, `resolve` checks them, fills in [`defaults`] and makes each room's settings, and
//! `render` shows what is in force, without secrets.

pub mod defaults;
pub mod diff;
pub mod document;
pub mod file;
mod memory;
pub mod problem;
pub mod quantity;
pub mod read;
mod render;
mod resolve;
pub mod sources;

use crate::bus::settings::{BusSettings, SessionSettings};
use crate::config::document::Node;
use crate::config::problem::Spot;
use crate::config::read::Read as _;
use crate::config::sources::{Sources, Unreadable};
use crate::drain::DrainSettings;
use crate::gateway::settings::GatewaySettings;
use crate::hub::policy::ChannelPolicies;
use crate::publish::settings::PublishSettings;
use crate::server::limits::ServerLimits;
use crate::server::listener::ListenerSettings;
use crate::telemetry::log::LogSettings;
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
    /// How the process ends.
    pub drain: DrainSettings,
    /// How logs are written.
    pub log: LogSettings,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// The first 16 digits of the file's SHA-256; empty for what was read from no file.
    pub hash: String,
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
    /// Messages of one WebSocket client of a push route, in a second on average.
    pub client_messages_per_second_max: u32,
}

impl Config {
    /// The configuration in force, defaults and all, as indented JSON; secrets are shown as `***`.
    pub fn to_masked_json(&self) -> String {
        format!("{:#}", render::render(self, render::Secrets::Masked))
    }
}

/// What a load found, and in which files.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration, or every problem in the order of the file.
    pub result: Result<Config, Problems>,
    /// What was read.
    pub sources: Sources,
}

/// How much of a file's hash tells one from another.
const HASH_DIGITS: usize = 16;
/// How often a load is begun anew when files are swapped while they are read.
const LOAD_ATTEMPTS_MAX: usize = 5;

/// Reads and checks a configuration file, and the files that it names.
///
/// # Errors
/// Every problem, in the order of the file.
pub fn load(path: &Path) -> Result<Config, Problems> {
    load_with_sources(path).result
}

/// As [`load`], and says what was read. All files of a volume are of one generation.
pub fn load_with_sources(path: &Path) -> Loaded {
    for _ in 0..LOAD_ATTEMPTS_MAX {
        let mut sources = Sources::default();
        let result = load_once(path, &mut sources);
        if !sources.is_torn() {
            return Loaded { result, sources };
        }
    }
    let mut problems = Problems::new(path.display().to_string());
    problems.add_for_file("changes while it is read; wait until it is written, and try again", None);
    Loaded { result: Err(problems), sources: Sources::default() }
}

fn load_once(path: &Path, sources: &mut Sources) -> Result<Config, Problems> {
    let mut problems = Problems::new(path.display().to_string());
    match read_source(path, sources) {
        Ok(source) => {
            let folder = path.parent().unwrap_or(Path::new(""));
            let mut config = check(&source, folder, &|name| std::env::var(name).ok(), sources, problems)?;
            config.hash = sources.sha256_of(path).chars().take(HASH_DIGITS).collect();
            Ok(config)
        }
        Err(reason) => {
            problems.add_for_file(format!("can't be read: {reason}; name the file with --config"), None);
            Err(problems)
        }
    }
}

/// Checks a source text; relative paths start at `folder`.
fn check(
    source: &str,
    folder: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    sources: &mut Sources,
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
        Some(file) => resolve::resolve(&file, &top, resolve::Around { folder, env, sources }, problems),
        None => Err(problems),
    }
}

fn read_source(path: &Path, sources: &mut Sources) -> Result<String, String> {
    let limit = document::FILE_BYTES_MAX as u64;
    let bytes = sources.read(path, limit).map_err(|unreadable| match unreadable {
        Unreadable::TooLarge => format!("it has more than {limit} bytes"),
        Unreadable::Failed(reason) => reason,
    })?;
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests;
