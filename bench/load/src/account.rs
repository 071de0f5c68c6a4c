//! What each subscriber should have got, and what it got: every delivery is accounted for.

use crate::histogram::Histogram;
use crate::machine::now_ns;
use crate::mark::Scanner;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Which message of a run a number means: messages go to the channels in turn.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub channels: usize,
    /// Messages before the measured ones.
    pub warm_up: usize,
}

/// One subscriber.
#[derive(Debug, Default)]
pub struct Account {
    pub channel: u32,
    /// Whether it is subscribed, as far as it can tell.
    pub is_ready: bool,
    /// Whether it has stopped reading on purpose: nobody waits for it, and nothing of it is lost.
    pub is_stalled: bool,
    begun_ns: u64,
    received: u32,
    next: u32,
    missing: Vec<u32>,
    scanner: Scanner,
}

/// All subscribers of a process.
#[derive(Debug)]
pub struct Ledger {
    order: Order,
    begun_ns: u64,
    pub accounts: Vec<Account>,
    /// Subscribers of each channel that deliveries are expected from.
    live: Vec<u32>,
    /// For each channel, how many have got each message.
    got: Vec<Vec<u32>>,
    latency: Histogram,
    connect: Histogram,
    duplicates: u64,
    reordered: u64,
    stale: u64,
    last_ns: u64,
    pub polls: u64,
    pub polls_refused: u64,
    errors: BTreeMap<String, u64>,
    /// Lines for the process that publishes: `r` one more is ready, `f` one failed, `d CHANNEL SEQ` all have it.
    pub told: String,
}

impl Ledger {
    pub fn new(order: Order, channels_all: usize) -> Self {
        Self {
            order,
            begun_ns: now_ns(),
            accounts: Vec::new(),
            live: vec![0; channels_all],
            got: vec![Vec::new(); channels_all],
            latency: Histogram::default(),
            connect: Histogram::default(),
            duplicates: 0,
            reordered: 0,
            stale: 0,
            last_ns: 0,
            polls: 0,
            polls_refused: 0,
            errors: BTreeMap::new(),
            told: String::new(),
        }
    }

    /// Adds a subscriber that now begins to connect.
    pub fn open(&mut self, channel: u32, is_stalled: bool) -> usize {
        self.accounts.push(Account { channel, is_stalled, begun_ns: now_ns(), ..Account::default() });
        self.accounts.len() - 1
    }

    /// Notes that a subscriber is subscribed.
    pub fn ready(&mut self, who: usize) {
        let account = &mut self.accounts[who];
        if account.is_ready {
            return;
        }
        account.is_ready = true;
        self.connect.record(now_ns().saturating_sub(account.begun_ns));
        if !account.is_stalled {
            self.live[account.channel as usize] += 1;
        }
        self.told.push_str("r\n");
    }

    /// Notes that a subscriber gets nothing any more.
    pub fn gone(&mut self, who: usize, why: &str) {
        *self.errors.entry(why.into()).or_default() += 1;
        let account = &self.accounts[who];
        if !account.is_ready {
            self.told.push_str("f\n");
            return;
        }
        if account.is_stalled {
            return;
        }
        let channel = account.channel as usize;
        self.live[channel] -= 1;
        // What the others have got is complete now.
        for seq in 0..self.got[channel].len() {
            let lacks = seq as u32 >= account.next || account.missing.contains(&(seq as u32));
            if lacks && self.got[channel][seq] == self.live[channel] {
                tell_done(&mut self.told, channel as u32, seq as u32);
            }
        }
    }

    /// Takes what a subscriber read.
    pub fn read(&mut self, who: usize, bytes: &[u8]) {
        let now = now_ns();
        let Self { order, accounts, got, live, latency, told, .. } = self;
        let Account { channel, received, next, missing, scanner, .. } = &mut accounts[who];
        let at = *channel as usize;
        let (mut duplicates, mut reordered, mut stale) = (0, 0, 0);
        scanner.feed(bytes, |mark| {
            if mark.sent_ns < self.begun_ns || mark.seq > 10_000_000 {
                stale += 1;
                return;
            }
            if mark.seq >= *next {
                missing.extend(*next..mark.seq);
                *next = mark.seq + 1;
            } else if let Some(place) = missing.iter().position(|seq| *seq == mark.seq) {
                missing.swap_remove(place);
                reordered += 1;
            } else {
                duplicates += 1;
                return;
            }
            *received += 1;
            if mark.seq as usize * order.channels + at >= order.warm_up {
                latency.record(now.saturating_sub(mark.sent_ns));
            }
            let counts = &mut got[at];
            if counts.len() <= mark.seq as usize {
                counts.resize(mark.seq as usize + 1, 0);
            }
            counts[mark.seq as usize] += 1;
            if counts[mark.seq as usize] == live[at] {
                tell_done(told, at as u32, mark.seq);
            }
        });
        self.last_ns = now;
        self.duplicates += duplicates;
        self.reordered += reordered;
        self.stale += stale;
    }

    /// The accounts' sums, given how many messages each channel had.
    pub fn report(&self, sent: &[u32]) -> Value {
        let (mut received, mut lost, mut short) = (0, 0, 0);
        for account in self.accounts.iter().filter(|account| account.is_ready && !account.is_stalled) {
            let wanted = sent.get(account.channel as usize).copied().unwrap_or(0);
            let lacks = wanted.saturating_sub(account.received);
            received += u64::from(account.received);
            lost += u64::from(lacks);
            short += u64::from(lacks > 0);
        }
        json!({
            "received": received, "lost": lost, "clients_with_loss": short, "duplicates": self.duplicates,
            "reordered": self.reordered, "stale": self.stale, "last_ns": self.last_ns, "polls": self.polls,
            "polls_refused": self.polls_refused, "errors": self.errors, "measured": self.latency.count(),
            "latency": self.latency.to_json(), "connect": self.connect.to_json(),
        })
    }
}

fn tell_done(told: &mut String, channel: u32, seq: u32) {
    // Writing to a string can't fail.
    let _ = writeln!(told, "d {channel} {seq}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::Mark;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Order { channels: 1, warm_up: 2 }, 1);
        for _ in 0..2 {
            let who = ledger.open(0, false);
            ledger.ready(who);
        }
        ledger.told.clear();
        ledger
    }

    fn read(ledger: &mut Ledger, who: usize, seqs: &[u32]) {
        for seq in seqs {
            ledger.read(who, Mark { seq: *seq, sent_ns: now_ns() }.payload(40).as_bytes());
        }
    }

    #[test]
    fn doubles_gaps_and_late_ones_are_told_apart() {
        let mut ledger = ledger();
        read(&mut ledger, 0, &[0, 1, 4, 3, 3, 4, 5]);
        ledger.read(0, Mark { seq: 6, sent_ns: 1 }.payload(40).as_bytes());
        let report = ledger.report(&[7]);
        let field = |name: &str| report[name].as_u64().expect("a number");
        assert_eq!((field("received"), field("lost")), (5, 9), "2 and 6 for the one, 7 for the other");
        assert_eq!((field("duplicates"), field("reordered"), field("stale")), (2, 1, 1));
        assert_eq!(field("measured"), 3, "the first two are the warm-up");
    }

    #[test]
    fn a_message_is_done_when_all_that_are_left_have_it() {
        let mut ledger = ledger();
        read(&mut ledger, 0, &[0, 1]);
        read(&mut ledger, 1, &[0]);
        assert_eq!(ledger.told, "d 0 0\n");
        ledger.gone(1, "closed");
        assert_eq!(ledger.told, "d 0 0\nd 0 1\n");
    }
}
