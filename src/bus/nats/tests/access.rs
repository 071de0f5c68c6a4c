//! Servers that let not everybody in.

use super::{NatsServer, open, settings};
use crate::bus::settings::{BusTls, NatsSettings};
use crate::bus::tests::conformance::{self, Factory, Instance, fresh, message, next};
use crate::bus::{Bus, BusError};
use crate::hub::Hub;
use crate::model::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct As(NatsSettings);

impl Factory for As {
    fn bus(&self, hub: &Arc<Hub>) -> Arc<dyn Bus> {
        open(self.0.clone(), hub)
    }
}

async fn check_works(settings: NatsSettings) {
    let factory = As(settings);
    let (a, b, channel) = (Instance::new(&factory), Instance::new(&factory), fresh("access"));
    let mut on_b = b.subscribe(&channel, None).await;
    a.publish(&channel, "in").await;
    assert_eq!(next(&mut on_b).await, "in");
}

/// It never comes up; whoever publishes is told so.
async fn check_refused(settings: NatsSettings) {
    let instance = Instance::new(&As(settings));
    let until = tokio::time::Instant::now() + Duration::from_millis(500);
    while tokio::time::Instant::now() < until {
        let refused = instance.bus.publish(message(&fresh("access"), None, "out"), None).await;
        assert!(matches!(refused, Err(BusError::Down(_))), "{refused:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_server_with_tls_is_checked() {
    let folder = TempDir::new().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    let server = NatsServer::start_with(folder, "tls { cert_file: \"{dir}/cert.pem\", key_file: \"{dir}/key.pem\" }");
    let with = |anchor: &rcgen::Certificate| NatsSettings {
        tls: Some(BusTls { ca_file: None, anchors: vec![anchor.der().clone()] }),
        ..settings(&server)
    };
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    conformance::run(async {
        check_works(with(&made.cert)).await;
        check_refused(with(&other.cert)).await;
    });
}

#[test]
fn credentials_let_in() {
    let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let system = KeyPair::new_account();
    let of_operator = token(&operator, &operator, json!({ "type": "operator", "version": 2 }));
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = token(&operator, &account, json!({ "limits": limits, "type": "account", "version": 2 }));
    let open_limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    let of_system = token(&operator, &system, json!({ "limits": open_limits, "type": "account", "version": 2 }));
    let server = NatsServer::start_with(
        TempDir::new().expect("a folder"),
        &format!(
            "operator: {of_operator}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{\n{}: {of_account}\n{}: {of_system}\n}}",
            system.public_key(),
            account.public_key(),
            system.public_key(),
        ),
    );
    let of_user = token(
        &account,
        &user,
        json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 }),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    );
    conformance::run(async {
        let credentials = Some(Secret::new(credentials.into_bytes()));
        check_works(NatsSettings { credentials, ..settings(&server) }).await;
        check_refused(settings(&server)).await;
        let credentials = Some(Secret::new(*b"nonsense"));
        check_refused(NatsSettings { credentials, ..settings(&server) }).await;
    });
}

/// A JWT of NATS, version 2.
fn token(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "test",
        "nats": nats,
    });
    let text = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).expect("signed"));
    format!("{text}.{signature}")
}
