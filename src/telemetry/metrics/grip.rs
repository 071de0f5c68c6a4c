//! What is counted of holds (GRIP).

use super::page::Page;
use super::totals::Counts;
use crate::proto::grip::filters::Dropped;

/// What became of a page that a held session asked for: a next link, or its request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GripPage {
    /// It came.
    Arrived,
    /// No answer, or a failure that may pass.
    Failed,
    /// An answer that can't be used.
    Unusable,
    /// Its link leads elsewhere.
    Refused,
}

/// What of a backend's answer was refused or passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GripRefusal {
    /// Its `Grip-*` fields, or its JSON.
    Instruct,
    /// Its channels: none, or too many.
    Channels,
    /// Its body: too large, broken off, compressed, or not to be made.
    Body,
    /// A link that leads elsewhere.
    Link,
    /// A filter that is unknown; the hold goes on without it.
    Filter,
}

impl GripPage {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Arrived, Self::Failed, Self::Unusable, Self::Refused];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
            Self::Refused => "refused",
        }
    }
}

impl GripRefusal {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Instruct, Self::Channels, Self::Body, Self::Link, Self::Filter];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instruct => "instruct",
            Self::Channels => "channels",
            Self::Body => "body",
            Self::Link => "link",
            Self::Filter => "filter",
        }
    }
}

/// The counts of the whole process.
#[derive(Debug, Default)]
pub(super) struct GripTotals {
    pub(super) pages: Counts<{ GripPage::ALL.len() }>,
    pub(super) refused: Counts<{ GripRefusal::ALL.len() }>,
    pub(super) dropped: Counts<{ Dropped::ALL.len() }>,
}

impl GripTotals {
    pub(super) fn write(&self, page: &mut Page) {
        let mut family =
            page.counter("pushbridge_grip_pages_total", "Pages that held sessions asked their backends for.");
        for result in GripPage::ALL {
            family.sample(&[("result", result.as_str())], self.pages.get(result as usize));
        }
        let mut family =
            page.counter("pushbridge_grip_refused_total", "What of backends' holds was refused or passed over.");
        for what in GripRefusal::ALL {
            family.sample(&[("what", what.as_str())], self.refused.get(what as usize));
        }
        let mut family = page.counter(
            "pushbridge_grip_dropped_total",
            "Messages that sessions did not get, by filters or for want of a form.",
        );
        for reason in Dropped::ALL {
            family.sample(&[("reason", reason.as_str())], self.dropped.get(reason as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_lists_its_values_in_the_order_of_their_declaration() {
        assert_eq!(GripPage::ALL.map(|value| value as usize), [0, 1, 2, 3]);
        assert_eq!(GripRefusal::ALL.map(|value| value as usize), [0, 1, 2, 3, 4]);
        assert_eq!(Dropped::ALL.map(|value| value as usize), [0, 1, 2, 3, 4, 5]);
    }
}
