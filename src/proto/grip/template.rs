//! What content filters put into content: ids for `%I`, meta for `%(name)s`.

use crate::proto::grip::filters::Subscriber;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most bytes that a content may grow to.
pub const MADE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest name in parentheses that is waited for where content comes in pieces, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;

/// Why content can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The session's meta lacks `id_format`.
    #[error("the session has no meta id_format, which build-id needs")]
    NoFormat,
    /// The session has no such id or meta.
    #[error("the session has no value for {0:?}")]
    Unknown(String),
    /// Another `id_encoding`.
    #[error("id_encoding {0:?} is unknown; write hex or base64")]
    Encoding(String),
    /// Over [`MADE_BYTES_MAX`].
    #[error("it would be over {MADE_BYTES_MAX} bytes")]
    TooLong,
}

/// `%I` becomes the session's id, `%(literal)I` the literal in the id's encoding, `%%` a `%`.
///
/// The id is meta `id_format`, in which `%(channel)s` is the session's last id on that channel, encoded as meta
/// `id_encoding` says.
///
/// # Errors
/// When the session lacks what is needed. Content without `%I` needs nothing.
pub fn build_id(content: &[u8], subscriber: &dyn Subscriber) -> Result<Vec<u8>, TemplateError> {
    let mut id = None;
    render(content, b'I', &mut |name| match name {
        Some(literal) => encode(literal.to_owned(), subscriber),
        None => match &id {
            Some(id) => Ok(String::clone(id)),
            None => Ok(id.insert(session_id(subscriber)?).clone()),
        },
    })
}

/// `%(name)s` becomes the session's meta of that name, `%%` a `%`.
///
/// # Errors
/// When the session has no such meta.
pub fn substitute(content: &[u8], subscriber: &dyn Subscriber) -> Result<Vec<u8>, TemplateError> {
    render(content, b's', &mut |name| match name {
        Some(name) => found(name, subscriber.meta(name)),
        None => Ok("%s".to_owned()),
    })
}

fn session_id(subscriber: &dyn Subscriber) -> Result<String, TemplateError> {
    let format = subscriber.meta("id_format").ok_or(TemplateError::NoFormat)?;
    let id = render(format.as_bytes(), b's', &mut |name| match name {
        Some(channel) => found(channel, subscriber.last_id(channel)),
        None => Ok("%s".to_owned()),
    })?;
    encode(String::from_utf8_lossy(&id).into_owned(), subscriber)
}

fn found(name: &str, value: Option<&str>) -> Result<String, TemplateError> {
    value.map(str::to_owned).ok_or_else(|| TemplateError::Unknown(name.chars().take(64).collect()))
}

fn encode(id: String, subscriber: &dyn Subscriber) -> Result<String, TemplateError> {
    match subscriber.meta("id_encoding") {
        None | Some("") => Ok(id),
        Some("hex") => Ok(id.bytes().map(|byte| format!("{byte:02x}")).collect()),
        Some("base64") => Ok(STANDARD.encode(id)),
        Some(other) => Err(TemplateError::Encoding(other.chars().take(32).collect())),
    }
}

/// How many bytes of `content` can be made before more of it is there: all but a `%` at its end whose meaning is still
/// open. A name that is longer than [`NAME_BYTES_MAX`] is taken as text.
pub fn whole_len(content: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'%', &content[at..]) {
        let start = at + found;
        match content.get(start + 1) {
            None => return start,
            Some(b'(') => match memchr::memchr(b')', &content[start..]) {
                None if content.len() - start <= NAME_BYTES_MAX => return start,
                Some(end) if start + end + 1 == content.len() => return start,
                None | Some(_) => at = start + 2,
            },
            Some(_) => at = start + 2,
        }
    }
    content.len()
}

/// Replaces `%V` and `%(name)V`, where V is `verb`, and `%%`; any other `%` stays as it is.
fn render(
    content: &[u8],
    verb: u8,
    value: &mut dyn FnMut(Option<&str>) -> Result<String, TemplateError>,
) -> Result<Vec<u8>, TemplateError> {
    let mut out = Vec::with_capacity(content.len() + 32);
    let mut rest = content;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.first() {
            Some(b'%') => {
                out.push(b'%');
                rest = &rest[1..];
            }
            Some(byte) if *byte == verb => {
                out.extend_from_slice(value(None)?.as_bytes());
                rest = &rest[1..];
            }
            Some(b'(') => match named(rest, verb) {
                Some((name, behind)) => {
                    out.extend_from_slice(value(Some(name))?.as_bytes());
                    rest = behind;
                }
                None => out.push(b'%'),
            },
            _ => out.push(b'%'),
        }
        if out.len() > MADE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// The name in `(name)V`, and what stands behind it.
fn named(text: &[u8], verb: u8) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b')', text)?;
    let name = std::str::from_utf8(&text[1..end]).ok()?;
    (text.get(end + 1) == Some(&verb)).then(|| (name, &text[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::grip::filters::tests::Words;
    use proptest::prelude::*;

    #[track_caller]
    fn check(made: Result<Vec<u8>, TemplateError>, expected: Result<&str, TemplateError>) {
        assert_eq!(made.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), expected.map(str::to_owned));
    }

    #[test]
    fn ids_are_put_in() {
        let ids = [("events-a%2Fb", "7"), ("events-c", "9")];
        let meta = [("id_format", "a%%2Fb:%(events-a%2Fb)s,c:%(events-c)s")];
        let session = Words { meta: &meta, ids: &ids };
        check(build_id(b"id: %I\ndata: 50%% %d %", &session), Ok("id: a%2Fb:7,c:9\ndata: 50% %d %"));
        check(build_id(b"%(x:1)I %(y)s %(z", &session), Ok("x:1 %(y)s %(z"));
        let meta = [("id_format", "%(events-c)s"), ("id_encoding", "hex")];
        check(build_id(b"%I %(k)I", &Words { meta: &meta, ids: &ids }), Ok("39 6b"));
        let meta = [("id_format", "%(events-c)s"), ("id_encoding", "rot13")];
        check(build_id(b"%I", &Words { meta: &meta, ids: &ids }), Err(TemplateError::Encoding("rot13".into())));
        check(build_id(b"%%I", &Words::default()), Ok("%I"));
        check(build_id(b"%I", &Words::default()), Err(TemplateError::NoFormat));
        let meta = [("id_format", "%(new)s")];
        check(build_id(b"%I", &Words { meta: &meta, ids: &ids }), Err(TemplateError::Unknown("new".into())));
    }

    #[test]
    fn meta_is_put_in() {
        let session = Words { meta: &[("user", "bob")], ids: &[] };
        check(substitute(b"hi %(user)s, 1%% %s %I", &session), Ok("hi bob, 1% %s %I"));
        check(substitute(b"%(room)s", &session), Err(TemplateError::Unknown("room".into())));
    }

    #[test]
    fn content_in_pieces_waits_for_what_is_open() {
        for (content, len) in [
            ("", 0),
            ("abc", 3),
            ("a%", 1),
            ("a%%", 3),
            ("a%I", 3),
            ("a%(b", 1),
            ("a%(b)", 1),
            ("a%(b)s", 6),
            ("%%%", 2),
        ] {
            assert_eq!(whole_len(content.as_bytes()), len, "{content}");
        }
        assert_eq!(whole_len(format!("%({}", "x".repeat(NAME_BYTES_MAX)).as_bytes()), NAME_BYTES_MAX + 2);
    }

    proptest! {
        #[test]
        fn pieces_make_what_the_whole_makes(content in "[%()aIs]{0,20}", at in 0usize..20) {
            let session = Words { meta: &[("id_format", "x"), ("a", "y")], ids: &[] };
            let bytes = content.as_bytes();
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let made = whole_len(first);
            let rest = [&first[made..], second].concat();
            let pieces = build_id(&first[..made], &session).and_then(|one| Ok([one, build_id(&rest, &session)?].concat()));
            prop_assert_eq!(pieces, build_id(bytes, &session));
        }

        #[test]
        fn escaped_content_comes_back(content in proptest::collection::vec(any::<u8>(), 0..60)) {
            let escaped: Vec<u8> = content.iter().flat_map(|b| std::iter::repeat_n(*b, if *b == b'%' { 2 } else { 1 })).collect();
            prop_assert_eq!(build_id(&escaped, &Words::default()), Ok(content.clone()));
            prop_assert_eq!(substitute(&escaped, &Words::default()), Ok(content));
        }

        #[test]
        fn any_content_is_made_or_refused(content in "[%()a-cIs]{0,40}") {
            let _ = build_id(content.as_bytes(), &Words { meta: &[("id_format", "x")], ids: &[] });
            let _ = substitute(content.as_bytes(), &Words::default());
        }
    }
}
