//! Instances that crash, pause, read late and write twice, out of a seed: what is announced must still be right.

use crate::model::position::Position;
use crate::proto::drain_schedule::Dice;
use crate::proto::presence::lives::{BEAT_EVERY_MS, BEATS_MISSED_MAX, Lives};
use crate::proto::presence::note::{Note, Word};
use crate::proto::presence::room::{Event, Kind, Member, Now, Read, Room};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

const USERS: [&str; 4] = ["ann", "bob", "eve", "kim"];
const LEAVE_AFTER_MS: u64 = 5_000;
const STEP_MS: u64 = 100;
const UNIX_MS: u64 = 1_700_000_000_000;
/// How long after the last change all must be said.
const CALM_MS: u64 = BEAT_EVERY_MS * (BEATS_MISSED_MAX + 3) + LEAVE_AFTER_MS + 20_000;

/// A bus that gives notes one order, and what is published on the channel.
#[derive(Default)]
struct World {
    now_ms: u64,
    notes: Vec<Note>,
    beats: Vec<Note>,
    ids: HashSet<(Position, usize)>,
    published: Vec<(u64, Event)>,
}

struct Instance {
    name: Arc<str>,
    room: Room,
    lives: Lives,
    read: usize,
    beats_read: usize,
    beat_ms: u64,
    paused_until_ms: u64,
    sessions: HashMap<&'static str, u32>,
}

/// How badly things go, in percent.
#[derive(Clone, Copy)]
struct Weather {
    late: u64,
    fails: u64,
}

const CALM: Weather = Weather { late: 0, fails: 0 };
const ROUGH: Weather = Weather { late: 40, fails: 25 };

impl World {
    fn now(&self) -> Now {
        Now { ms: self.now_ms, unix_ms: UNIX_MS + self.now_ms }
    }

    fn position(at: usize) -> Position {
        Position { epoch: 1, offset: at as u64 + 1 }
    }

    fn publish(&mut self, event: &Event) {
        if self.ids.insert((event.note, event.index)) {
            self.published.push((self.now_ms, event.clone()));
        }
    }

    /// Who is there, by what was published; fails where a join or leave comes twice.
    #[track_caller]
    fn announced(&self, seed: u64) -> HashSet<String> {
        let mut there = HashSet::new();
        for (at_ms, event) in &self.published {
            let is_news = match event.kind {
                Kind::Join => there.insert(event.user.to_string()),
                Kind::Leave => there.remove(&*event.user),
            };
            assert!(is_news, "seed {seed}: {:?} of {} at {at_ms} is no news", event.kind, event.user);
        }
        there
    }
}

impl Instance {
    fn start(name: String, world: &World) -> Self {
        let name: Arc<str> = name.into();
        let mut room = Room::new(Arc::clone(&name));
        room.announce(Some(LEAVE_AFTER_MS));
        let mut lives = Lives::new(Arc::clone(&name));
        for (at, note) in world.notes.iter().enumerate() {
            lives.mention(&note.from);
            room.read(note, World::position(at), Read::Before, world.now());
        }
        Self {
            name,
            room,
            lives,
            read: world.notes.len(),
            beats_read: world.beats.len(),
            beat_ms: world.now_ms,
            paused_until_ms: 0,
            sessions: HashMap::new(),
        }
    }

    fn set(&mut self, user: &'static str, sessions: u32, world: &World) {
        let since_ms = world.now().unix_ms;
        let member = (sessions > 0).then_some(Member { sessions, since_ms });
        self.sessions.insert(user, sessions);
        self.room.set(&Arc::from(user), member);
    }

    fn step(&mut self, world: &mut World, dice: &mut Dice, weather: Weather) {
        if self.paused_until_ms > world.now_ms {
            return;
        }
        if self.beat_ms <= world.now_ms {
            world.beats.push(Note { from: (&*self.name).into(), word: Word::Beat(0) });
            self.beat_ms = world.now_ms + BEAT_EVERY_MS;
        }
        if dice.below(100) >= weather.late {
            for note in &world.beats[self.beats_read..] {
                self.lives.beat(&note.from);
            }
            self.beats_read = world.beats.len();
            for at in self.read..world.notes.len() {
                self.lives.mention(&world.notes[at].from);
                self.room.read(&world.notes[at], World::position(at), Read::New, world.now());
            }
            self.read = world.notes.len();
        }
        let now = world.now();
        if let Some(note) = self.room.write(now, &self.lives) {
            let note = Note::decode(note.encode().as_bytes()).expect("a note");
            match dice.below(100) < weather.fails {
                false => world.notes.push(note),
                // It failed, or that is what it looks like.
                true => {
                    if dice.below(2) == 0 {
                        world.notes.push(note);
                    }
                    self.room.failed(now);
                }
            }
        }
        let due = self.room.due(now, &self.lives);
        let mut done = 0;
        for event in &due {
            if dice.below(100) < weather.fails {
                if dice.below(2) == 0 {
                    world.publish(event);
                }
                break;
            }
            world.publish(event);
            done += 1;
        }
        self.room.published(&due[..done], due.len(), now);
    }
}

fn run(world: &mut World, instances: &mut [Instance], dice: &mut Dice, weather: Weather, for_ms: u64) {
    let until_ms = world.now_ms + for_ms;
    while world.now_ms < until_ms {
        world.now_ms += STEP_MS;
        instances.iter_mut().for_each(|instance| instance.step(world, dice, weather));
    }
}

fn there(instances: &[Instance]) -> HashSet<String> {
    let users = |instance: &Instance| -> Vec<String> {
        instance.sessions.iter().filter(|(_, count)| **count > 0).map(|(user, _)| (*user).to_owned()).collect()
    };
    instances.iter().flat_map(users).collect()
}

/// What every instance lists, once all is calm.
#[track_caller]
fn all_list_the_same(instances: &[Instance], seed: u64) {
    let mut expected: BTreeMap<String, u32> = BTreeMap::new();
    for instance in instances {
        for (user, count) in instance.sessions.iter().filter(|(_, count)| **count > 0) {
            *expected.entry((*user).to_owned()).or_default() += count;
        }
    }
    for instance in instances {
        let listed = instance.room.members("", 100, &instance.lives);
        let counts = listed
            .iter()
            .map(|one| (one.user.to_string(), one.instances.iter().map(|(_, member)| member.sessions).sum::<u32>()));
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), expected, "seed {seed}, {}", instance.name);
        assert_eq!(instance.room.users(&instance.lives), expected.len(), "seed {seed}");
    }
}

fn simulate(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut world = World::default();
    let mut started = 0;
    let mut start = |world: &World| {
        started += 1;
        Instance::start(format!("{:02}-{started}", (seed + started * 7) % 100), world)
    };
    let mut instances: Vec<Instance> = (0..2 + seed % 3).map(|_| start(&world)).collect();
    for _ in 0..60 {
        let at = dice.below(instances.len() as u64) as usize;
        match dice.below(20) {
            // kill -9, and another in its place.
            0 => instances[at] = start(&world),
            1 => instances[at].paused_until_ms = world.now_ms + dice.below(40_000),
            2 if instances.len() > 1 => drop(instances.remove(at)),
            3 if instances.len() < 4 => instances.push(start(&world)),
            4 => instances[at].room.lost(),
            _ => {
                let user = USERS[dice.below(4) as usize];
                let sessions = if dice.below(2) == 0 { 0 } else { 1 + dice.below(2) as u32 };
                instances[at].set(user, sessions, &world);
            }
        }
        let for_ms = if dice.below(8) == 0 { 30_000 } else { dice.below(3_000) };
        run(&mut world, &mut instances, &mut dice, ROUGH, for_ms);
    }
    instances.iter_mut().for_each(|instance| instance.paused_until_ms = 0);
    // What nobody follows any more is noticed by who comes.
    instances.push(start(&world));
    instances.last_mut().expect("just pushed").room.attend(true);
    run(&mut world, &mut instances, &mut dice, CALM, CALM_MS);
    assert_eq!(world.announced(seed), there(&instances), "seed {seed}");
    all_list_the_same(&instances, seed);
}

#[test]
fn whatever_happens_each_join_and_leave_is_announced_once_and_in_the_end_all_is_right() {
    for seed in 0..1500 {
        simulate(seed);
    }
}

fn scene(count: usize) -> (World, Vec<Instance>, Dice) {
    let world = World::default();
    let instances = (0..count).map(|n| Instance::start(format!("i{n}"), &world)).collect();
    (world, instances, Dice::new(1))
}

fn kinds(world: &World) -> Vec<(Kind, String)> {
    world.published.iter().map(|(_, event)| (event.kind, event.user.to_string())).collect()
}

#[test]
fn a_client_that_moves_during_a_rolling_deploy_never_leaves() {
    let (mut world, mut instances, mut dice) = scene(3);
    instances[0].set("bob", 1, &world);
    run(&mut world, &mut instances, &mut dice, CALM, 5_000);
    for round in 0..12 {
        let (from, to) = (round % 3, (round + 1) % 3);
        instances[from].set("bob", 0, &world);
        run(&mut world, &mut instances, &mut dice, CALM, LEAVE_AFTER_MS - 1_000);
        instances[to].set("bob", 1, &world);
        run(&mut world, &mut instances, &mut dice, CALM, 2_000);
        // The old one ends, a new one takes its place.
        let name = instances[from].name.to_string();
        for instance in &mut instances {
            instance.lives.leave(&name);
        }
        instances[from] = Instance::start(format!("new{round}"), &world);
    }
    assert_eq!(kinds(&world), [(Kind::Join, "bob".to_owned())]);
    instances[0].set("bob", 0, &world);
    run(&mut world, &mut instances, &mut dice, CALM, CALM_MS);
    assert_eq!(kinds(&world), [(Kind::Join, "bob".to_owned()), (Kind::Leave, "bob".to_owned())]);
}

#[test]
fn a_crashed_instances_users_leave_when_its_lease_ends() {
    let (mut world, mut instances, mut dice) = scene(2);
    instances[0].set("bob", 2, &world);
    instances[0].set("ann", 1, &world);
    instances[1].set("ann", 1, &world);
    run(&mut world, &mut instances, &mut dice, CALM, 10_000);
    let killed_ms = world.now_ms;
    drop(instances.remove(0));
    run(&mut world, &mut instances, &mut dice, CALM, CALM_MS);
    let (at_ms, last) = world.published.last().expect("announced");
    assert_eq!((last.kind, &*last.user, world.published.len()), (Kind::Leave, "bob", 3));
    let took_ms = at_ms - killed_ms;
    assert!((BEAT_EVERY_MS * 2..=BEAT_EVERY_MS * (BEATS_MISSED_MAX + 1) + 2_000).contains(&took_ms), "{took_ms}");
    assert_eq!(there(&instances), HashSet::from(["ann".to_owned()]));
}

#[test]
fn a_reconnect_is_neither_a_leave_nor_a_join() {
    let (mut world, mut instances, mut dice) = scene(1);
    for _ in 0..50 {
        instances[0].set("bob", 1, &world);
        run(&mut world, &mut instances, &mut dice, CALM, 1_500);
        instances[0].set("bob", 0, &world);
        run(&mut world, &mut instances, &mut dice, CALM, 3_000);
    }
    assert_eq!(kinds(&world), [(Kind::Join, "bob".to_owned())]);
    run(&mut world, &mut instances, &mut dice, CALM, CALM_MS);
    assert_eq!(world.published.len(), 2);
    // Then there is nothing to stay for, and nothing more is written.
    assert!(!instances[0].room.is_busy());
    let written = world.notes.len();
    run(&mut world, &mut instances, &mut dice, CALM, 60_000);
    assert_eq!(world.notes.len(), written);
}

#[test]
fn many_at_once_are_announced_at_a_bounded_rate() {
    let (mut world, mut instances, mut dice) = scene(2);
    for n in 0..1_000 {
        let user: Arc<str> = format!("user{n}").into();
        instances[n % 2].room.set(&user, Some(Member { sessions: 1, since_ms: 1 }));
    }
    run(&mut world, &mut instances, &mut dice, CALM, 60_000);
    assert_eq!(world.published.len(), 1_000);
    for second in 0..60 {
        let within = |at_ms: u64| (second * 1000..(second + 1) * 1000).contains(&at_ms);
        let count = world.published.iter().filter(|(at_ms, _)| within(*at_ms)).count();
        assert!(count <= 200, "{count} in second {second}");
    }
    assert!(world.notes.len() < 60, "{} notes for 1000 users", world.notes.len());
}

#[test]
fn pages_have_each_user_once() {
    let (mut world, mut instances, mut dice) = scene(3);
    for n in 0..25 {
        let user: Arc<str> = format!("user{n:02}").into();
        for instance in instances.iter_mut().take(1 + n % 3) {
            instance.room.set(&user, Some(Member { sessions: 1, since_ms: 1 }));
        }
    }
    run(&mut world, &mut instances, &mut dice, CALM, 10_000);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = instances[1].room.members(&after, 4, &instances[1].lives);
        let Some(last) = page.last() else { break };
        after = last.user.to_string();
        assert!(page.iter().all(|one| one.instances.len() == 1 + one.user[4..].parse::<usize>().expect("n") % 3));
        seen.extend(page.iter().map(|one| one.user.to_string()));
    }
    assert_eq!(seen, (0..25).map(|n| format!("user{n:02}")).collect::<Vec<_>>());
}
