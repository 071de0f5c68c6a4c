//! The stored form, and what every store promises.

pub mod conformance;

use super::*;
use crate::model::position::Position;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_session_survives_its_text(
        names in proptest::collection::vec("[a-z.\"é]{1,20}", 0..5),
        epoch: u64,
        offset: u64,
        meta in proptest::collection::vec(("[a-z-]{1,9}", ".{0,9}"), 0..3),
    ) {
        let channels: Vec<_> = names.iter().map(|name| ChannelName::new(name).expect("a name")).collect();
        let position = Position { epoch, offset };
        let cursor = Cursor::of(channels.iter().map(|channel| (channel, position)));
        let meta = meta.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let session = StoredSession { channels, cursor, meta };
        let text = session.encode().expect("small enough");
        prop_assert_eq!(StoredSession::decode(text.as_bytes()), Some(session));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,100}|\\{\"channels\":\\[.{0,20}\\],\"cursor\":\".{0,20}\"\\}") {
        let _ = StoredSession::decode(text.as_bytes());
    }

    #[test]
    fn a_cut_text_is_refused(keep in 0usize..40) {
        let text = StoredSession::default().encode().expect("small");
        prop_assume!(keep < text.len());
        prop_assert_eq!(StoredSession::decode(&text.as_bytes()[..keep]), None);
    }
}

#[test]
fn sessions_are_bounded() {
    let name = |n: usize| ChannelName::new(&format!("{n:0>500}")).expect("a name");
    let session = |count: usize| StoredSession { channels: (0..count).map(name).collect(), ..Default::default() };
    assert!(session(100).encode().is_ok());
    assert!(matches!(session(200).encode(), Err(StoreError::TooLarge(bytes)) if bytes > SESSION_BYTES_MAX));
    let many: Vec<_> = (0..=CURSOR_CHANNELS_MAX).map(|n| n.to_string()).collect();
    let text = serde_json::json!({"channels": many, "cursor": Cursor::default().encode()}).to_string();
    assert_eq!(StoredSession::decode(text.as_bytes()), None);
    let blank = format!("{}{}", " ".repeat(SESSION_BYTES_MAX), StoredSession::default().encode().expect("small"));
    assert_eq!(StoredSession::decode(blank.as_bytes()), None);
}
