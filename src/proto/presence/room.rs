//! One channel's members, as one instance knows them, and what it does about them.

use crate::model::position::Position;
use crate::proto::presence::MEMBERS_MAX;
use crate::proto::presence::lives::{Life, Lives};
use crate::proto::presence::note::{Bury, Done, Gone, Note, Part, Tell, USERS_MAX, User, Word};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How long after a note the next is written at the earliest.
pub const PACE_MS: u64 = 200;
/// How long after announcements the next are written: with [`TOLD_MAX`], their rate.
pub const TELL_PACE_MS: u64 = 1_000;
/// Announcements of one note at most.
pub const TOLD_MAX: usize = 100;
/// How long a note may take to come back; then it counts as lost.
pub const ECHO_MS: u64 = 3_000;
/// How long after a failure the next attempt is made.
const RETRY_MS: u64 = 1_000;
/// How often an instance tells all of its users again, for those who begin to read later: after so many notes, or so long.
const NOTES_MAX: u32 = 1_024;
const WHOLE_EVERY_MS: u64 = 600_000;
/// How long an announcement is kept in mind that another instance is to publish, and does not say that it has: longer
/// than it may take until that one is known to be dead, shorter than ids are remembered.
pub const REMEMBERED_MS: u64 = 110_000;
/// Own announcements that may wait to be published before more are made.
const WAITING_MAX: usize = 500;
/// Announcements of others that are kept in mind at most.
const QUEUE_MAX: usize = 10_000;
/// Instances of one channel at most.
const RECORDS_MAX: usize = 1_000;

/// A user's sessions on one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// How many.
    pub sessions: u32,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// Whether a user came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It has a session now, and had none.
    Join,
    /// It has none any more.
    Leave,
}

/// Something to be published on the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// To whom.
    pub user: Arc<str>,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// The note that made it true, and which part of the note: its id on the channel.
    pub note: Position,
    /// See `note`.
    pub index: usize,
    author: Arc<str>,
    read_ms: u64,
}

/// A user as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub user: Arc<str>,
    /// Where, by instance.
    pub instances: Vec<(Arc<str>, Member)>,
}

/// One channel's members.
#[derive(Debug)]
pub struct Room {
    me: Arc<str>,
    /// How long a user may be away before that is announced; `None`: nothing is announced.
    leave_after_ms: Option<u64>,
    /// Whether this instance takes part even without users of its own.
    attends: bool,
    local: HashMap<Arc<str>, Member>,
    records: BTreeMap<Arc<str>, Record>,
    /// Users that were announced, and not announced to be gone.
    told: HashSet<Arc<str>>,
    /// Of those, who is not there.
    absent: HashMap<Arc<str>, Absent>,
    /// Users that are there and were not announced.
    untold: BTreeSet<Arc<str>>,
    /// Users of whom it was read what was there before.
    heard: HashSet<Arc<str>>,
    queue: VecDeque<Event>,
    /// What this instance has published and not said so.
    done: Option<Done>,
    /// Users whose record is not as it should be.
    dirty: BTreeSet<Arc<str>>,
    round: u64,
    /// All users are told again.
    retelling: bool,
    notes: u32,
    whole_ms: u64,
    /// A note is on its way until then.
    echo_ms: u64,
    write_ms: u64,
    tell_ms: u64,
    publish_ms: u64,
}

#[derive(Debug)]
struct Record {
    members: BTreeMap<Arc<str>, Entry>,
    last: Position,
}

#[derive(Debug)]
struct Entry {
    member: Member,
    round: u64,
}

#[derive(Debug)]
struct Absent {
    since: Position,
    until_ms: u64,
}

/// Whether what is read was there before this instance began to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// It was: what others had announced is taken from their word.
    Before,
    /// It is new.
    New,
}

/// The present, on two clocks: of this process, and of the world.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Milliseconds of a clock that only goes forward.
    pub ms: u64,
    /// Unix milliseconds.
    pub unix_ms: u64,
}

impl Room {
    /// What `me` knows before it has read anything.
    pub fn new(me: Arc<str>) -> Self {
        Self {
            me,
            leave_after_ms: None,
            attends: false,
            local: HashMap::new(),
            records: BTreeMap::new(),
            told: HashSet::new(),
            absent: HashMap::new(),
            untold: BTreeSet::new(),
            heard: HashSet::new(),
            queue: VecDeque::new(),
            done: None,
            dirty: BTreeSet::new(),
            round: 0,
            retelling: false,
            notes: 0,
            whole_ms: 0,
            echo_ms: 0,
            write_ms: 0,
            tell_ms: 0,
            publish_ms: 0,
        }
    }

    /// Says whether users are announced, and how long they may be away.
    pub fn announce(&mut self, leave_after_ms: Option<u64>) {
        self.leave_after_ms = leave_after_ms;
    }

    /// Says whether this instance takes part even without users of its own.
    pub fn attend(&mut self, attends: bool) {
        self.attends = attends;
    }

    /// Says how many sessions a user has here; `None`: none.
    pub fn set(&mut self, user: &Arc<str>, member: Option<Member>) {
        match member {
            Some(member) => self.local.insert(Arc::clone(user), member),
            None => self.local.remove(user),
        };
        self.dirty.insert(Arc::clone(user));
    }

    /// Whether there is anything that this instance has to stay for.
    pub fn is_busy(&self) -> bool {
        self.is_engaged() || self.records.contains_key(&self.me)
    }

    fn is_engaged(&self) -> bool {
        let waits = self.leave_after_ms.is_some() && !self.absent.is_empty() || self.done.is_some();
        !self.local.is_empty() || self.attends || waits || self.queue.iter().any(|event| event.author == self.me)
    }

    /// Some notes were lost: this instance tells all of its users again.
    pub fn lost(&mut self) {
        self.retell();
    }

    /// Takes in the next note, which stands at `at`.
    pub fn read(&mut self, note: &Note, at: Position, read: Read, now: Now) {
        self.notes = self.notes.saturating_add(1);
        if read == Read::New {
            self.heard = HashSet::new();
        }
        let away_ms = now.ms.saturating_add(self.leave_after_ms.unwrap_or(0));
        match &note.word {
            Word::Beat(_) | Word::Left(_) => {}
            Word::Roster(part) => self.read_part(&note.from, part, at, read, away_ms),
            Word::Bye(_) => self.remove(&note.from, at, away_ms),
            Word::Bury(bury) => {
                if self.records.get(&*bury.instance).is_some_and(|record| record.last == bury.last) {
                    self.remove(&bury.instance, at, if bury.left { away_ms } else { now.ms });
                    if *bury.instance == *self.me {
                        // A note that is on its way makes a record of a part again.
                        self.retell();
                    }
                }
            }
            Word::Tell(tell) => self.read_tell(&note.from, tell, at, now),
            Word::Done(done) => self.read_done(done),
        }
        if *note.from == *self.me {
            self.echo_ms = 0;
        }
    }

    fn read_part(&mut self, from: &str, part: &Part, at: Position, read: Read, away_ms: u64) {
        if !self.records.contains_key(from) && self.records.len() >= RECORDS_MAX {
            return;
        }
        let from: Arc<str> = from.into();
        let record = self.records.entry(Arc::clone(&from)).or_insert(Record { members: BTreeMap::new(), last: at });
        record.last = at;
        let mut touched = Vec::with_capacity(part.users.len());
        for told in &part.users {
            let user: Arc<str> = (&*told.user).into();
            if told.sessions == 0 {
                record.members.remove(&user);
            } else if record.members.len() < MEMBERS_MAX || record.members.contains_key(&user) {
                let member = Member { sessions: told.sessions, since_ms: told.since_ms };
                record.members.insert(Arc::clone(&user), Entry { member, round: part.round });
            }
            // Only the first word of a user: later ones may have been written before what stands between.
            if read == Read::Before && self.heard.insert(Arc::clone(&user)) && told.told {
                self.told.insert(Arc::clone(&user));
            }
            touched.push(user);
        }
        if part.whole {
            let old = record.members.extract_if(.., |_, entry| entry.round < part.round);
            touched.extend(old.map(|(user, _)| user));
        }
        touched.iter().for_each(|user| self.settle(user, at, away_ms));
        if from == self.me {
            self.round = self.round.max(part.round);
            if part.whole && part.round == self.round {
                self.retelling = false;
                self.notes = 0;
            }
            touched.iter().for_each(|user| self.compare(user));
        }
    }

    /// A record is taken out; who is nowhere else has until `until_ms` to come back.
    fn remove(&mut self, instance: &str, at: Position, until_ms: u64) {
        let Some(record) = self.records.remove(instance) else { return };
        for user in record.members.keys() {
            self.settle(user, at, until_ms);
        }
    }

    fn read_tell(&mut self, from: &str, tell: &Tell, at: Position, now: Now) {
        let is_recent = now.unix_ms.saturating_sub(tell.at_ms) < REMEMBERED_MS;
        let joins = tell.joins.iter().map(|user| (Kind::Join, user, None));
        let leaves = tell.leaves.iter().map(|gone| (Kind::Leave, &gone.user, Some(gone.since)));
        for (index, (kind, user, since)) in joins.chain(leaves).enumerate() {
            let is_true = match since {
                None => self.untold.contains(&**user),
                Some(since) => self.absent.get(&**user).is_some_and(|absent| absent.since == since),
            };
            if !is_true {
                continue;
            }
            let user: Arc<str> = (&**user).into();
            self.heard.insert(Arc::clone(&user));
            match kind {
                Kind::Join => self.told.insert(Arc::clone(&user)),
                Kind::Leave => self.told.remove(&user),
            };
            self.settle(&user, at, now.ms);
            if is_recent {
                let (author, at_ms, read_ms) = (from.into(), tell.at_ms, now.ms);
                self.queue.push_back(Event { kind, user, at_ms, note: at, index, author, read_ms });
            }
        }
        while self.queue.len() > QUEUE_MAX && self.queue.front().is_some_and(|event| event.author != self.me) {
            self.queue.pop_front();
        }
    }

    fn read_done(&mut self, done: &Done) {
        let is_last = |event: &Event| (event.note, event.index) == (done.note, done.index);
        if let Some(last) = self.queue.iter().position(is_last) {
            self.queue.drain(..=last);
        }
        if self.done.as_ref() == Some(done) {
            self.done = None;
        }
    }

    /// Files a user by whether it is there and whether that was announced.
    fn settle(&mut self, user: &Arc<str>, at: Position, until_ms: u64) {
        let is_there = self.records.values().any(|record| record.members.contains_key(user));
        let is_told = self.told.contains(user);
        if is_there && !is_told {
            self.untold.insert(Arc::clone(user));
        } else {
            self.untold.remove(user);
        }
        if is_told && !is_there {
            self.absent.entry(Arc::clone(user)).or_insert(Absent { since: at, until_ms });
        } else {
            self.absent.remove(user);
        }
    }

    /// Notes whether a user's record is as it should be.
    fn compare(&mut self, user: &Arc<str>) {
        let record = self.records.get(&self.me).and_then(|record| record.members.get(user));
        let is_right = record.map(|entry| entry.member) == self.local.get(user).copied()
            && record.is_none_or(|entry| entry.round == self.round);
        if is_right {
            self.dirty.remove(user);
        }
    }

    fn retell(&mut self) {
        self.round += 1;
        self.retelling = true;
        self.dirty.extend(self.local.keys().cloned());
    }

    /// The next note to write, if one is due. It has to be written, or [`Room::failed`] be called.
    pub fn write(&mut self, now: Now, lives: &Lives) -> Option<Note> {
        if now.ms < self.echo_ms.max(self.write_ms) {
            return None;
        }
        let done = |room: &Self| room.done.clone().map(Word::Done);
        let word = self.own_word(now).or_else(|| done(self)).or_else(|| self.leading_word(now, lives))?;
        self.echo_ms = now.ms + ECHO_MS;
        self.write_ms = now.ms + PACE_MS;
        Some(Note { from: (&*self.me).into(), word })
    }

    /// A note could not be written.
    pub fn failed(&mut self, now: Now) {
        self.echo_ms = 0;
        self.write_ms = now.ms + RETRY_MS;
    }

    /// What this instance has to say of itself.
    fn own_word(&mut self, now: Now) -> Option<Word> {
        let has_record = self.records.contains_key(&self.me);
        if !self.is_engaged() {
            return has_record.then_some(Word::Bye(0));
        }
        let is_old = now.ms.saturating_sub(self.whole_ms) > WHOLE_EVERY_MS || self.notes > NOTES_MAX;
        if !self.retelling && (!has_record || is_old) {
            self.retell();
        }
        if self.dirty.is_empty() && !self.retelling {
            return None;
        }
        let users = self.dirty.iter().take(USERS_MAX).map(|user| {
            let member = self.local.get(user);
            User {
                user: (&**user).into(),
                sessions: member.map_or(0, |member| member.sessions),
                since_ms: member.map_or(0, |member| member.since_ms),
                told: self.told.contains(user),
            }
        });
        let users: Vec<_> = users.collect();
        let whole = self.retelling && users.len() == self.dirty.len();
        if whole {
            self.whole_ms = now.ms;
        }
        Some(Word::Roster(Part { round: self.round, whole, users }))
    }

    /// What the first of those who live has to say of others.
    fn leading_word(&mut self, now: Now, lives: &Lives) -> Option<Word> {
        let first = self.records.keys().find(|instance| lives.life(instance) == Life::Alive)?;
        if *first != self.me {
            return None;
        }
        let gone = self.records.iter().find(|(instance, _)| lives.life(instance) != Life::Alive);
        if let Some((instance, record)) = gone {
            let left = lives.life(instance) == Life::Left;
            return Some(Word::Bury(Bury { instance: (&**instance).into(), last: record.last, left }));
        }
        self.leave_after_ms?;
        let waiting = self.queue.iter().filter(|event| event.author == self.me).count();
        if now.ms < self.tell_ms || waiting >= WAITING_MAX {
            return None;
        }
        let joins: Vec<Box<str>> = self.untold.iter().take(TOLD_MAX).map(|user| (&**user).into()).collect();
        let due = self.absent.iter().filter(|(_, absent)| absent.until_ms <= now.ms);
        let gone = due.map(|(user, absent)| Gone { user: (&**user).into(), since: absent.since });
        let leaves: Vec<_> = gone.take(TOLD_MAX - joins.len()).collect();
        if joins.is_empty() && leaves.is_empty() {
            return None;
        }
        self.tell_ms = now.ms + TELL_PACE_MS;
        Some(Word::Tell(Tell { joins, leaves, at_ms: now.unix_ms }))
    }

    /// What this instance is to publish now, in order: what it announced itself, and what stands before that; and what
    /// those announced that are gone. Afterwards [`Room::published`] is told how far it came.
    pub fn due(&mut self, now: Now, lives: &Lives) -> Vec<Event> {
        if now.ms < self.publish_ms {
            return Vec::new();
        }
        let (me, records) = (&self.me, &self.records);
        let is_mine = |event: &Event| {
            event.author == *me || !records.contains_key(&event.author) || lives.life(&event.author) != Life::Alive
        };
        let is_over = |event: &Event| !is_mine(event) && event.read_ms + REMEMBERED_MS <= now.ms;
        while self.queue.front().is_some_and(is_over) {
            self.queue.pop_front();
        }
        let count = self.queue.iter().rposition(is_mine).map_or(0, |last| last + 1);
        self.queue.iter().take(count.min(TOLD_MAX)).cloned().collect()
    }

    /// The first of what was due were published, `of` so many; whether that was all says whether it is tried again at once.
    pub fn published(&mut self, done: &[Event], of: usize, now: Now) {
        if let Some(last) = done.last() {
            let done = Done { note: last.note, index: last.index };
            self.read_done(&done);
            self.done = Some(done);
        }
        if done.len() < of {
            self.publish_ms = now.ms + RETRY_MS;
        }
    }

    /// When something may be due by time alone.
    pub fn due_ms(&self, now: Now) -> u64 {
        let mut due_ms = self.whole_ms.saturating_add(WHOLE_EVERY_MS).max(now.ms + PACE_MS);
        let waits = self.leave_after_ms.is_some() && !(self.untold.is_empty() && self.absent.is_empty());
        let has_record = self.records.contains_key(&self.me);
        if !self.dirty.is_empty() || self.retelling || self.done.is_some() || self.is_engaged() != has_record || waits {
            due_ms = now.ms + PACE_MS;
        }
        if !self.queue.is_empty() {
            due_ms = due_ms.min(self.publish_ms.max(now.ms + TELL_PACE_MS));
        }
        due_ms
    }

    /// The users after `after`, in their order, so many at most, on instances that live.
    pub fn members(&self, after: &str, limit: usize, lives: &Lives) -> Vec<Listed> {
        let mut users: BTreeMap<&Arc<str>, Vec<(Arc<str>, Member)>> = BTreeMap::new();
        for (instance, record) in self.living(lives) {
            let following = record.members.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
            for (user, entry) in following.take(limit) {
                users.entry(user).or_default().push((Arc::clone(instance), entry.member));
            }
        }
        let listed = |(user, instances): (&Arc<str>, _)| Listed { user: Arc::clone(user), instances };
        users.into_iter().take(limit).map(listed).collect()
    }

    /// How many users there are on instances that live.
    pub fn users(&self, lives: &Lives) -> usize {
        self.living(lives).flat_map(|(_, record)| record.members.keys()).collect::<HashSet<_>>().len()
    }

    fn living<'a>(&'a self, lives: &'a Lives) -> impl Iterator<Item = (&'a Arc<str>, &'a Record)> {
        self.records.iter().filter(|(instance, _)| lives.life(instance) == Life::Alive)
    }
}
