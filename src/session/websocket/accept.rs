//! From an opening request to a session: what a gateway calls once it knows the route.

use crate::proto::problem::Problem;
use crate::proto::websocket::handshake::{Handshake, HandshakeError};
use crate::server::Hold;
use crate::session::token;
use crate::session::websocket::subprotocol::Subprotocol;
use crate::session::websocket::{PushSession, Setup};
use http::HeaderMap;
use http::request::Parts;

/// A valid opening request, whose subprotocol is chosen.
#[derive(Debug, Clone)]
pub struct Opening {
    handshake: Handshake,
}

/// The answer to an opening request that is none.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The body.
    pub problem: Problem,
    /// Fields that the answer needs beside.
    pub fields: HeaderMap,
}

impl Opening {
    /// Checks a request that [`is_asked_for`](crate::proto::websocket::handshake::is_asked_for) found. `protocol` is HTTP/2's `:protocol`.
    ///
    /// # Errors
    /// When it is no valid handshake; with the answer.
    pub fn check(parts: &Parts, protocol: Option<&str>) -> Result<Self, Box<Refused>> {
        let handshake = Handshake::check(parts, protocol, &Subprotocol::NAMES)?;
        Ok(Self { handshake })
    }

    /// What will be spoken.
    pub fn subprotocol(&self) -> Subprotocol {
        Subprotocol::of_name(self.handshake.subprotocol())
    }

    /// The session, with the head that begins it: 101 over HTTP/1.1, 200 over HTTP/2.
    pub fn hold(self, setup: Setup) -> Hold {
        let mut head = self.handshake.head();
        // A v1 client is told by `welcome`, which no log on the way sees.
        let token = setup.token.as_ref().filter(|_| self.subprotocol() != Subprotocol::V1);
        token::tell(head.headers_mut(), token, setup.subscription.resumed());
        Hold { head, session: Box::new(PushSession::new(setup, self.subprotocol())) }
    }
}

impl From<HandshakeError> for Box<Refused> {
    fn from(error: HandshakeError) -> Self {
        let problem = Problem::new(error.status(), error.to_string());
        Box::new(Refused { problem, fields: error.fields() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(subprotocol: &str, version: &str) -> Result<Opening, Box<Refused>> {
        let request = http::Request::get("/")
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", version)
            .header("sec-websocket-protocol", subprotocol)
            .body(())
            .expect("a request");
        Opening::check(&request.into_parts().0, None)
    }

    #[test]
    fn the_offered_subprotocol_is_spoken() {
        for (offered, expected) in [
            ("pushbridge.v1.json", Subprotocol::V1),
            ("cloudevents.json", Subprotocol::CloudEvents),
            ("cloudevents.json, pushbridge.v1.json", Subprotocol::V1),
            ("chat", Subprotocol::Raw),
        ] {
            assert_eq!(opening(offered, "13").expect("an opening").subprotocol(), expected, "{offered}");
        }
    }

    #[test]
    fn a_bad_opening_is_answered_by_a_problem() {
        let refused = opening("chat", "7").expect_err("a refusal");
        assert_eq!(refused.problem.status(), 426);
        assert!(refused.problem.detail().contains("has to be 13"), "{}", refused.problem.detail());
        assert_eq!(refused.fields["sec-websocket-version"], "13");
    }
}
