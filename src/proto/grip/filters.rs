//! Who of a channel's subscribers gets a message, and in which words.
//!
//! | filter | what it does |
//! | --- | --- |
//! | `skip-self` | drops what the subscriber's own `user` sent (meta `sender`) |
//! | `skip-users` | drops what names the subscriber's `user` in meta `skip_users` |
//! | `require-sub` | drops it unless meta `require_sub` is a channel of the session |
//! | `build-id` | puts the session's id for `%I` ([`template::build_id`]) |
//! | `var-subst` | puts the session's meta for `%(name)s` ([`template::substitute`]) |

use crate::model::grip::{ContentFilters, GripFormats};
use crate::proto::grip::template::{self, TemplateError};
use std::borrow::Cow;

pub use crate::proto::websocket_over_http::control::Filter;

/// What filters ask a session.
pub trait Subscriber {
    /// A word about the session.
    fn meta(&self, name: &str) -> Option<&str>;
    /// Whether the session has this channel too.
    fn has_channel(&self, name: &str) -> bool;
    /// The last id of the session on a channel.
    fn last_id(&self, channel: &str) -> Option<&str>;
}

/// Why a subscriber does not get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// `skip-self`.
    SkipSelf,
    /// `skip-users`.
    SkipUsers,
    /// `require-sub`.
    RequireSub,
    /// The message asks for other content filters.
    ContentFilters,
    /// Its content can't be made: the session lacks the meta for it.
    Content,
    /// It has no format for such a session.
    NoForm,
}

impl Filter {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SkipSelf => "skip-self",
            Self::SkipUsers => "skip-users",
            Self::RequireSub => "require-sub",
            Self::BuildId => "build-id",
            Self::VarSubst => "var-subst",
        }
    }

    /// Whether it changes content, rather than choosing messages.
    pub fn is_of_content(self) -> bool {
        matches!(self, Self::BuildId | Self::VarSubst)
    }
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::SkipSelf, Self::SkipUsers, Self::RequireSub, Self::ContentFilters, Self::Content, Self::NoForm];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SkipSelf => "skip_self",
            Self::SkipUsers => "skip_users",
            Self::RequireSub => "require_sub",
            Self::ContentFilters => "content_filters",
            Self::Content => "content",
            Self::NoForm => "no_form",
        }
    }
}

/// Whether a subscription with `filters` is to get a message.
///
/// # Errors
/// Which filter drops it.
pub fn choose(filters: &[Filter], message: &GripFormats, subscriber: &dyn Subscriber) -> Result<(), Dropped> {
    let user = subscriber.meta("user");
    for filter in filters {
        match filter {
            Filter::SkipSelf if user.is_some() && user == message.meta("sender") => return Err(Dropped::SkipSelf),
            Filter::SkipUsers => {
                let mut users = message.meta("skip_users").unwrap_or_default().split(',');
                if let Some(user) = user
                    && users.any(|skipped| skipped.trim() == user)
                {
                    return Err(Dropped::SkipUsers);
                }
            }
            Filter::RequireSub => {
                if message.meta("require_sub").is_some_and(|channel| !subscriber.has_channel(channel)) {
                    return Err(Dropped::RequireSub);
                }
            }
            Filter::SkipSelf | Filter::BuildId | Filter::VarSubst => {}
        }
    }
    Ok(())
}

/// The content as the subscription's filters make it. `asked` are the content filters that the message asks for.
///
/// # Errors
/// When they are others than the subscription's, or the session lacks what they need.
pub fn content<'a>(
    filters: &[Filter],
    asked: &ContentFilters,
    content: &'a [u8],
    subscriber: &dyn Subscriber,
) -> Result<Cow<'a, [u8]>, Dropped> {
    let own = || filters.iter().filter(|filter| filter.is_of_content());
    if let Some(asked) = asked
        && !own().map(|filter| filter.as_str()).eq(asked.iter().map(|name| &**name))
    {
        return Err(Dropped::ContentFilters);
    }
    apply(filters, content, subscriber).map_err(|_| Dropped::Content)
}

/// Content through the content filters, in their order.
///
/// # Errors
/// When the session lacks what they need.
pub fn apply<'a>(
    filters: &[Filter],
    content: &'a [u8],
    subscriber: &dyn Subscriber,
) -> Result<Cow<'a, [u8]>, TemplateError> {
    let mut made = Cow::Borrowed(content);
    for filter in filters {
        let next = match filter {
            Filter::BuildId => template::build_id(&made, subscriber)?,
            Filter::VarSubst => template::substitute(&made, subscriber)?,
            Filter::SkipSelf | Filter::SkipUsers | Filter::RequireSub => continue,
        };
        made = Cow::Owned(next);
    }
    Ok(made)
}

#[cfg(test)]
pub(in crate::proto::grip) mod tests {
    use super::*;

    /// A subscriber of words.
    #[derive(Default)]
    pub(in crate::proto::grip) struct Words<'a> {
        pub(in crate::proto::grip) meta: &'a [(&'a str, &'a str)],
        pub(in crate::proto::grip) ids: &'a [(&'a str, &'a str)],
    }

    impl Subscriber for Words<'_> {
        fn meta(&self, name: &str) -> Option<&str> {
            self.meta.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        }

        fn has_channel(&self, name: &str) -> bool {
            self.ids.iter().any(|(known, _)| *known == name)
        }

        fn last_id(&self, channel: &str) -> Option<&str> {
            self.ids.iter().find(|(known, _)| *known == channel).map(|(_, id)| *id)
        }
    }

    #[track_caller]
    fn check(filters: &[Filter], message: &[(&str, &str)], user: &str, expected: Result<(), Dropped>) {
        let message = GripFormats {
            meta: message.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..GripFormats::default()
        };
        let meta = [("user", user)];
        let subscriber = Words { meta: if user.is_empty() { &[] } else { &meta }, ids: &[("own", "1")] };
        assert_eq!(choose(filters, &message, &subscriber), expected);
    }

    #[test]
    fn filters_choose_messages() {
        use Filter::{RequireSub, SkipSelf, SkipUsers};
        check(&[], &[("sender", "bob")], "bob", Ok(()));
        check(&[SkipSelf], &[("sender", "bob")], "bob", Err(Dropped::SkipSelf));
        check(&[SkipSelf], &[("sender", "eve")], "bob", Ok(()));
        check(&[SkipSelf], &[], "", Ok(()));
        check(&[SkipUsers], &[("skip_users", "eve, bob")], "bob", Err(Dropped::SkipUsers));
        check(&[SkipUsers], &[("skip_users", "bobby,eve")], "bob", Ok(()));
        check(&[SkipUsers], &[("skip_users", "")], "", Ok(()));
        check(&[RequireSub], &[("require_sub", "own")], "", Ok(()));
        check(&[SkipSelf, RequireSub], &[("require_sub", "other")], "bob", Err(Dropped::RequireSub));
        check(&[RequireSub], &[], "", Ok(()));
    }

    #[test]
    fn content_filters_have_to_be_the_same() {
        #[track_caller]
        fn check(filters: &[Filter], asked: Option<&[&str]>, expected: Result<&str, Dropped>) {
            let asked = asked.map(|names| names.iter().map(|name| (*name).into()).collect());
            let subscriber = Words { meta: &[("id_format", "%(a)s"), ("x", "y")], ids: &[("a", "7")] };
            let found = content(filters, &asked, b"%I", &subscriber);
            assert_eq!(found.map(Cow::into_owned), expected.map(|text| text.as_bytes().to_vec()));
        }
        use Filter::{BuildId, SkipUsers};
        check(&[], None, Ok("%I"));
        check(&[SkipUsers], Some(&[]), Ok("%I"));
        check(&[BuildId, SkipUsers], None, Ok("7"));
        check(&[BuildId, SkipUsers], Some(&["build-id"]), Ok("7"));
        check(&[BuildId], Some(&[]), Err(Dropped::ContentFilters));
        check(&[], Some(&["build-id"]), Err(Dropped::ContentFilters));
        check(&[BuildId], Some(&["build-id", "var-subst"]), Err(Dropped::ContentFilters));
        check(&[BuildId], Some(&["new"]), Err(Dropped::ContentFilters));
        let nobody = Words::default();
        assert_eq!(content(&[BuildId], &None, b"x%I", &nobody), Err(Dropped::Content));
    }
}
