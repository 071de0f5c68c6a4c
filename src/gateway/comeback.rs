//! A client that comes back with its session's token: where its session goes on.
//!
//! The token is used up by the look, and only here; a client that is refused after that has it back ([`Loan`]). One that
//! finds nothing is no error. The client is told that it was not resumed, and what its route has goes on from its
//! cursor; without a cursor its place is unknown, which is a gap.

mod loan;

use crate::bus::store::{SessionStore, StoredSession};
use crate::model::channel::ChannelName;
use crate::model::cursor::Cursor;
use crate::model::session_token::{SessionKey, SessionToken};
use crate::session::settings::PushSettings;
use crate::telemetry::metrics::{ComebackResult, WorkerMetrics};
use std::sync::Arc;
use std::time::Duration;

pub(in crate::gateway) use loan::Loan;

/// How long the store may take.
const TAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a client's token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Comeback {
    /// It gave none.
    New,
    /// Its session.
    Found(StoredSession),
    /// Nothing, any more or at all.
    Lost,
}

/// Where a session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) struct Beginning {
    /// The channels to join.
    pub(in crate::gateway) channels: Vec<ChannelName>,
    /// From where on.
    pub(in crate::gateway) cursor: Option<Cursor>,
}

impl Comeback {
    /// Takes the session out that the token, as it came, stands for on this route and path.
    pub(in crate::gateway) async fn take(
        store: &dyn SessionStore,
        token: Option<&[u8]>,
        (route, own): (&str, &[ChannelName]),
        metrics: &WorkerMetrics,
    ) -> Self {
        Self::take_by(store, token, |token| token.key(route, own), route, metrics).await
    }

    /// Takes the session out that is kept under the key of the token.
    pub(in crate::gateway) async fn take_by(
        store: &dyn SessionStore,
        token: Option<&[u8]>,
        key: impl FnOnce(&SessionToken) -> SessionKey,
        route: &str,
        metrics: &WorkerMetrics,
    ) -> Self {
        let Some(token) = token else { return Self::New };
        let (result, comeback) = match SessionToken::parse(token) {
            None => (ComebackResult::Unknown, Self::Lost),
            Some(token) => match tokio::time::timeout(TAKE_TIMEOUT, store.take(&key(&token))).await {
                Ok(Ok(Some(session))) => (ComebackResult::Found, Self::Found(session)),
                Ok(Ok(None)) => (ComebackResult::Unknown, Self::Lost),
                Ok(Err(error)) => {
                    tracing::warn!(%error, route, "a session could not be looked up, so it starts anew");
                    (ComebackResult::Failed, Self::Lost)
                }
                Err(_) => {
                    tracing::warn!(
                        error = "no answer in time",
                        route,
                        "a session could not be looked up, so it starts anew"
                    );
                    (ComebackResult::Failed, Self::Lost)
                }
            },
        };
        metrics.came_back(result);
        comeback
    }

    /// The session, in case that its client is refused after all; `key` is what its token gives.
    pub(in crate::gateway) fn lend(
        &self,
        store: &Arc<dyn SessionStore>,
        token: Option<&[u8]>,
        key: impl FnOnce(&SessionToken) -> SessionKey,
    ) -> Loan {
        let token = token.and_then(SessionToken::parse);
        let taken = match (self, token) {
            (Self::Found(session), Some(token)) => Some((key(&token), session.clone())),
            _ => None,
        };
        Loan::new(store, taken)
    }

    /// Where the session begins: `own` are the route's channels for this path, `cursor` is what the client says itself,
    /// which counts before what was kept.
    pub(in crate::gateway) fn begin(
        self,
        own: &[ChannelName],
        cursor: Option<Cursor>,
        settings: &PushSettings,
    ) -> Beginning {
        match self {
            Self::New => Beginning { channels: own.to_vec(), cursor },
            // A cursor that knows no channel: each begins with a gap.
            Self::Lost => Beginning { channels: own.to_vec(), cursor: Some(cursor.unwrap_or_default()) },
            Self::Found(session) => {
                let allowed = |channel: &ChannelName| {
                    let covers = || settings.client_subscribe.iter().any(|pattern| pattern.matches(channel.as_str()));
                    own.contains(channel) || covers()
                };
                let mut channels = session.channels;
                // What is allowed may have changed since.
                channels.retain(allowed);
                channels.truncate(settings.subscriptions_max);
                let said = cursor.unwrap_or_default();
                let place = |channel| said.position(channel).or_else(|| session.cursor.position(channel));
                let places = channels.iter().filter_map(|channel| Some((channel, place(channel)?)));
                let cursor = Some(Cursor::of(places));
                Beginning { channels, cursor }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::BusError;
    use crate::bus::store::memory::MemoryStore;
    use crate::bus::store::{Put, StoreError};
    use crate::clock::Clock;
    use crate::hub::shard::Start;
    use crate::model::pattern::ChannelPattern;
    use crate::model::position::Position;
    use crate::telemetry::metrics::Metrics;
    use futures_util::future::{BoxFuture, pending, ready};

    fn names(names: &[&str]) -> Vec<ChannelName> {
        names.iter().map(|name| ChannelName::new(name).expect("a name")).collect()
    }

    fn cursor(places: &[(&str, u64)]) -> Cursor {
        let places: Vec<_> = places.iter().map(|(name, offset)| (names(&[name]).remove(0), *offset)).collect();
        Cursor::of(places.iter().map(|(name, offset)| (name, Position { epoch: 1, offset: *offset })))
    }

    fn found(places: &[(&str, u64)]) -> Comeback {
        let channels = names(&places.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        Comeback::Found(StoredSession { channels, cursor: cursor(places), meta: Vec::new() })
    }

    #[track_caller]
    fn check(comeback: Comeback, said: Option<&[(&str, u64)]>, channels: &[&str], expected: Option<&[(&str, u64)]>) {
        let settings = PushSettings {
            transports: Vec::new(),
            keep_alive: Duration::ZERO,
            long_poll_timeout: Duration::ZERO,
            start: Start::Now,
            client_subscribe: vec![ChannelPattern::new("open.*").expect("a pattern")],
            client_publish: Vec::new(),
            subscriptions_max: 3,
            messages_per_second_max: 100,
        };
        let begins = comeback.begin(&names(&["own"]), said.map(cursor), &settings);
        assert_eq!(begins, Beginning { channels: names(channels), cursor: expected.map(cursor) });
    }

    #[test]
    fn a_session_begins_where_it_was() {
        check(Comeback::New, None, &["own"], None);
        check(Comeback::New, Some(&[("own", 3)]), &["own"], Some(&[("own", 3)]));
        check(Comeback::Lost, None, &["own"], Some(&[]));
        check(Comeback::Lost, Some(&[("own", 3)]), &["own"], Some(&[("own", 3)]));
        check(found(&[("own", 5), ("open.a", 7)]), None, &["own", "open.a"], Some(&[("own", 5), ("open.a", 7)]));
        // It left the route's own channel: so it stays.
        check(found(&[("open.a", 7)]), None, &["open.a"], Some(&[("open.a", 7)]));
        check(found(&[]), None, &[], Some(&[]));
        // What the client says counts first, also where it is behind.
        check(
            found(&[("own", 5), ("open.a", 7)]),
            Some(&[("own", 4)]),
            &["own", "open.a"],
            Some(&[("own", 4), ("open.a", 7)]),
        );
        check(found(&[("own", 5)]), Some(&[("other", 4)]), &["own"], Some(&[("own", 5)]));
    }

    #[test]
    fn what_is_no_longer_allowed_is_left() {
        check(found(&[("own", 5), ("closed", 7)]), None, &["own"], Some(&[("own", 5)]));
        let many = [("own", 1), ("open.a", 1), ("open.b", 1), ("open.c", 1)];
        check(found(&many), None, &["own", "open.a", "open.b"], Some(&many[..3]));
    }

    /// Answers nothing, or an error.
    struct Down(Option<BusError>);

    impl SessionStore for Down {
        fn ttl(&self) -> Duration {
            Duration::from_secs(60)
        }

        fn put<'a>(&'a self, _: &'a SessionKey, _: StoredSession) -> BoxFuture<'a, Result<Put, StoreError>> {
            Box::pin(pending())
        }

        fn take<'a>(&'a self, _: &'a SessionKey) -> BoxFuture<'a, Result<Option<StoredSession>, StoreError>> {
            match self.0.clone() {
                Some(error) => Box::pin(ready(Err(error.into()))),
                None => Box::pin(pending()),
            }
        }

        fn give_back<'a>(&'a self, _: &'a SessionKey, _: StoredSession) -> BoxFuture<'a, Result<(), StoreError>> {
            Box::pin(pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_is_a_session_that_is_lost() {
        let metrics = Metrics::new().worker();
        let token = SessionToken::from_random([1; 16]);
        for store in [Down(Some(BusError::Down("x".to_owned()))), Down(None)] {
            let taken = Comeback::take(&store, Some(token.as_str().as_bytes()), ("r", &[]), &metrics).await;
            assert_eq!(taken, Comeback::Lost);
        }
        assert_eq!(Comeback::take(&Down(None), None, ("r", &[]), &metrics).await, Comeback::New);
    }

    #[tokio::test]
    async fn a_token_counts_once_and_on_its_route_and_path_only() {
        let (metrics, store) = (Metrics::new().worker(), MemoryStore::new(Clock::start(), Duration::from_secs(60)));
        let (token, own) = (SessionToken::from_random([1; 16]), names(&["own"]));
        let session = StoredSession { channels: own.clone(), ..StoredSession::default() };
        store.put(&token.key("r", &own), session.clone()).await.expect("kept");
        let take = async |token: &[u8], route, own: &[&str]| {
            Comeback::take(&store, Some(token), (route, &names(own)), &metrics).await
        };
        let text = token.as_str().as_bytes();
        assert_eq!(take(text, "s", &["own"]).await, Comeback::Lost);
        assert_eq!(take(text, "r", &["other"]).await, Comeback::Lost);
        assert_eq!(take(&text[1..], "r", &["own"]).await, Comeback::Lost);
        assert_eq!(take(b"", "r", &["own"]).await, Comeback::Lost);
        assert_eq!(take(text, "r", &["own"]).await, Comeback::Found(session));
        assert_eq!(take(text, "r", &["own"]).await, Comeback::Lost);
    }
}
