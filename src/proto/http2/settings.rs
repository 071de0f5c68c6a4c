//! What the client's SETTINGS say (RFC 9113 §6.5).

use crate::proto::http2::{ConnectionError, Reason, frame, window};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 8441 §3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A client's settings, as far as a server heeds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSettings {
    /// What a stream's send window begins with.
    pub window_bytes: u32,
    /// The longest payload that it takes.
    pub payload_bytes_max: usize,
    /// Whether it said how large a table of header fields it keeps: the next block has to answer that (RFC 7541 §4.2).
    pub table_size_said: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        // Nothing is ever put into the client's table: that is said with the first block.
        Self { window_bytes: window::DEFAULT_BYTES, payload_bytes_max: frame::PAYLOAD_BYTES_MAX, table_size_said: true }
    }
}

impl ClientSettings {
    /// Takes the payload of a SETTINGS frame.
    ///
    /// # Errors
    /// When it is no whole number of settings, or one has a value that it can't have.
    pub fn take(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::size("SETTINGS is no whole number of settings"));
        }
        for &[id_high, id_low, a, b, c, d] in settings {
            let value = u32::from_be_bytes([a, b, c, d]);
            match u16::from_be_bytes([id_high, id_low]) {
                HEADER_TABLE_SIZE => self.table_size_said = true,
                ENABLE_PUSH if value > 1 => return Err(ConnectionError::protocol("ENABLE_PUSH is neither 0 nor 1")),
                ENABLE_CONNECT_PROTOCOL if value > 1 => {
                    return Err(ConnectionError::protocol("ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"));
                }
                INITIAL_WINDOW_SIZE => {
                    if value > 0x7fff_ffff {
                        let what = "INITIAL_WINDOW_SIZE is over 2^31-1";
                        return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, what));
                    }
                    self.window_bytes = value;
                }
                MAX_FRAME_SIZE => {
                    if !(16_384..=16_777_215).contains(&value) {
                        return Err(ConnectionError::protocol("MAX_FRAME_SIZE is not within 16384 and 16777215"));
                    }
                    self.payload_bytes_max = value as usize;
                }
                // Push is never used, a list's size is advice, and what is unknown is ignored (RFC 9113 §6.5.2).
                _ => {}
            }
        }
        Ok(())
    }
}

/// What this server says of itself.
pub fn of_server(streams_max: u32, window_bytes: u32, header_list_bytes_max: usize) -> [(u16, u32); 4] {
    [
        (MAX_CONCURRENT_STREAMS, streams_max),
        (INITIAL_WINDOW_SIZE, window_bytes),
        (MAX_HEADER_LIST_SIZE, u32::try_from(header_list_bytes_max).unwrap_or(u32::MAX)),
        (ENABLE_CONNECT_PROTOCOL, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(settings: &[(u16, u32)]) -> Result<ClientSettings, Reason> {
        let mut out = Vec::new();
        frame::settings(&mut out, settings);
        let mut client = ClientSettings { table_size_said: false, ..ClientSettings::default() };
        client.take(&out[frame::HEAD_BYTES..]).map(|()| client).map_err(|error| error.reason)
    }

    #[test]
    fn settings_are_heeded_in_their_order() {
        let client = take(&[(4, 1), (4, 7), (5, 16_777_215), (0xabcd, 9), (6, 1), (2, 0)]);
        let expected = ClientSettings { window_bytes: 7, payload_bytes_max: 16_777_215, table_size_said: false };
        assert_eq!(client, Ok(expected));
        assert!(take(&[(1, 0)]).is_ok_and(|client| client.table_size_said));
    }

    #[test]
    fn values_out_of_range_end_the_connection() {
        for (id, value, reason) in [
            (2, 2, Reason::PROTOCOL_ERROR),
            (4, 0x8000_0000, Reason::FLOW_CONTROL_ERROR),
            (5, 16_383, Reason::PROTOCOL_ERROR),
            (5, 16_777_216, Reason::PROTOCOL_ERROR),
            (8, 2, Reason::PROTOCOL_ERROR),
        ] {
            assert_eq!(take(&[(id, value)]), Err(reason), "{id}: {value}");
        }
        let partial = ClientSettings::default().take(&[0, 1, 0, 0, 0]);
        assert_eq!(partial.map_err(|error| error.reason), Err(Reason::FRAME_SIZE_ERROR));
    }
}
