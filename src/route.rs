//! Which route a request takes.

use std::sync::Arc;

/// Routes in their order: the first match wins.
#[derive(Debug, Clone)]
pub struct RouteTable<A> {
    routes: Vec<Arc<Route<A>>>,
}

/// A named way to answer some requests.
#[derive(Debug)]
pub struct Route<A> {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// What it does.
    pub action: A,
}

/// A channel name with `{parameter}`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template;
