//! Whole header blocks: the examples of RFC 7541 Appendix C, what is refused, and a writer that uses all that there is.

use super::huffman::tests::pack;
use super::{DecodeError, Decoder};
use proptest::prelude::*;

type Field = (Vec<u8>, Vec<u8>);

/// Bytes as the RFC prints them.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).expect("a digit")).expect("small");
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Lines of `name: value`.
fn fields(lines: &[&str]) -> Vec<Field> {
    let field = |line: &&str| {
        let (name, value) = line.rsplit_once(": ").expect("a field");
        (name.as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    lines.iter().map(field).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> (Vec<Field>, Result<(), DecodeError>) {
    let mut read = Vec::new();
    let result = decoder.decode(block, |name, value| read.push((name.to_vec(), value.to_vec())));
    (read, result)
}

/// A block of the appendix: its fields, and what the table holds and counts behind it.
#[track_caller]
fn check(decoder: &mut Decoder, block: &str, expected: &[&str], table: &[&str], size: usize) {
    let (read, result) = decode(decoder, &hex(block));
    assert_eq!(result, Ok(()));
    assert_eq!(read, fields(expected));
    assert_eq!(decoder.table().entries(), fields(table));
    assert_eq!(decoder.table().counted(), size);
}

#[track_caller]
fn check_fault(block: &[u8], expected: DecodeError) {
    assert_eq!(decode(&mut Decoder::new(4096), block).1, Err(expected), "{block:02x?}");
}

#[test]
fn appendix_c_2_each_representation() {
    let custom = "custom-key: custom-header";
    check(
        &mut Decoder::new(4096),
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        &[custom],
        &[custom],
        55,
    );
    check(&mut Decoder::new(4096), "040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], &[], 0);
    check(&mut Decoder::new(4096), "1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"], &[], 0);
    check(&mut Decoder::new(4096), "82", &[":method: GET"], &[], 0);
}

/// The requests of C.3 and C.4: the same fields, with and without Huffman codes.
#[track_caller]
fn check_requests(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    let authority = ":authority: www.example.com";
    let (cache, custom) = ("cache-control: no-cache", "custom-key: custom-value");
    check(&mut decoder, blocks[0], &[":method: GET", ":scheme: http", ":path: /", authority], &[authority], 57);
    check(
        &mut decoder,
        blocks[1],
        &[":method: GET", ":scheme: http", ":path: /", authority, cache],
        &[cache, authority],
        110,
    );
    check(
        &mut decoder,
        blocks[2],
        &[":method: GET", ":scheme: https", ":path: /index.html", authority, custom],
        &[custom, cache, authority],
        164,
    );
}

const C_3: [&str; 3] = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
];

const C_4: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];

#[test]
fn appendix_c_3_requests() {
    check_requests(C_3);
}

#[test]
fn appendix_c_4_requests_with_huffman_codes() {
    check_requests(C_4);
}

/// The responses of C.5 and C.6, into a table of 256.
#[track_caller]
fn check_responses(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(256);
    let (found, redirect, ok) = (":status: 302", ":status: 307", ":status: 200");
    let private = "cache-control: private";
    let (then, later) = ("date: Mon, 21 Oct 2013 20:13:21 GMT", "date: Mon, 21 Oct 2013 20:13:22 GMT");
    let location = "location: https://www.example.com";
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let gzip = "content-encoding: gzip";
    check(&mut decoder, blocks[0], &[found, private, then, location], &[location, then, private, found], 222);
    check(&mut decoder, blocks[1], &[redirect, private, then, location], &[redirect, location, then, private], 222);
    check(&mut decoder, blocks[2], &[ok, private, later, location, gzip, cookie], &[cookie, gzip, later], 215);
}

const C_5: [&str; 3] = [
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
     546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
     6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
     2076 6572 7369 6f6e 3d31",
];

const C_6: [&str; 3] = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
     8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
     dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
];

#[test]
fn appendix_c_5_responses() {
    check_responses(C_5);
}

#[test]
fn appendix_c_6_responses_with_huffman_codes() {
    check_responses(C_6);
}

#[test]
fn a_block_that_is_cut_gives_fewer_fields_or_a_fault() {
    for (table_bytes_max, blocks) in [(4096, C_3), (4096, C_4), (256, C_5), (256, C_6)] {
        for (at, last) in blocks.iter().enumerate() {
            let before = |decoder: &mut Decoder| {
                for block in &blocks[..at] {
                    assert_eq!(decode(decoder, &hex(block)).1, Ok(()));
                }
            };
            let last = hex(last);
            let mut decoder = Decoder::new(table_bytes_max);
            before(&mut decoder);
            let (whole, _) = decode(&mut decoder, &last);
            for cut in 0..last.len() {
                let mut decoder = Decoder::new(table_bytes_max);
                before(&mut decoder);
                let (read, result) = decode(&mut decoder, &last[..cut]);
                assert!(read.len() < whole.len() && whole.starts_with(&read), "{cut}");
                assert!(matches!(result, Ok(()) | Err(DecodeError::Truncated)), "{cut}: {result:?}");
            }
        }
    }
}

#[test]
fn indices_outside_both_tables_are_refused() {
    check_fault(&[0x80], DecodeError::Index { index: 0 });
    check_fault(&[0xbe], DecodeError::Index { index: 62 });
    check_fault(&[0x7e, 0x01, b'v'], DecodeError::Index { index: 62 });
    check_fault(&[0x0f, 0x2f, 0x01, b'v'], DecodeError::Index { index: 62 });
    check_fault(&[0x1f, 0x2f, 0x01, b'v'], DecodeError::Index { index: 62 });
    check_fault(&hex("ff80ffffff0f"), DecodeError::Index { index: 0xffff_ffff });
    check_fault(&hex("ff81ffffff0f"), DecodeError::Integer);
    check_fault(&hex("ff808080808000"), DecodeError::Integer);
    // An entry of the table, and the one behind it.
    check_fault(&hex("40 01 61 01 62 be bf"), DecodeError::Index { index: 63 });
}

#[test]
fn strings_are_refused_when_they_are_cut_or_badly_packed() {
    check_fault(&hex("00"), DecodeError::Truncated);
    check_fault(&hex("00 05 61"), DecodeError::Truncated);
    check_fault(&hex("00 01 61"), DecodeError::Truncated);
    check_fault(&hex("00 7f80ffffff0f 61"), DecodeError::Truncated);
    check_fault(&hex("00 7fffffffff7f 61"), DecodeError::Integer);
    check_fault(&hex("00 01 61 81 18"), DecodeError::Padding);
    check_fault(&hex("00 01 61 82 1fff"), DecodeError::Padding);
    check_fault(&hex("00 81 ff 01 61"), DecodeError::Padding);
    check_fault(&hex("00 01 61 84 ffffffff"), DecodeError::EndOfString);
}

#[test]
fn table_sizes_are_set_at_a_block_s_beginning_twice_at_most() {
    let mut decoder = Decoder::new(4096);
    let custom = "custom-key: custom-value";
    let insert = "400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65";
    check(&mut decoder, insert, &[custom], &[custom], 54);
    // To 54, which it fits; to 0 and back to 4096, which empties it.
    check(&mut decoder, "3f17 be", &[custom], &[custom], 54);
    check(&mut decoder, "20 3fe11f 82", &[":method: GET"], &[], 0);
    assert_eq!(decoder.table().owned(), (0, 0));
    check(&mut decoder, insert, &[custom], &[custom], 54);
    // A block of nothing else; then nothing can be kept.
    check(&mut decoder, "20", &[], &[], 0);
    check(&mut decoder, insert, &[custom], &[], 0);
    check(&mut decoder, "", &[], &[], 0);

    check_fault(&hex("3fe21f"), DecodeError::TableSize { size: 4097, allowed: 4096 });
    check_fault(&hex("20 20 20"), DecodeError::UpdateMisplaced);
    check_fault(&hex("82 20"), DecodeError::UpdateMisplaced);
    check_fault(&hex("20 82 3fe11f"), DecodeError::UpdateMisplaced);
    check_fault(&hex("3f"), DecodeError::Truncated);
    assert_eq!(decode(&mut Decoder::new(0), &hex("21")).1, Err(DecodeError::TableSize { size: 1, allowed: 0 }),);
}

#[test]
fn a_larger_table_is_used_once_the_peer_says_so() {
    let mut decoder = Decoder::new(8192);
    let entry = |fill: u8| [&[0x40, 0x01, fill, 0x7f, 0xd0, 0x0f][..], &vec![fill; 0x7f + 0x7d0]].concat();
    for fill in *b"abc" {
        assert_eq!(decode(&mut decoder, &entry(fill)).1, Ok(()));
    }
    assert_eq!(decoder.table().entries().len(), 1, "4096 until then");
    let (_, result) = decode(&mut decoder, &[&hex("3fe13f")[..], &entry(b'd'), &entry(b'e')].concat());
    assert_eq!(result, Ok(()));
    assert_eq!(decoder.table().entries().len(), 3);
}

#[test]
fn a_name_may_be_of_the_entry_that_goes_for_its_field() {
    let mut decoder = Decoder::new(64);
    check(&mut decoder, "40 05 6e616d6531 01 61", &["name1: a"], &["name1: a"], 38);
    check(&mut decoder, "7e 02 6263", &["name1: bc"], &["name1: bc"], 39);
    // The field does not fit: the table is empty, and the field is whole.
    let mut block = hex("7e 1e");
    block.extend_from_slice(&[b'v'; 30]);
    let (read, result) = decode(&mut decoder, &block);
    assert_eq!((read, result), (vec![(b"name1".to_vec(), vec![b'v'; 30])], Ok(())));
    assert_eq!(decoder.table().owned(), (0, 0));
}

#[test]
fn a_decoder_owns_nothing_while_its_table_is_empty() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decoder.table().owned(), (0, 0));
    let value = pack(&[b'v'; 80]);
    let mut block = hex("00 01 61");
    block.push(0x80 | u8::try_from(value.len()).expect("short"));
    block.extend_from_slice(&value);
    let (read, result) = decode(&mut decoder, &block);
    assert_eq!((read, result), (vec![(b"a".to_vec(), vec![b'v'; 80])], Ok(())));
    assert_eq!(decoder.table().owned(), (0, 0));
}

/// Writes blocks in every way that the RFC has, with a plain list as its table.
struct Writer {
    table: Vec<Field>,
    size_max: usize,
}

/// How a field is written, as far as the tables allow it.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// 0 indexed, 1 kept, 2 not kept, 3 never kept.
    representation: u8,
    names_index: bool,
    packs_name: bool,
    packs_value: bool,
}

impl Writer {
    fn entries(&self) -> Vec<Field> {
        let known =
            super::table::STATIC.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        known.chain(self.table.iter().cloned()).collect()
    }

    fn shrink(&mut self, size_max: usize) {
        while self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > size_max {
            self.table.pop();
        }
    }

    fn resize(&mut self, size_max: usize, out: &mut Vec<u8>) {
        integer(0x20, 5, size_max, out);
        self.size_max = size_max;
        self.shrink(size_max);
    }

    fn write(&mut self, field: &Field, manner: Manner, out: &mut Vec<u8>) {
        let entries = self.entries();
        let whole = entries.iter().position(|entry| entry == field);
        if let (0, Some(at)) = (manner.representation, whole) {
            integer(0x80, 7, at + 1, out);
            return;
        }
        let (first, prefix_bits) = match manner.representation {
            0 | 1 => (0x40, 6),
            2 => (0x00, 4),
            _ => (0x10, 4),
        };
        // The newest of that name, so that the dynamic table is used too.
        match entries.iter().rposition(|(name, _)| *name == field.0).filter(|_| manner.names_index) {
            Some(at) => integer(first, prefix_bits, at + 1, out),
            None => {
                integer(first, prefix_bits, 0, out);
                string(&field.0, manner.packs_name, out);
            }
        }
        string(&field.1, manner.packs_value, out);
        if first == 0x40 {
            self.table.insert(0, field.clone());
            self.shrink(self.size_max);
        }
    }
}

fn string(text: &[u8], packs: bool, out: &mut Vec<u8>) {
    let packed = pack(text);
    let (first, bytes) = if packs { (0x80, &packed[..]) } else { (0, text) };
    integer(first, 7, bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn integer(first: u8, prefix_bits: u32, value: usize, out: &mut Vec<u8>) {
    let max = (1 << prefix_bits) - 1;
    if value < max {
        out.push(first + u8::try_from(value).expect("small"));
        return;
    }
    out.push(first + u8::try_from(max).expect("small"));
    let mut left = value - max;
    loop {
        let low = u8::try_from(left % 128).expect("small");
        left /= 128;
        out.push(low + if left > 0 { 128 } else { 0 });
        if left == 0 {
            return;
        }
    }
}

fn any_field() -> impl Strategy<Value = (Field, Manner)> {
    let name = prop_oneof![
        Just(b":path".to_vec()),
        Just(b"cookie".to_vec()),
        Just(b"x-a".to_vec()),
        Just(b"".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let value = prop_oneof![
        Just(b"/".to_vec()),
        Just(b"".to_vec()),
        prop::collection::vec(b'0'..=b'9', 1..2),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let manner = (0..4_u8, any::<(bool, bool, bool)>()).prop_map(|(representation, (index, name, value))| Manner {
        representation,
        names_index: index,
        packs_name: name,
        packs_value: value,
    });
    ((name, value), manner)
}

proptest! {
    #[test]
    fn whatever_a_writer_writes_is_read_with_the_same_table(
        blocks in prop::collection::vec(
            (prop::collection::vec(0..=600_usize, 0..=2), prop::collection::vec(any_field(), 0..20)),
            1..8,
        ),
        table_bytes_max in 600..4096_usize,
    ) {
        let mut decoder = Decoder::new(table_bytes_max);
        let mut writer = Writer { table: Vec::new(), size_max: table_bytes_max };
        for (sizes, fields) in blocks {
            let mut block = Vec::new();
            for size in sizes {
                writer.resize(size, &mut block);
            }
            for (field, manner) in &fields {
                writer.write(field, *manner, &mut block);
            }
            let (read, result) = decode(&mut decoder, &block);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(read, fields.into_iter().map(|(field, _)| field).collect::<Vec<_>>());
            prop_assert_eq!(decoder.table().entries(), writer.table.clone());
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let mut decoder = Decoder::new(512);
        for block in blocks {
            let (read, result) = decode(&mut decoder, &block);
            prop_assert!(read.len() <= block.len());
            prop_assert!(decoder.table().counted() <= 512);
            if result.is_err() {
                break;
            }
        }
    }

    #[test]
    fn a_spoilt_block_is_read_or_refused(
        fields in prop::collection::vec(any_field(), 1..10),
        spoilt in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut writer = Writer { table: Vec::new(), size_max: 4096 };
        let mut block = Vec::new();
        for (field, manner) in &fields {
            writer.write(field, *manner, &mut block);
        }
        for (at, byte) in spoilt {
            let at = at.index(block.len());
            block[at] = byte;
        }
        let mut decoder = Decoder::new(4096);
        let (read, _) = decode(&mut decoder, &block);
        prop_assert!(read.len() <= block.len());
        prop_assert!(decoder.table().counted() <= 4096);
    }
}
