//! HPACK (RFC 7541) as small as a test needs it: a strict reader of all that a server may write, and a writer of
//! literals that nobody remembers.

use std::collections::VecDeque;

/// The static table (RFC 7541 Appendix A).
const STATIC: [(&str, &str); 61] = [
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

/// The Huffman code of printable ASCII (RFC 7541 Appendix B). It is canonical: the bits of each code, and the octets
/// with codes of that length in order, say it all.
const CODES: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// The table size that both ends begin with.
const TABLE_BYTES: usize = 4096;

/// A list of fields.
pub type Fields = Vec<(String, String)>;

/// Reads the blocks of one connection, in their order.
pub struct Reader {
    entries: VecDeque<(String, String)>,
    bytes: usize,
    bytes_max: usize,
    allowed: usize,
    /// The lowest that was allowed since the last block, which the next has to begin with (RFC 7541 §4.2).
    lowest: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max: TABLE_BYTES, allowed: TABLE_BYTES, lowest: TABLE_BYTES }
    }
}

impl Reader {
    /// The other side has acknowledged this SETTINGS_HEADER_TABLE_SIZE.
    pub fn allow(&mut self, bytes: usize) {
        self.allowed = bytes;
        self.lowest = self.lowest.min(bytes);
    }

    /// The fields of a block; panics where it is wrong.
    pub fn read(&mut self, block: &[u8]) -> Fields {
        let mut rest = block;
        let mut fields = Vec::new();
        let asked = self.lowest;
        let mut smallest = self.bytes_max;
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                assert!(fields.is_empty(), "a table size after a field: {block:x?}");
                self.bytes_max = integer(&mut rest, 5);
                assert!(self.bytes_max <= self.allowed, "a table of {} bytes", self.bytes_max);
                smallest = smallest.min(self.bytes_max);
                self.evict();
                continue;
            }
            assert!(smallest <= asked, "no table size, which has to be {asked}: {block:x?}");
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7);
                fields.push(self.entry(index));
                continue;
            }
            let prefix = if first & 0x40 != 0 { 6 } else { 4 };
            let name = match integer(&mut rest, prefix) {
                0 => text(&mut rest),
                index => self.entry(index).0,
            };
            let field = (name, text(&mut rest));
            if prefix == 6 {
                self.bytes += size(&field);
                self.entries.push_front(field.clone());
                self.evict();
            }
            fields.push(field);
        }
        self.lowest = self.allowed;
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        assert!(index > 0, "index 0");
        match STATIC.get(index - 1) {
            Some((name, value)) => ((*name).to_owned(), (*value).to_owned()),
            None => self.entries.get(index - 62).unwrap_or_else(|| panic!("no entry {index}")).clone(),
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            self.bytes -= size(&self.entries.pop_back().expect("an entry"));
        }
    }
}

fn size((name, value): &(String, String)) -> usize {
    name.len() + value.len() + 32
}

/// RFC 7541 §5.1.
fn integer(rest: &mut &[u8], prefix: u32) -> usize {
    let mut next = || {
        let (first, others) = rest.split_first().expect("an octet of an integer");
        *rest = others;
        usize::from(*first)
    };
    let full = (1 << prefix) - 1;
    let mut value = next() & full;
    if value == full {
        for shift in (0..).step_by(7) {
            let octet = next();
            value += (octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

/// RFC 7541 §5.2.
fn text(rest: &mut &[u8]) -> String {
    let is_coded = rest.first().expect("a string") & 0x80 != 0;
    let len = integer(rest, 7);
    let (octets, others) = rest.split_at(len);
    *rest = others;
    let octets = if is_coded { decoded(octets) } else { octets.to_vec() };
    String::from_utf8(octets).expect("text")
}

fn decoded(octets: &[u8]) -> Vec<u8> {
    let mut bits = octets.iter().flat_map(|octet| (0..8).rev().map(move |at| u32::from(octet >> at & 1)));
    let mut read = Vec::new();
    'symbols: loop {
        // The first code of each length is the one after the last of the length before, with zeros.
        let (mut code, mut first, mut before, mut taken) = (0_u32, 0, 0, 0);
        for (len, symbols) in CODES {
            for _ in before..len {
                let Some(bit) = bits.next() else {
                    assert!(taken < 8 && code + 1 == 1 << taken, "padding is {code:b}");
                    return read;
                };
                (code, first, taken) = (code << 1 | bit, first << 1, taken + 1);
            }
            before = len;
            if let Some(symbol) = symbols.get((code - first) as usize) {
                read.push(*symbol);
                continue 'symbols;
            }
            first += symbols.len() as u32;
        }
        panic!("an octet that no field of a test has: {octets:x?}");
    }
}

/// A field as a literal that nobody remembers (RFC 7541 §6.2.2).
pub fn literal(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

/// A field as a literal that goes into the table (RFC 7541 §6.2.1).
pub fn remembered(name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// A string as it is.
pub fn string(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let mut bytes = Vec::new();
    if value.len() < 0x7f {
        bytes.push(value.len() as u8);
    } else {
        bytes.push(0x7f);
        bytes.extend(continued(value.len() - 0x7f));
    }
    bytes.extend_from_slice(value);
    bytes
}

/// A new size of the table (RFC 7541 §6.3).
pub fn table_size(bytes: usize) -> Vec<u8> {
    if bytes < 31 { vec![0x20 | bytes as u8] } else { [vec![0x3f], continued(bytes - 31)].concat() }
}

/// The octets of an integer after its full prefix.
fn continued(mut rest: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Fields as literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// The fields of a request.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    [block(&pseudo), block(fields)].concat()
}

#[test]
fn the_reader_reads_the_examples_of_the_standard() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).expect("digits"), 16).expect("an octet"))
            .collect()
    };
    // RFC 7541 Appendix C.6: responses with Huffman codes, in a table of 256 bytes.
    let mut reader = Reader::default();
    reader.allow(256);
    let first = "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let first = reader.read(&hex(first));
    let expected = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    assert_eq!(first, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The status of the second pushes that of the first out.
    let second = reader.read(&hex("4883 640e ffc1 c0bf"));
    assert_eq!(second[0], (":status".to_owned(), "307".to_owned()));
    assert_eq!(second[1..], first[1..]);
    assert_eq!(Reader::default().read(&request("GET", "/x", &[("x-a", &"y".repeat(300))]))[4].1.len(), 300);
}
