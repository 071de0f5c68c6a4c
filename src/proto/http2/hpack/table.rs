//! The tables that a header block points into (RFC 7541 §2.3): the static one, and a dynamic one a connection.

use super::DecodeError;
use std::collections::VecDeque;

/// What an entry counts beside its bytes (RFC 7541 §4.1).
const ENTRY_BYTES: usize = 32;

/// The entries 1 to 61 (RFC 7541 Appendix A).
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The dynamic table, with the static one before it.
///
/// All entries lie in one buffer, the oldest first, each a name with its value behind it. Evicted ones stay at the
/// front until they are worth closing up, so that each byte is moved a constant number of times: the buffer holds at
/// most half as much again as the table may. An empty table owns nothing.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Where the oldest entry begins in `bytes`.
    start: usize,
    /// The oldest first.
    ends: VecDeque<Ends>,
    /// What all entries may count.
    size_max: usize,
}

/// Where an entry's parts end in the buffer; it begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    name: usize,
    value: usize,
}

impl Table {
    /// An empty table.
    pub(super) fn new(size_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, ends: VecDeque::new(), size_max }
    }

    /// The name and the value of an entry of either table (RFC 7541 §2.3.3).
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn get(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        let fault = DecodeError::Index { index };
        let at = index.checked_sub(1).ok_or(fault)?;
        if let Some((name, value)) = STATIC.get(at) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let newer = at - STATIC.len();
        let at = self.ends.len().checked_sub(newer + 1).ok_or(fault)?;
        let start = at.checked_sub(1).map_or(self.start, |older| self.ends[older].value);
        let ends = self.ends[at];
        Ok((&self.bytes[start..ends.name], &self.bytes[ends.name..ends.value]))
    }

    /// Adds an entry, for which old ones go (RFC 7541 §4.4). One that is larger than the table leaves it empty.
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let len = name.len() + value.len();
        let Some(left) = self.size_max.checked_sub(len + ENTRY_BYTES) else {
            self.clear();
            return;
        };
        self.evict(left);
        self.make_room(len);
        self.bytes.extend_from_slice(name);
        let name = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push_back(Ends { name, value: self.bytes.len() });
    }

    /// Changes what all entries may count; old ones go for it (RFC 7541 §4.3).
    pub(super) fn resize(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(size_max);
        if self.ends.is_empty() {
            self.clear();
        }
    }

    /// What all entries count (RFC 7541 §4.1).
    fn size(&self) -> usize {
        self.bytes.len() - self.start + self.ends.len() * ENTRY_BYTES
    }

    /// Lets the oldest go until what is left counts at most so much.
    fn evict(&mut self, size: usize) {
        while self.size() > size
            && let Some(ends) = self.ends.pop_front()
        {
            self.start = ends.value;
        }
        if self.ends.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Lets all go, and their memory.
    fn clear(&mut self) {
        *self = Self::new(self.size_max);
    }

    /// Makes the buffer hold so much more.
    fn make_room(&mut self, len: usize) {
        let live = self.bytes.len() - self.start;
        if self.bytes.len() + len > self.bytes.capacity() && self.start > live / 2 + self.ends.len() {
            self.bytes.drain(..self.start);
            for ends in &mut self.ends {
                ends.name -= self.start;
                ends.value -= self.start;
            }
            self.start = 0;
        }
        let needed = self.bytes.len() + len;
        if needed > self.bytes.capacity() {
            let wanted = (needed * 2).min(self.size_max + self.size_max / 2).max(needed);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Table {
        /// The newest first.
        pub(in super::super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
            let entry = |at| self.get(STATIC.len() + 1 + at).map(|(name, value)| (name.to_vec(), value.to_vec()));
            (0..self.ends.len()).map(|at| entry(at).expect("it is there")).collect()
        }

        pub(in super::super) fn counted(&self) -> usize {
            self.size()
        }

        /// What it owns, in bytes and in entries.
        pub(in super::super) fn owned(&self) -> (usize, usize) {
            (self.bytes.capacity(), self.ends.capacity())
        }
    }

    #[test]
    fn static_entries_have_their_numbers() {
        let table = Table::new(4096);
        for (index, name, value) in [
            (1, ":authority", ""),
            (2, ":method", "GET"),
            (8, ":status", "200"),
            (14, ":status", "500"),
            (16, "accept-encoding", "gzip, deflate"),
            (19, "accept", ""),
            (31, "content-type", ""),
            (38, "host", ""),
            (50, "range", ""),
            (61, "www-authenticate", ""),
        ] {
            assert_eq!(table.get(index), Ok((name.as_bytes(), value.as_bytes())), "{index}");
        }
        for index in [0, 62, 63, usize::MAX] {
            assert_eq!(table.get(index), Err(DecodeError::Index { index }));
        }
    }

    #[test]
    fn old_entries_go_when_new_ones_need_their_room() {
        let mut table = Table::new(2 * (ENTRY_BYTES + 2));
        for name in [b"a", b"b", b"c"] {
            table.insert(name, b"1");
        }
        assert_eq!(table.entries(), [(b"c".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())]);
        assert_eq!(table.counted(), 2 * (ENTRY_BYTES + 2));
        // One byte more than both leave room for.
        table.insert(b"d", b"12");
        assert_eq!(table.entries(), [(b"d".to_vec(), b"12".to_vec())]);
    }

    #[test]
    fn an_entry_that_is_larger_than_the_table_empties_it_and_frees_its_memory() {
        let mut table = Table::new(100);
        table.insert(b"name", &[b'v'; 64]);
        assert_eq!(table.counted(), 100);
        table.insert(b"name", &[b'v'; 65]);
        assert_eq!(table.entries(), []);
        assert_eq!(table.owned(), (0, 0));
        table.insert(b"a", b"b");
        table.resize(0);
        assert_eq!(table.owned(), (0, 0));
        table.insert(b"", b"");
        assert_eq!(table.owned(), (0, 0), "even an empty entry counts");
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_list_would_within_its_memory(
            steps in prop::collection::vec((0..200_usize, 0..200_usize, any::<u8>()), 1..60),
            size_max in 0..1500_usize,
        ) {
            let mut table = Table::new(size_max);
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for (name, value, fill) in steps {
                let entry = (vec![fill; name], vec![!fill; if fill < 128 { 0 } else { value }]);
                table.insert(&entry.0, &entry.1);
                list.insert(0, entry);
                let size = |list: &[(Vec<u8>, Vec<u8>)]| list.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>();
                while size(&list) > size_max {
                    list.pop();
                }
                prop_assert_eq!(table.entries(), list.clone());
                prop_assert_eq!(table.counted(), size(&list));
                prop_assert!(table.owned().0 <= size_max + size_max / 2);
            }
        }
    }
}
