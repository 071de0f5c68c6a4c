//! The channels of one partition that have sessions here: begun, filled from their history, live, let go of.

use crate::bus::kafka::knowledge::{Backlog, Kept};
use crate::bus::kafka::lane::{Lane, Open, Phase, State};
use crate::clock::unix_ms;
use crate::hub::channel::Channel;
use crate::hub::log::LIVE_WINDOW_MESSAGES;
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use crate::model::position::Position;
use crate::model::session::GapReason;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Sessions that wait for one channel.
const ASKS_MAX: usize = 4096;

/// What has to be done for a channel to become current.
pub enum Follow {
    /// Nothing.
    Current,
    /// Somebody is at it: wait.
    Wait(oneshot::Receiver<Result<(), String>>),
    /// Its history has to be read, by the caller; then wait.
    Fill(oneshot::Receiver<Result<(), String>>),
}

impl Lane {
    /// Begins to follow a channel, or says that it is followed.
    ///
    /// # Errors
    /// When too many wait for it.
    pub fn follow(&self, channel: &Arc<Channel>) -> Result<Follow, String> {
        let mut state = self.state.lock();
        let open =
            state.open.get_mut(&channel.name).filter(|open| std::ptr::eq(open.channel.as_ptr(), Arc::as_ptr(channel)));
        if let Some(open) = open {
            open.idle_since_us = None;
            return match &mut open.phase {
                Phase::Live => {
                    self.advance(&state, channel);
                    Ok(Follow::Current)
                }
                Phase::Filling { asks, .. } if asks.len() < ASKS_MAX => {
                    let (ask, told) = oneshot::channel();
                    asks.push(ask);
                    Ok(Follow::Wait(told))
                }
                Phase::Filling { .. } => Err("too many wait for the channel".to_owned()),
            };
        }
        let (ask, told) = oneshot::channel();
        let phase = Phase::Filling { live: VecDeque::new(), dropped: 0, asks: vec![ask] };
        let open = Open { channel: Arc::downgrade(channel), phase, idle_since_us: None };
        state.open.insert(channel.name.clone(), open);
        Ok(Follow::Fill(told))
    }

    /// What a followed channel's log begins with; what is live meanwhile waits.
    pub fn backlog(&self, channel: &Channel) -> Option<Backlog> {
        let policy = channel.policy();
        let kept = Kept {
            messages_max: policy.history_messages_max.max(LIVE_WINDOW_MESSAGES),
            oldest_ms: unix_ms().saturating_sub(policy.history_age_ms_max),
        };
        let mut state = self.state.lock();
        let backlog = state.knowledge.backlog(&channel.name, kept)?;
        if let Some(Open { phase: Phase::Filling { live, dropped, .. }, .. }) = state.open.get_mut(&channel.name) {
            live.clear();
            *dropped = 0;
        }
        Some(backlog)
    }

    /// The history of a channel was read; whether it is current now. It is not if the partition has begun another life.
    pub fn fill(&self, channel: &Arc<Channel>, backlog: &Backlog, messages: Vec<(u64, Message)>) -> bool {
        let mut state = self.state.lock();
        if state.knowledge.epoch() != Some(backlog.epoch) {
            return false;
        }
        let Some(open) = state.open.get_mut(&channel.name) else { return true };
        let Phase::Filling { live, dropped, asks } = std::mem::replace(&mut open.phase, Phase::Live) else {
            return true;
        };
        let at = |offset| Position { epoch: backlog.epoch, offset };
        let after = at(backlog.after.max(dropped));
        if channel.last().offset == 0 && channel.messages() == 0 {
            self.hub.start_at(channel, after);
        } else {
            self.hub.skip_to(channel, after, GapReason::Bus);
        }
        for (number, message) in messages {
            // What stands before the place where the log begins is passed over.
            self.hub.append_at(channel, message, at(number));
        }
        for (position, message) in live {
            self.hub.append_at(channel, message, position);
        }
        self.advance(&state, channel);
        for ask in asks {
            let _ = ask.send(Ok(()));
        }
        true
    }

    /// The history of a channel could not be read: who waits is told, and the next one tries again.
    pub fn fail_fill(&self, channel: &ChannelName, reason: &str) {
        let Some(open) = self.state.lock().open.remove(channel) else { return };
        if let Phase::Filling { asks, .. } = open.phase {
            for ask in asks {
                let _ = ask.send(Err(reason.to_owned()));
            }
        }
    }

    /// Nothing of the channel stands between its newest message and what was read last.
    fn advance(&self, state: &State, channel: &Channel) {
        if let Some(epoch) = state.knowledge.epoch() {
            self.hub.advance_to(channel, Position { epoch, offset: state.knowledge.read() });
        }
    }

    /// Whether a channel without sessions, since `linger_us` ago, is to be let go; then it is.
    pub fn retire(&self, channel: &ChannelName, now_us: u64, linger_us: u64) -> bool {
        let mut state = self.state.lock();
        let Some(open) = state.open.get_mut(channel) else { return true };
        if matches!(open.phase, Phase::Filling { .. }) {
            return false;
        }
        let since_us = *open.idle_since_us.get_or_insert(now_us);
        let is_over = now_us.saturating_sub(since_us) >= linger_us;
        if is_over {
            state.open.remove(channel);
        }
        is_over
    }

    /// Forgets channels that the hub forgot by itself; how many are followed.
    pub fn tidy(&self) -> usize {
        let mut state = self.state.lock();
        state.open.retain(|_, open| open.channel.strong_count() > 0);
        state.open.len()
    }

    /// The channels that are followed.
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        self.state.lock().open.values().filter_map(|open| open.channel.upgrade()).collect()
    }
}
