//! What every session store promises, as checks that run against any of them.

use crate::bus::store::{Put, SessionStore, StoreError, StoredSession};
use crate::bus::tests::conformance::fresh;
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::position::Position;
use crate::model::session_token::SessionKey;
use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Every promise; `a` and `b` are the same store as two instances have it, `short` keeps sessions for a part of a second.
pub async fn all(a: &dyn SessionStore, b: &dyn SessionStore, short: &dyn SessionStore) {
    reached(a).await;
    reached(b).await;
    what_one_puts_the_other_takes(a, b).await;
    a_session_is_renewed(a, b).await;
    of_many_that_take_one_gets_it(a, b).await;
    what_was_taken_stays_taken(a, b).await;
    what_is_given_back_waits_again(a, b).await;
    what_is_too_large_is_refused(a).await;
    what_nobody_comes_for_is_forgotten(short).await;
}

fn key() -> SessionKey {
    crate::session::token::new().expect("random bits").key("route", &[])
}

fn session(offset: u64) -> StoredSession {
    let channels = vec![fresh("stored"), ChannelName::new("é } *.>").expect("a name")];
    let cursor = Cursor::of(channels.iter().map(|channel| (channel, Position { epoch: 1, offset })));
    StoredSession { channels, cursor, meta: vec![("meta-user".into(), "ü".into())] }
}

/// Waits until the store answers at all.
async fn reached(store: &dyn SessionStore) {
    let tries = async {
        while store.put(&key(), session(0)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("the store can be reached");
}

async fn what_one_puts_the_other_takes(a: &dyn SessionStore, b: &dyn SessionStore) {
    let (key, session) = (key(), session(1));
    assert_eq!(b.take(&key).await, Ok(None));
    assert_eq!(a.put(&key, session.clone()).await, Ok(Put::Kept));
    assert_eq!(b.take(&self::key()).await, Ok(None), "another key");
    assert_eq!(b.take(&key).await, Ok(Some(session)));
}

async fn a_session_is_renewed(a: &dyn SessionStore, b: &dyn SessionStore) {
    let (key, last) = (key(), session(9));
    for offset in 1..4 {
        assert_eq!(a.put(&key, session(offset)).await, Ok(Put::Kept));
    }
    assert_eq!(a.put(&key, last.clone()).await, Ok(Put::Kept));
    assert_eq!(b.take(&key).await, Ok(Some(last)));
}

async fn of_many_that_take_one_gets_it(a: &dyn SessionStore, b: &dyn SessionStore) {
    for round in 0..20 {
        let (key, session) = (key(), session(round));
        assert_eq!(a.put(&key, session.clone()).await, Ok(Put::Kept));
        let takes = (0..6).map(|n| if n % 2 == 0 { a.take(&key) } else { b.take(&key) });
        let taken = futures_util::future::join_all(takes).await;
        let taken: Vec<_> = taken.into_iter().filter_map(|taken| taken.expect("asked")).collect();
        assert_eq!(taken, [session]);
    }
}

/// Also where it is renewed in the same moment: whoever lost it must not bring it back.
async fn what_was_taken_stays_taken(a: &dyn SessionStore, b: &dyn SessionStore) {
    for round in 0..20 {
        let key = key();
        assert_eq!(a.put(&key, session(1)).await, Ok(Put::Kept));
        let (taken, renewed) = futures_util::future::join(b.take(&key), a.put(&key, session(2))).await;
        assert!(taken.expect("asked").is_some(), "round {round}");
        assert!(renewed.is_ok());
        assert_eq!(a.put(&key, session(3)).await, Ok(Put::Taken));
        assert_eq!(b.take(&key).await, Ok(None));
        assert_eq!(b.put(&key, session(4)).await, Ok(Put::Taken));
    }
}

/// And counts once more, no more; nobody can give what was not taken.
async fn what_is_given_back_waits_again(a: &dyn SessionStore, b: &dyn SessionStore) {
    let (key, first, other) = (key(), session(1), session(2));
    assert_eq!(a.give_back(&key, other.clone()).await, Ok(()));
    assert_eq!(b.take(&key).await, Ok(None), "it was never kept");
    assert_eq!(a.put(&key, first.clone()).await, Ok(Put::Kept));
    assert_eq!(b.give_back(&key, other.clone()).await, Ok(()));
    assert_eq!(b.take(&key).await, Ok(Some(first.clone())), "it was not taken");
    assert_eq!(a.put(&key, other.clone()).await, Ok(Put::Taken));
    assert_eq!(b.give_back(&key, first.clone()).await, Ok(()));
    assert_eq!(a.take(&key).await, Ok(Some(first)));
    assert_eq!((b.take(&key).await, a.put(&key, other).await), (Ok(None), Ok(Put::Taken)));
}

async fn what_is_too_large_is_refused(a: &dyn SessionStore) {
    let key = key();
    assert_eq!(a.put(&key, session(1)).await, Ok(Put::Kept));
    let channels = (0..200).map(|n| ChannelName::new(&format!("{n:0>500}")).expect("a name")).collect();
    let large = StoredSession { channels, ..StoredSession::default() };
    assert!(matches!(a.put(&key, large).await, Err(StoreError::TooLarge(_))));
    assert!(a.take(&key).await.expect("asked").is_some(), "what was kept before stays");
}

async fn what_nobody_comes_for_is_forgotten(short: &dyn SessionStore) {
    reached(short).await;
    let (early, late) = ((0..200).map(|_| key()).collect::<Vec<_>>(), key());
    let puts = early.iter().chain([&late]).map(|key| short.put(key, session(1)));
    let put = futures_util::future::join_all(puts).await;
    assert!(put.iter().all(|put| *put == Ok(Put::Kept)));
    // A session that is looked for is used up: each is looked for once.
    let looks = async {
        for key in &early {
            if short.take(key).await == Ok(None) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(tokio::time::timeout(PATIENCE, looks).await.expect("looked"), "nothing was forgotten");
    // What was forgotten is not taken for something that was taken: its session lives, perhaps.
    assert_eq!(short.put(&late, session(2)).await, Ok(Put::Kept));
}
