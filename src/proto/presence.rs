//! Who is on a channel, over all instances, without I/O: what instances tell each other, and what follows from it.
//!
//! ```text
//!  sessions here ─▶ Room::set ─▶ Room::write ─▶ a note on the channel's companion on the bus ─┐
//!                                                                                           │ one order for all
//!  who is there, whom to announce ◀── Room::read ◀── the same notes, in every instance ◀────┘
//! ```
//!
//! A channel's companion is a log like any other, so that all instances read its notes in one order and judge alike. Each
//! keeps its own record there and nobody else's: who crashed is taken out by a note of another ([`lives`] says when),
//! and of several such notes the first counts. So it is with joins and leaves that are to be announced: a note that
//! makes one true comes first, and only then it is published, by whoever wrote it, under an id that the note's place
//! gives. If the writer dies in between, another publishes it under the same id.

pub mod lives;
pub mod note;
pub mod room;
#[cfg(test)]
mod tests;

/// The longest name of a user, in bytes; whoever has a longer one is counted without a name.
pub const USER_BYTES_MAX: usize = 255;
/// The most users of one channel that an instance names.
pub const MEMBERS_MAX: usize = 10_000;

/// The name of the event that says that a user is there.
pub const JOIN: &str = "presence.join";
/// The name of the event that says that a user is gone.
pub const LEAVE: &str = "presence.leave";

/// Whether an event's name is one by which only pushbridge, or a backend, says who is there.
pub fn is_announcement(event: &str) -> bool {
    event == JOIN || event == LEAVE
}

/// Whether a text can be a user's name.
pub fn is_user(text: &str) -> bool {
    !text.is_empty() && text.len() <= USER_BYTES_MAX && !text.chars().any(char::is_control)
}
