//! The Huffman code of string literals (RFC 7541 §5.2, Appendix B), read.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and the first code of a
//! length follows the last of the length before. So the lengths are the whole code, and the tables follow from them.
//! A symbol of up to eight bits, which is nearly all of what is sent, is one look into [`SHORT`]; a longer one is found
//! by its length.

use super::DecodeError;

/// The symbols by the length of their codes in bits. The one code that is left is EOS, thirty ones.
const LENGTHS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\
          \xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\
          \xbf\xc5\xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\
          \x1f\x7f\xdc\xf9",
    ),
    (30, b"\x0a\x0d\x16"),
];

/// A code has at most so many bits.
const CODE_BITS_MAX: u32 = 30;
/// The shortest code has so many, so that an output is bounded by its input.
const CODE_BITS_MIN: usize = 5;
/// Codes of up to so many bits are in [`SHORT`].
const SHORT_BITS: u32 = 8;
/// So many of [`LENGTHS`] are.
const SHORT_LENGTHS: usize = 4;

/// The codes of one length, at the upper end of 32 bits.
#[derive(Clone, Copy)]
struct Codes {
    bits: u32,
    first: u32,
    /// The first code of the next length.
    end: u32,
    symbols: &'static [u8],
}

const CODES: [Codes; LENGTHS.len()] = codes();

/// The symbol, and how many bits it takes, by the next eight bits; no bits where the code is longer.
static SHORT: [(u8, u8); 1 << SHORT_BITS] = short();

const _: () = assert!(CODES[LENGTHS.len() - 1].end == u32::MAX << 2, "nothing but EOS is left");

const fn codes() -> [Codes; LENGTHS.len()] {
    let mut codes = [Codes { bits: 0, first: 0, end: 0, symbols: &[] }; LENGTHS.len()];
    let mut first = 0;
    let mut at = 0;
    while at < LENGTHS.len() {
        let (bits, symbols) = LENGTHS[at];
        let end = first + ((symbols.len() as u32) << (32 - bits));
        codes[at] = Codes { bits, first, end, symbols };
        first = end;
        at += 1;
    }
    codes
}

const fn short() -> [(u8, u8); 1 << SHORT_BITS] {
    let mut short = [(0, 0); 1 << SHORT_BITS];
    let mut at = 0;
    let mut next = 0;
    while at < SHORT_LENGTHS {
        let Codes { bits, end, symbols, .. } = CODES[at];
        let spread = 1 << (SHORT_BITS - bits);
        let begin = next;
        while next < (end >> (32 - SHORT_BITS)) as usize {
            short[next] = (symbols[(next - begin) / spread], bits as u8);
            next += 1;
        }
        at += 1;
    }
    short
}

/// Unpacks a string to the end of `out`.
///
/// # Errors
/// When EOS is in it, or when it ends in anything but up to seven ones.
pub(super) fn unpack(mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    out.reserve(bytes.len() * 8 / CODE_BITS_MIN);
    // The next bits, from the upper end; those behind `count` are zeros or what `bytes` begins with.
    let mut bits: u64 = 0;
    let mut count: u32 = 0;
    loop {
        if count < CODE_BITS_MAX {
            fill(&mut bytes, &mut bits, &mut count);
        }
        let (symbol, len) = match SHORT[usize::from(bits.to_be_bytes()[0])] {
            (_, 0) => long((bits >> 32) as u32).ok_or(DecodeError::EndOfString)?,
            (symbol, len) => (symbol, u32::from(len)),
        };
        let Some(left) = count.checked_sub(len) else { break };
        out.push(symbol);
        bits <<= len;
        count = left;
    }
    let ones = !(u64::MAX >> count);
    if count < 8 && bits == ones { Ok(()) } else { Err(DecodeError::Padding) }
}

/// Takes whole bytes until over 56 bits are there, or all.
fn fill(bytes: &mut &[u8], bits: &mut u64, count: &mut u32) {
    if let Some(next) = bytes.first_chunk() {
        *bits |= u64::from_be_bytes(*next) >> *count;
        let taken = (63 - *count) / 8;
        *bytes = &bytes[taken as usize..];
        *count += taken * 8;
        return;
    }
    while *count <= 56
        && let Some((byte, rest)) = bytes.split_first()
    {
        *bits |= u64::from(*byte) << (56 - *count);
        *bytes = rest;
        *count += 8;
    }
}

/// The symbol that these bits begin with, and its length; none is EOS.
fn long(bits: u32) -> Option<(u8, u32)> {
    let codes = CODES[SHORT_LENGTHS..].iter().find(|codes| bits < codes.end)?;
    let at = bits.checked_sub(codes.first)? >> (32 - codes.bits);
    codes.symbols.get(at as usize).map(|symbol| (*symbol, codes.bits))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A symbol's code and its length.
    fn code(symbol: u8) -> (u32, u32) {
        let found = CODES.iter().find_map(|codes| {
            let at = codes.symbols.iter().position(|known| *known == symbol)?;
            Some(((codes.first >> (32 - codes.bits)) + u32::try_from(at).ok()?, codes.bits))
        });
        found.expect("every byte has a code")
    }

    /// Bits as bytes, the last one filled up with ones.
    fn bytes(codes: impl IntoIterator<Item = (u32, u32)>) -> Vec<u8> {
        let mut bits: Vec<bool> =
            codes.into_iter().flat_map(|(code, len)| (0..len).rev().map(move |bit| code >> bit & 1 == 1)).collect();
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | u8::from(*bit))).collect()
    }

    pub(in super::super) fn pack(text: &[u8]) -> Vec<u8> {
        bytes(text.iter().map(|symbol| code(*symbol)))
    }

    #[track_caller]
    fn check(packed: &[u8], expected: Result<&[u8], DecodeError>) {
        let mut out = Vec::new();
        let result = unpack(packed, &mut out);
        assert_eq!(result.map(|()| &out[..]), expected, "{packed:02x?}");
    }

    #[test]
    fn codes_are_those_of_the_appendix() {
        for (symbol, expected) in [
            (b'0', (0x0, 5)),
            (b't', (0x9, 5)),
            (b' ', (0x14, 6)),
            (b'u', (0x2d, 6)),
            (b':', (0x5c, 7)),
            (b'z', (0x7b, 7)),
            (b'Z', (0xfd, 8)),
            (b'!', (0x3f8, 10)),
            (b'|', (0x7fc, 11)),
            (b'>', (0xffb, 12)),
            (0, (0x1ff8, 13)),
            (b'}', (0x3ffd, 14)),
            (b'{', (0x7ffe, 15)),
            (b'\\', (0x7fff0, 19)),
            (128, (0xfffe6, 20)),
            (153, (0x001f_ffdc, 21)),
            (129, (0x003f_ffd2, 22)),
            (1, (0x007f_ffd8, 23)),
            (239, (0x007f_fff4, 23)),
            (9, (0x00ff_ffea, 24)),
            (199, (0x01ff_ffec, 25)),
            (255, (0x03ff_ffee, 26)),
            (254, (0x07ff_fff0, 27)),
            (249, (0x0fff_fffe, 28)),
            (b'\n', (0x3fff_fffc, 30)),
            (22, (0x3fff_fffe, 30)),
        ] {
            assert_eq!(code(symbol), expected, "{symbol}");
        }
    }

    #[test]
    fn every_symbol_comes_back_from_every_place_in_a_byte() {
        for symbol in 0..=u8::MAX {
            for ahead in 0..9 {
                for behind in [0, 1, 9] {
                    let text = [vec![b'a'; ahead], vec![symbol], vec![b'Z'; behind]].concat();
                    check(&pack(&text), Ok(&text));
                }
            }
        }
        let all: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
        check(&pack(&all), Ok(&all));
        check(b"", Ok(b""));
    }

    #[test]
    fn padding_is_up_to_seven_ones() {
        check(&[0b0001_1111], Ok(b"a"));
        for wrong in [0b0001_1110, 0b0001_1101, 0b0001_1011, 0b0001_1010] {
            check(&[wrong], Err(DecodeError::Padding));
        }
        // Eight ones and more, without and behind a symbol.
        check(&[0xff], Err(DecodeError::Padding));
        check(&[0xff, 0xff, 0xff], Err(DecodeError::Padding));
        check(&[0b0001_1111, 0xff], Err(DecodeError::Padding));
        // 'Z' ends with its byte, and needs none.
        check(&[0xfd], Ok(b"Z"));
        check(&[0xfd, 0xff], Err(DecodeError::Padding));
        // A long code that ends too early.
        check(&pack(b"\n")[..3], Err(DecodeError::Padding));
    }

    #[test]
    fn end_of_string_is_refused_wherever_it_is() {
        let eos = (0x3fff_ffff, 30);
        check(&bytes([eos]), Err(DecodeError::EndOfString));
        for ahead in 0..20 {
            let text = std::iter::repeat_n(code(b'0'), ahead);
            check(&bytes(text.clone().chain([eos])), Err(DecodeError::EndOfString));
            check(&bytes(text.chain([eos, code(b'a')])), Err(DecodeError::EndOfString));
        }
        check(&[0xff; 4], Err(DecodeError::EndOfString));
    }
}
