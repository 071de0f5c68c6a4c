//! JSON webhooks of others as events.

/// A text with `{/json/pointer}`s into a webhook's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template;
