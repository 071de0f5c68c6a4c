//! `Grip-Sig`: a small JSON Web Token (RFC 7519) that says who sends a request, by HS256, ES256 or RS256.
//!
//! It is made for backends, and read from publishers. Time and randomness are arguments.

use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// How long a signature is good, in seconds.
pub const LIFETIME_SECS: u64 = 3600;
/// How far a publisher's clock may be off, in seconds.
pub const LEEWAY_SECS: u64 = 60;
/// The longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// A key: a secret, or of a pair.
#[derive(Clone)]
pub struct Key {
    kind: Arc<Kind>,
    fingerprint: [u8; 32],
}

enum Kind {
    Hs256(Box<hmac::Key>),
    Es256 { pair: Option<EcdsaKeyPair>, public: Box<[u8]> },
    Rs256 { pair: Option<RsaKeyPair>, public: Box<[u8]> },
}

/// Why a file is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// `base64:` and no base64.
    #[error("what stands behind base64: is no base64")]
    Base64,
    /// PEM that is no key of a known kind.
    #[error("it is PEM, but no RSA (2048 bits or more) or P-256 key")]
    Pem,
    /// A public key where something is to be signed.
    #[error("it is a public key, which can't sign; give the private one")]
    Public,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No three parts of base64, or too long.
    #[error("it is no JSON Web Token")]
    Form,
    /// Another algorithm than the key's.
    #[error("it is signed with {0:?}, which is not what the key is for")]
    Algorithm(String),
    /// Signed by another key.
    #[error("its signature does not match")]
    Mismatch,
    /// No `exp`, or one that is past.
    #[error("it has no exp, or has expired")]
    Expired,
    /// `nbf` is ahead.
    #[error("it is not valid yet")]
    Early,
}

impl Key {
    /// Reads a key file: a secret as it is, `base64:` and a secret, or PEM with a private or public key.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, file).as_ref());
        let of = |kind| Self { kind: Arc::new(kind), fingerprint };
        if file.trim_ascii_start().starts_with(b"-----BEGIN") {
            return private(file).or_else(|| public(file)).map(of).ok_or(KeyError::Pem);
        }
        let secret = match file.strip_prefix(b"base64:") {
            Some(text) => STANDARD.decode(text.trim_ascii()).map_err(|_| KeyError::Base64)?,
            None => file.to_vec(),
        };
        Ok(of(Kind::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)))))
    }

    /// Refuses a key that can't sign.
    ///
    /// # Errors
    /// When it is a public one.
    pub fn for_signing(self) -> Result<Self, KeyError> {
        match &*self.kind {
            Kind::Es256 { pair: None, .. } | Kind::Rs256 { pair: None, .. } => Err(KeyError::Public),
            _ => Ok(self),
        }
    }

    /// A hash (SHA-256) of what it was read from, by which a changed key is noticed.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    fn algorithm(&self) -> &'static str {
        match &*self.kind {
            Kind::Hs256(_) => "HS256",
            Kind::Es256 { .. } => "ES256",
            Kind::Rs256 { .. } => "RS256",
        }
    }

    /// A token of `issuer` that is good for [`LIFETIME_SECS`]; `None` if the key can't sign.
    pub fn sign(&self, issuer: &str, now_secs: u64, random: &dyn SecureRandom) -> Option<String> {
        let head = format!("{{\"typ\":\"JWT\",\"alg\":\"{}\"}}", self.algorithm());
        let claims = serde_json::json!({ "iss": issuer, "exp": now_secs.saturating_add(LIFETIME_SECS) });
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.signature(token.as_bytes(), random)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }

    fn signature(&self, text: &[u8], random: &dyn SecureRandom) -> Option<Vec<u8>> {
        match &*self.kind {
            Kind::Hs256(key) => Some(hmac::sign(key, text).as_ref().to_vec()),
            Kind::Es256 { pair, .. } => Some(pair.as_ref()?.sign(random, text).ok()?.as_ref().to_vec()),
            Kind::Rs256 { pair, .. } => {
                let pair = pair.as_ref()?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, text, &mut signature).ok()?;
                Some(signature)
            }
        }
    }

    /// Checks a token's signature and times, and gives its claims.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, token: &str, now_secs: u64) -> Result<serde_json::Map<String, Value>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
        let (head, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Form)?;
        let head = object(head)?;
        let algorithm = head.get("alg").and_then(Value::as_str).unwrap_or_default();
        if algorithm != self.algorithm() {
            return Err(TokenError::Algorithm(algorithm.chars().take(16).collect()));
        }
        if !self.has_signed(signed.as_bytes(), &signature) {
            return Err(TokenError::Mismatch);
        }
        let claims = object(claims)?;
        let time = |name| claims.get(name).and_then(Value::as_f64);
        if time("exp").is_none_or(|exp| exp + LEEWAY_SECS as f64 <= now_secs as f64) {
            return Err(TokenError::Expired);
        }
        if time("nbf").is_some_and(|nbf| nbf > (now_secs + LEEWAY_SECS) as f64) {
            return Err(TokenError::Early);
        }
        Ok(claims)
    }

    fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match &*self.kind {
            Kind::Hs256(key) => {
                constant_time::verify_slices_are_equal(hmac::sign(key, text).as_ref(), signature).is_ok()
            }
            Kind::Es256 { public, .. } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).verify(text, signature).is_ok()
            }
            Kind::Rs256 { public, .. } => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).verify(text, signature).is_ok()
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, ***)", self.algorithm())
    }
}

fn object(part: &str) -> Result<serde_json::Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Form)
}

fn private(pem: &[u8]) -> Option<Kind> {
    let der = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let bytes = der.secret_der();
    if let Ok(pair) = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes) {
        let public = pair.public_key().as_ref().into();
        return Some(Kind::Es256 { pair: Some(pair), public });
    }
    let pair = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes)).ok()?;
    let public = pair.public_key().as_ref().into();
    Some(Kind::Rs256 { pair: Some(pair), public })
}

fn public(pem: &[u8]) -> Option<Kind> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let public: Box<[u8]> = der.as_ref().into();
    // The algorithm's identifier stands in the first bytes (RFC 3279 §2.3.1, RFC 5480 §2.1.1).
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let start = &public[..public.len().min(40)];
    let has = |id: &[u8]| start.windows(id.len()).any(|window| window == id);
    match () {
        () if has(RSA) => Some(Kind::Rs256 { pair: None, public }),
        () if has(P256) => Some(Kind::Es256 { pair: None, public }),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;

    const NOW: u64 = 1_700_000_000;

    #[track_caller]
    fn check_pair(signing: &Key, verifying: &Key) {
        let random = SystemRandom::new();
        let token = signing.sign("me", NOW, &random).expect("a token");
        let claims = verifying.verify(&token, NOW).expect("believed");
        assert_eq!((claims["iss"].as_str(), claims["exp"].as_u64()), (Some("me"), Some(NOW + 3600)));
        assert_eq!(verifying.verify(&token, NOW + 3600 + LEEWAY_SECS), Err(TokenError::Expired));
        let other = signing.sign("you", NOW, &random).expect("a token");
        let (signed, _) = token.rsplit_once('.').expect("parts");
        let (_, signature) = other.rsplit_once('.').expect("parts");
        assert_eq!(verifying.verify(&format!("{signed}.{signature}"), NOW), Err(TokenError::Mismatch));
    }

    #[test]
    fn secrets_sign_and_verify() {
        let key = Key::parse(b"changeme").expect("a key");
        check_pair(&key, &Key::parse(b"base64:Y2hhbmdlbWU=").expect("a key"));
        assert!(key.verify("a.b.c", NOW).is_err() && key.verify("", NOW).is_err());
        let none = "eyJhbGciOiJub25lIn0.e30.";
        assert_eq!(key.verify(none, NOW), Err(TokenError::Algorithm("none".into())));
        assert_eq!(Key::parse(b"base64:*").err(), Some(KeyError::Base64));
        assert_eq!(format!("{key:?}"), "Key(HS256, ***)");
    }

    #[test]
    fn pairs_sign_and_public_keys_verify() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
            let pair = rcgen::KeyPair::generate_for(algorithm).expect("a key pair");
            let private = Key::parse(pair.serialize_pem().as_bytes()).expect("a private key");
            let public = Key::parse(pair.public_key_pem().as_bytes()).expect("a public key");
            check_pair(&private, &private);
            check_pair(&private, &public);
            assert_eq!(public.clone().for_signing().err(), Some(KeyError::Public));
            assert_eq!(public.sign("me", NOW, &SystemRandom::new()), None);
        }
        assert_eq!(Key::parse(b"-----BEGIN NONSENSE-----").err(), Some(KeyError::Pem));
    }
}
