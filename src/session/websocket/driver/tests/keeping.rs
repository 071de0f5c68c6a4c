//! What is kept of a session, and when: before its client can be back.

use super::*;
use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::model::position::Position;
use crate::model::session::{Gap, GapReason};
use crate::model::session_token::{SessionKey, SessionToken};
use crate::session::websocket::tests::name;
use futures_util::future::{pending, ready};
use parking_lot::Mutex;

/// A store that remembers what it was asked, and answers puts once it may.
#[derive(Default)]
struct Witness {
    puts: Mutex<Vec<StoredSession>>,
    takes: Mutex<usize>,
    stuck: Mutex<bool>,
}

impl SessionStore for Witness {
    fn ttl(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn put<'a>(&'a self, _: &'a SessionKey, session: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
        self.puts.lock().push(session);
        if *self.stuck.lock() { Box::pin(pending()) } else { Box::pin(ready(Ok(Put::Kept))) }
    }

    fn take<'a>(&'a self, _: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
        *self.takes.lock() += 1;
        Box::pin(ready(Ok(None)))
    }

    fn give_back<'a>(&'a self, _: &'a SessionKey, _: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }
}

impl Witness {
    fn puts(&self) -> Vec<StoredSession> {
        std::mem::take(&mut self.puts.lock())
    }
}

fn at(places: &[(&str, u64)]) -> StoredSession {
    let places: Vec<_> = places.iter().map(|(channel, offset)| (name(channel), *offset)).collect();
    let cursor = Cursor::of(places.iter().map(|(name, offset)| (name, Position { epoch: 1, offset: *offset })));
    StoredSession { channels: places.into_iter().map(|(name, _)| name).collect(), cursor, meta: Vec::new() }
}

fn kept(subprotocol: Subprotocol) -> (Rig, Arc<Witness>) {
    let store = Arc::new(Witness::default());
    let shared: Arc<dyn SessionStore> = Arc::<Witness>::clone(&store);
    let key = SessionToken::from_random([1; 16]).key("r", &[]);
    let rig = Rig::with(subprotocol, |metrics| Some(Keeper::new(shared, key, Rc::clone(metrics))));
    (rig, store)
}

#[test]
fn messages_cost_no_put_and_time_does() {
    let (mut rig, store) = kept(Subprotocol::V1);
    assert_eq!(store.puts(), [at(&[("a", 0)])], "from its start");
    for n in 1..100 {
        assert!(rig.gets(texts(n..n + 1)).is_pending());
    }
    assert_eq!(store.puts(), []);
    // The time of the session's own pings comes first.
    for now_ms in [20_000, 30_000] {
        assert!(rig.passes(now_ms).is_pending());
    }
    assert_eq!(store.puts(), [at(&[("a", 99)])], "within half of its ttl");
}

#[test]
fn other_channels_are_put_soon() {
    let (mut rig, store) = kept(Subprotocol::V1);
    store.puts();
    assert!(rig.says(client(0x81, br#"{"type":"subscribe","channels":["open"]}"#)).is_pending());
    assert!(rig.passes(1_000).is_pending());
    assert_eq!(store.puts(), [at(&[("a", 0), ("open", 0)])]);
}

#[test]
fn a_lost_client_is_kept_where_it_was() {
    for subprotocol in [Subprotocol::Raw, Subprotocol::V1] {
        let (mut rig, store) = kept(subprotocol);
        assert!(rig.gets(texts(1..8)).is_pending());
        store.puts();
        assert!(rig.says(Vec::new()).is_ready());
        assert_eq!((store.puts(), *store.takes.lock()), (vec![at(&[("a", 7)])], 0));
    }
}

#[test]
fn a_client_that_says_good_bye_is_forgotten() {
    let (mut rig, store) = kept(Subprotocol::V1);
    store.puts();
    assert!(rig.says(client(0x88, b"\x03\xe8")).is_ready());
    assert_eq!((store.puts(), *store.takes.lock()), (vec![], 1));
}

#[test]
fn whoever_is_sent_away_is_kept_before_it_hears_of_it() {
    let moved = || Delivery::End(CloseReason::Drain);
    let gap = || Delivery::Gap(Gap { channels: vec![name("a")], reason: GapReason::Slow });
    for (subprotocol, end, said) in [
        (Subprotocol::V1, moved(), "close 1012 drain"),
        (Subprotocol::Raw, moved(), "close 1012 drain"),
        (Subprotocol::Raw, gap(), "close 4001 gap"),
    ] {
        let (mut rig, store) = kept(subprotocol);
        *store.stuck.lock() = true;
        store.puts();
        assert!(rig.gets(texts(1..4).chain([end]).chain(texts(4..9))).is_pending());
        assert_eq!(store.puts(), [at(&[("a", 3)])]);
        assert!(rig.taken().iter().all(|frame| !frame.contains("close") && !frame.contains("reconnect")));
        // What comes meanwhile is for the next session; a store that does not answer holds up for a while only.
        assert!(rig.passes(1_900).is_pending());
        assert_eq!(rig.taken(), [""; 0]);
        assert!(rig.passes(2_000).is_pending());
        let last = rig.taken();
        assert_eq!(last.last().map(String::as_str), Some(said));
        assert!(last.iter().all(|frame| !frame.contains("\"event\"")), "{last:?}");
        assert!(rig.says(client(0x88, b"\x03\xf4")).is_ready());
        assert_eq!(store.puts(), [], "not put again by its end");
    }
}

#[test]
fn a_gap_of_a_v1_client_ends_nothing() {
    let (mut rig, store) = kept(Subprotocol::V1);
    store.puts();
    let gap = Delivery::Gap(Gap { channels: vec![name("a")], reason: GapReason::Slow });
    assert!(rig.gets([gap].into_iter().chain(texts(1..3))).is_pending());
    assert_eq!(rig.taken().len(), 3);
    assert_eq!(store.puts(), []);
}

#[test]
fn what_ends_for_good_is_forgotten() {
    let (mut rig, store) = kept(Subprotocol::V1);
    store.puts();
    assert!(rig.gets([Delivery::End(CloseReason::RouteRemoved)]).is_pending());
    assert_eq!(rig.taken(), ["close 4404 route_removed"]);
    assert_eq!((store.puts(), *store.takes.lock()), (vec![], 1));
}
