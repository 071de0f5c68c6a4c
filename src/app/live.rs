//! The running instance as a reload sees it: all of a new configuration comes into force, or nothing of it.
//!
//! All that can fail comes first (sockets, TLS); what follows are stores that can't. Each room sees its settings whole,
//! and all rooms within the same few microseconds.

use crate::app::Shared;
use crate::app::doors::{Doors, Plan};
use crate::config::Config;
use crate::gateway::settings::{Action, GatewaySettings};
use crate::hub::HubLimits;
use crate::hub::policy::ChannelPolicies;
use crate::reload::Target;
use crate::telemetry::log::{LogLevel, LogSettings};
use crate::telemetry::metrics::{Metrics, RunningConfig};
use std::sync::Arc;
use tokio::sync::watch;

/// Ends the sessions of a route that is gone, spread out over a while.
pub type CloseRoute = Box<dyn Fn(&str) + Send>;

/// What a reload changes.
pub struct Live {
    /// The workers' settings.
    pub shared: Arc<Shared>,
    /// The workers' sockets.
    pub doors: watch::Sender<Doors>,
    /// The log's level, and the settings that it has.
    pub log: (LogLevel, LogSettings),
    /// What becomes of the sessions of a removed route.
    pub close_route: CloseRoute,
}

impl Target for Live {
    fn swap(&mut self, config: Config) -> Result<(), String> {
        let shared = &self.shared;
        let before = Arc::clone(&self.doors.borrow());
        let plan = Plan::make(&config, &before, shared.hub.workers()).map_err(|error| error.to_string())?;
        declare(&shared.metrics, &config);
        shared.shown_config.store(Arc::new(config.to_masked_json()));
        shared.limits.store(Arc::new(config.limits));
        shared.hub.set_limits(HubLimits {
            channels_max: config.hub_limits.channels_max,
            history_bytes_max: config.hub_limits.history_bytes_max,
        });
        if !same_policies(&shared.policies.load(), &config.channels) {
            shared.policies.store(Arc::new(config.channels));
            shared.hub.apply_policies();
        }
        shared.drain.set_settings(config.drain);
        shared.bus.set_window(config.publish.idempotency_window);
        shared.publish.store(Arc::new(config.publish));
        shared.sequences.set_id_cache(config.gateway.id_cache());
        let routes = shared.gateway.swap(Arc::new(config.gateway));
        let (level, settings) = &mut self.log;
        if *settings != config.log {
            level.adopt(&config.log);
            *settings = config.log;
        }
        let doors = plan.commit();
        for door in before.iter().filter(|door| !doors.iter().any(|other| Arc::ptr_eq(door, other))) {
            tracing::info!(listener = %door.name(), address = %door.address, "no longer listening");
        }
        // Sent also when no door changes: the workers look after their upstreams then.
        self.doors.send_replace(doors);
        gone(&routes, &shared.gateway.load()).for_each(|route| (self.close_route)(route));
        Ok(())
    }
}

/// Makes the metrics of everything that has a name appear, and says what runs.
pub fn declare(metrics: &Metrics, config: &Config) {
    config.listeners.iter().for_each(|settings| metrics.declare_listener(&settings.name));
    config.gateway.routes.iter().for_each(|route| metrics.declare_route(&route.name));
    config.gateway.upstreams.iter().for_each(|upstream| metrics.declare_upstream(&upstream.name));
    let mut certificates: Vec<(String, i64)> = config
        .listeners
        .iter()
        .filter_map(|listener| listener.tls.as_ref())
        .flat_map(|tls| &tls.certificates)
        .map(|one| (one.cert_file.display().to_string(), one.validity.not_after_secs))
        .collect();
    certificates.sort();
    certificates.dedup_by(|one, other| one.0 == other.0);
    metrics.run_config(RunningConfig {
        hash: config.hash.clone(),
        since_unix_secs: crate::hub::clock::unix_ms() as f64 / 1000.0,
        certificates,
    });
}

/// Routes whose sessions have no place any more: they are removed, or do something else now.
fn gone<'a>(before: &'a GatewaySettings, now: &'a GatewaySettings) -> impl Iterator<Item = &'a str> {
    let goes_on = |name: &str, action: &Action| {
        let same = |other: &Action| std::mem::discriminant(action) == std::mem::discriminant(other);
        now.routes.iter().any(|route| *route.name == *name && same(&route.action))
    };
    before.routes.iter().filter(move |route| !goes_on(&route.name, &route.action)).map(|route| &*route.name)
}

fn same_policies(one: &ChannelPolicies, other: &ChannelPolicies) -> bool {
    let entries = |policies: &ChannelPolicies| -> Vec<_> {
        policies.iter().map(|(pattern, policy)| (pattern.as_str().to_owned(), policy.clone())).collect()
    };
    entries(one) == entries(other) && one.default_policy() == other.default_policy()
}
