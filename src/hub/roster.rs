//! The users that have sessions here, on channels that know their members; and which of pushbridge's own channels have
//! moved. Whoever tells other instances of it is woken by each change.

use crate::clock::unix_ms;
use crate::model::channel::ChannelName;
use crate::proto::presence::MEMBERS_MAX;
use crate::proto::presence::room::Member;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The users of this instance; shared by its workers.
#[derive(Debug, Default)]
pub struct Roster {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<ChannelName, HashMap<Arc<str>, Member>>,
    users: usize,
    changes: Changes,
    waker: Option<Waker>,
}

/// What has changed since it was last asked.
#[derive(Debug, Default)]
pub struct Changes {
    /// Users whose sessions have changed, by channel; a channel without any got its first session here.
    pub users: HashMap<ChannelName, HashSet<Arc<str>>>,
    /// Own channels that have moved.
    pub moved: HashSet<ChannelName>,
}

/// Whether a session is counted under its user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// It is.
    Named,
    /// The channel has as many names as it may ([`MEMBERS_MAX`]).
    Full,
}

impl Roster {
    /// A user has one more session on a channel.
    pub(in crate::hub) fn enter(&self, channel: &ChannelName, user: &Arc<str>) -> Entered {
        let mut state = self.state.lock();
        let users = state.channels.entry(channel.clone()).or_default();
        if let Some(member) = users.get_mut(user) {
            member.sessions += 1;
        } else if users.len() < MEMBERS_MAX {
            users.insert(Arc::clone(user), Member { sessions: 1, since_ms: unix_ms() });
            state.users += 1;
        } else {
            return Entered::Full;
        }
        state.changed(channel, user);
        Entered::Named
    }

    /// A session that was [`Entered::Named`] has left.
    pub(in crate::hub) fn leave(&self, channel: &ChannelName, user: &Arc<str>) {
        let mut state = self.state.lock();
        let Some(users) = state.channels.get_mut(channel) else { return };
        let Some(member) = users.get_mut(user) else { return };
        member.sessions -= 1;
        if member.sessions == 0 {
            users.remove(user);
            if users.is_empty() {
                state.channels.remove(channel);
            }
            state.users -= 1;
        }
        state.changed(channel, user);
    }

    /// A channel that announces its members has its first session on a worker.
    pub(in crate::hub) fn attended(&self, channel: &ChannelName) {
        let mut state = self.state.lock();
        state.changes.users.entry(channel.clone()).or_default();
        state.wake();
    }

    /// An own channel has moved.
    pub(in crate::hub) fn moved(&self, channel: &ChannelName) {
        let mut state = self.state.lock();
        state.changes.moved.insert(channel.clone());
        state.wake();
    }

    /// A user's sessions on a channel; `None` if there are none.
    pub fn member(&self, channel: &ChannelName, user: &str) -> Option<Member> {
        self.state.lock().channels.get(channel)?.get(user).copied()
    }

    /// All users of a channel.
    pub fn members(&self, channel: &ChannelName) -> Vec<(Arc<str>, Member)> {
        let state = self.state.lock();
        let users = state.channels.get(channel).into_iter().flatten();
        users.map(|(user, member)| (Arc::clone(user), *member)).collect()
    }

    /// How many users there are, each on each of its channels.
    pub fn users(&self) -> usize {
        self.state.lock().users
    }

    /// Takes what has changed; pending if nothing has.
    pub fn poll_changes(&self, cx: &mut Context<'_>) -> Poll<Changes> {
        let mut state = self.state.lock();
        if state.changes.users.is_empty() && state.changes.moved.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut state.changes))
    }
}

impl State {
    fn changed(&mut self, channel: &ChannelName, user: &Arc<str>) {
        self.changes.users.entry(channel.clone()).or_default().insert(Arc::clone(user));
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_counted_by_sessions_and_bounded() {
        let (roster, channel) = (Roster::default(), ChannelName::new("c").expect("a name"));
        let user: Arc<str> = "bob".into();
        assert_eq!(roster.enter(&channel, &user), Entered::Named);
        assert_eq!(roster.enter(&channel, &user), Entered::Named);
        assert_eq!(roster.member(&channel, "bob").map(|member| member.sessions), Some(2));
        roster.leave(&channel, &user);
        roster.leave(&channel, &user);
        assert_eq!((roster.member(&channel, "bob"), roster.users()), (None, 0));
        for n in 0..MEMBERS_MAX {
            assert_eq!(roster.enter(&channel, &n.to_string().into()), Entered::Named);
        }
        assert_eq!(roster.enter(&channel, &user), Entered::Full);
        assert_eq!(roster.enter(&channel, &"1".into()), Entered::Named, "who is known already");
        assert_eq!((roster.users(), roster.members(&channel).len()), (MEMBERS_MAX, MEMBERS_MAX));
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(changes) = roster.poll_changes(&mut cx) else { panic!("it has changed") };
        assert_eq!(changes.users[&channel].len(), MEMBERS_MAX + 1);
        assert!(roster.poll_changes(&mut cx).is_pending());
    }
}
