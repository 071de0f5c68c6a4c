//! The words for how far an instance is on its way out.

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// There is none.
    Serving,
    /// New clients are still served, and asked not to stay.
    Settle,
    /// Sessions end, each at its own moment; no new ones begin.
    Spread,
    /// Sessions that should have ended are waited for.
    Margin,
    /// No session is left.
    Drained,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [Self::Serving, Self::Settle, Self::Spread, Self::Margin, Self::Drained];

    /// The word on the wire, in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Settle => "settle",
            Self::Spread => "spread",
            Self::Margin => "margin",
            Self::Drained => "drained",
        }
    }

    /// Whether sessions may begin.
    pub fn takes_sessions(self) -> bool {
        self <= Self::Settle
    }
}
