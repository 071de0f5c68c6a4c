//! What a shard knows of one session: its places, its waker and its deadline.

use crate::hub::log::Entry;
use crate::model::position::Position;
use crate::model::session::{CloseReason, GapReason, SessionKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

/// One session's part of the shard. There is one for each session, so it is kept small.
#[derive(Debug)]
pub(in crate::hub) struct Reader {
    pub(in crate::hub) reads: Reads,
    pub(in crate::hub) deadline_ms: u64,
    /// The wheel's tick under which the deadline is filed; 0 if it is not.
    pub(in crate::hub) tick: u64,
    /// When it is to end, in microseconds of the hub's clock; `u64::MAX` if nobody planned that.
    pub(in crate::hub) ends_us: u64,
    /// Why, if `ends_us` or `ending` say that it is to end.
    pub(in crate::hub) reason: CloseReason,
    pub(in crate::hub) ending: Ending,
    pub(in crate::hub) kind: Option<SessionKind>,
    /// Its route's place among the shard's routes.
    pub(in crate::hub) route: Option<u16>,
    /// Messages that conflation picked, or that were on their way when the session rose, to be delivered before the log goes on.
    pub(in crate::hub) backlog: Option<Box<Backlog>>,
    /// Whose it is, if that is known.
    pub(in crate::hub) named: Option<Box<Named>>,
    /// When a message was last handed to its client while it rested, in milliseconds of the shard's clock.
    pub(in crate::hub) sent_ms: u64,
    /// How long after the last message its deadline comes while it rests; `u32::MAX` where messages do not move it.
    pub(in crate::hub) quiet_ms: u32,
    /// Whether it rests: then it is in its mirror's other list.
    pub(in crate::hub) is_resting: bool,
    waker: Option<Waker>,
    sleep: Sleep,
}

/// The user of a session.
#[derive(Debug)]
pub(in crate::hub) struct Named {
    pub(in crate::hub) user: Arc<str>,
    /// The mirrors of the channels on which the session is counted under that name.
    pub(in crate::hub) counted: Vec<u32>,
}

/// Messages of one channel that are no longer in the mirror.
#[derive(Debug)]
pub(in crate::hub) struct Backlog {
    pub(in crate::hub) read: usize,
    pub(in crate::hub) entries: VecDeque<Arc<Entry>>,
}

/// Whether the session was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hub) enum Ending {
    No,
    /// After what is already there for it.
    Asked,
    /// At once: it had its time.
    Cut,
}

/// Whether the session waits to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// Until something is new.
    Asleep,
    /// Until the deadline or the end: its client does not take what it has already.
    Stalled,
}

/// A session's place in one channel.
#[derive(Debug)]
pub(in crate::hub) struct Read {
    /// Which mirror of the shard.
    pub(in crate::hub) mirror: u32,
    /// Where the session stands among the mirror's readers.
    pub(in crate::hub) slot: u32,
    /// The sequence number of the next entry.
    pub(in crate::hub) next: u64,
    /// The position of the last delivery, or the place before what follows.
    pub(in crate::hub) at: Position,
    /// A gap that is still to be announced. Until then `at` stays before it: who leaves without having heard of it
    /// hears of it next time.
    pub(in crate::hub) gap: Option<Box<PendingGap>>,
}

/// A gap that is still to be announced.
#[derive(Debug)]
pub(in crate::hub) struct PendingGap {
    pub(in crate::hub) reason: GapReason,
    /// The place before what follows the gap.
    pub(in crate::hub) after: Position,
}

/// The places of a session; nearly every session has one, which then costs no allocation.
#[derive(Debug)]
pub(in crate::hub) enum Reads {
    None,
    One(Read),
    Many(Vec<Read>),
}

impl Reader {
    pub(in crate::hub) fn new() -> Self {
        Self {
            reads: Reads::None,
            deadline_ms: u64::MAX,
            tick: 0,
            ends_us: u64::MAX,
            reason: CloseReason::Drain,
            ending: Ending::No,
            kind: None,
            route: None,
            backlog: None,
            named: None,
            sent_ms: 0,
            quiet_ms: u32::MAX,
            is_resting: false,
            waker: None,
            sleep: Sleep::Awake,
        }
    }

    /// Why the session is to end, if it was asked to.
    pub(in crate::hub) fn end(&self) -> Option<CloseReason> {
        (self.ending != Ending::No).then_some(self.reason)
    }

    /// Asks the session to end.
    pub(in crate::hub) fn ask(&mut self, reason: CloseReason) {
        if self.ending == Ending::No {
            (self.ending, self.reason) = (Ending::Asked, reason);
        }
        self.wake_anyway();
    }

    /// Ends the session's time, whatever it waits for.
    pub(in crate::hub) fn cut(&mut self) {
        if self.ending == Ending::No {
            self.reason = CloseReason::Drain;
        }
        self.ending = Ending::Cut;
        self.sleep = Sleep::Awake;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Wakes the session's task if it waits for something new.
    pub(in crate::hub) fn wake(&mut self) {
        if self.sleep == Sleep::Asleep {
            self.wake_anyway();
        }
    }

    /// Wakes the session's task if it waits at all.
    pub(in crate::hub) fn wake_anyway(&mut self) {
        if self.sleep != Sleep::Awake {
            self.sleep = Sleep::Awake;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Its one place, if nothing else keeps it from resting.
    pub(in crate::hub) fn may_rest(&self) -> Option<&Read> {
        let [read] = self.reads.as_slice() else { return None };
        let waits = self.sleep == Sleep::Asleep && !self.is_resting && self.end().is_none();
        (waits && self.backlog.is_none() && read.gap.is_none()).then_some(read)
    }

    /// From now on the session waits for something new.
    pub(in crate::hub) fn sleep(&mut self, waker: &Waker) {
        self.sleep = Sleep::Asleep;
        self.set_waker(waker);
    }

    /// From now on the session waits for its deadline or its end only.
    pub(in crate::hub) fn stall(&mut self, waker: &Waker) {
        self.sleep = Sleep::Stalled;
        self.set_waker(waker);
    }

    fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

impl Reads {
    pub(in crate::hub) fn as_slice(&self) -> &[Read] {
        match self {
            Reads::None => &[],
            Reads::One(read) => std::slice::from_ref(read),
            Reads::Many(reads) => reads,
        }
    }

    pub(in crate::hub) fn as_mut_slice(&mut self) -> &mut [Read] {
        match self {
            Reads::None => &mut [],
            Reads::One(read) => std::slice::from_mut(read),
            Reads::Many(reads) => reads,
        }
    }

    pub(in crate::hub) fn of_mirror(&mut self, mirror: u32) -> Option<&mut Read> {
        self.as_mut_slice().iter_mut().find(|read| read.mirror == mirror)
    }

    pub(in crate::hub) fn push(&mut self, read: Read) {
        *self = match std::mem::replace(self, Reads::None) {
            Reads::None => Reads::One(read),
            Reads::One(first) => Reads::Many(vec![first, read]),
            Reads::Many(mut reads) => {
                reads.push(read);
                Reads::Many(reads)
            }
        };
    }

    /// Takes the read at `index` out; the order of the others stays.
    pub(in crate::hub) fn take(&mut self, index: usize) -> Option<Read> {
        match self {
            Reads::Many(reads) => (index < reads.len()).then(|| reads.remove(index)),
            Reads::One(_) if index == 0 => match std::mem::replace(self, Reads::None) {
                Reads::One(read) => Some(read),
                Reads::None | Reads::Many(_) => None,
            },
            Reads::None | Reads::One(_) => None,
        }
    }
}
