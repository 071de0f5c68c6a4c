//! Numbers and addresses as text, digit by digit.
//!
//! The formatting machinery of the standard library costs some hundred instructions a number; a proxied request has a
//! dozen numbers in the fields that are added to it and in its line of the access log.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// Appends a number.
pub fn push_decimal(out: &mut String, number: u64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Appends a number, with zeros before it up to `width` digits.
pub fn push_padded(out: &mut String, number: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.extend(std::iter::repeat_n('0', width.saturating_sub(digits.len())));
    out.push_str(digits);
}

/// Appends an address.
pub fn push_ip(out: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push('.');
                }
                push_decimal(out, octet.into());
            }
        }
        // Writing into memory does not fail.
        IpAddr::V6(ip) => _ = write!(out, "{ip}"),
    }
}

/// Appends an address with its port.
pub fn push_socket(out: &mut String, socket: SocketAddr) {
    match socket {
        SocketAddr::V4(socket) => {
            push_ip(out, (*socket.ip()).into());
            out.push(':');
            push_decimal(out, socket.port().into());
        }
        SocketAddr::V6(socket) => _ = write!(out, "{socket}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl FnOnce(&mut String)) -> String {
        let mut out = String::from("a=");
        push(&mut out);
        out
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(text(|out| push_decimal(out, 0)), "a=0");
        assert_eq!(text(|out| push_decimal(out, u64::MAX)), format!("a={}", u64::MAX));
        assert_eq!(text(|out| push_padded(out, 7, 3)), "a=007");
        assert_eq!(text(|out| push_padded(out, 1234, 3)), "a=1234");
    }

    proptest! {
        #[test]
        fn it_is_what_the_standard_library_writes(number: u64, width in 1..20_usize, ip: IpAddr, socket: SocketAddr) {
            prop_assert_eq!(text(|out| push_decimal(out, number)), format!("a={number}"));
            prop_assert_eq!(text(|out| push_padded(out, number, width)), format!("a={number:0width$}"));
            prop_assert_eq!(text(|out| push_ip(out, ip)), format!("a={ip}"));
            prop_assert_eq!(text(|out| push_socket(out, socket)), format!("a={socket}"));
        }
    }
}
