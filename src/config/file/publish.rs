//! The shape of the `publish` section.

use super::Nothing;
use crate::config::quantity::{Size, Span};
use crate::config::read::{Given, WordOr, shape, words};

shape! {
    /// The publish listener.
    Publish {
        /// IP address and port. Default: 127.0.0.1:5561.
        address: String,
        /// The largest request body, and the largest NDJSON line. Default: 1MiB.
        max_body: Size,
        /// How long an event's id is remembered, so that the same one is not published again. Default: 5m.
        idempotency_window: Span,
        /// Who may publish: any one entry that accepts is enough. Default: everybody, which is allowed on loopback only.
        auth: Vec<Given<PublishAuth>>,
        /// Webhooks of others that become events.
        webhooks: Vec<Given<Webhook>>,
    }
}

shape! {
    /// One way to prove that one may publish: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    PublishAuth {
        /// `Authorization: Bearer <token>`.
        bearer: Bearer,
        /// A JSON Web Token signed with a key, as GRIP libraries send.
        grip_sig: GripSig,
    }
}

shape! {
    /// A bearer token: from a file, or from the environment.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Bearer {
        /// A file with the token; a final line break is left out.
        token_file: String,
        /// An environment variable with the token.
        token_env: String,
    }
}

shape! {
    /// The key of GRIP publishers: from a file, or from the environment.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    GripSig {
        /// A file with the key: a secret, base64: and a secret, or PEM (P-256 or RSA).
        key_file: String,
        /// An environment variable with the key.
        key_env: String,
    }
}

shape! {
    /// A JSON webhook that becomes an event.
    #[schemars(extend("required" = ["path", "verify", "channel"]))]
    Webhook {
        /// Its exact path on the publish listener.
        path: String,
        /// How a delivery proves where it is from; `none` on loopback only.
        verify: WordOr<Nothing, Verify>,
        /// The channel, with JSON pointers into the body in braces: "customers.{/data/customer_id}".
        channel: String,
        /// The event's name, with JSON pointers in braces. Default: none.
        event: String,
        /// The event's data, with JSON pointers in braces. Default: the whole body.
        data: String,
    }
}

shape! {
    /// How a webhook is verified: exactly one of its keys.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
    Verify {
        /// The Standard Webhooks signature.
        standard_webhooks: StandardWebhooks,
        /// A keyed hash of the body in a field.
        hmac: Hmac,
        /// GitHub's X-Hub-Signature-256.
        github: Github,
        /// Stripe's Stripe-Signature.
        stripe: Stripe,
    }
}

shape! {
    /// Standard Webhooks: webhook-id, webhook-timestamp and webhook-signature.
    StandardWebhooks {
        /// A file with the secret (whsec_…); a final line break is left out.
        secret_file: String,
        /// An environment variable with the secret (whsec_…).
        secret_env: String,
        /// How far the time stamp may be off. Default: 5m.
        tolerance: Span,
    }
}

shape! {
    /// A generic keyed hash.
    #[schemars(extend("required" = ["header"]))]
    Hmac {
        /// A file with the key; a final line break is left out.
        secret_file: String,
        /// An environment variable with the key.
        secret_env: String,
        /// The field with the signature.
        header: String,
        /// What stands before the signature in the field, such as "sha256=". Default: nothing.
        prefix: String,
        /// The hash. Default: sha256.
        algorithm: Algorithm,
        /// How the signature is written. Default: hex.
        encoding: Encoding,
        /// A field with the Unix time in seconds; then `<time>.<body>` is what is signed. Default: none.
        timestamp_header: String,
        /// How far the time stamp may be off. Default: 5m.
        tolerance: Span,
    }
}

words! {
    /// A hash.
    Algorithm {
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-512.
        Sha512 = "sha512",
    }
}

words! {
    /// How a signature is written.
    Encoding {
        /// Hexadecimal.
        Hex = "hex",
        /// Base64.
        Base64 = "base64",
    }
}

shape! {
    /// GitHub's webhook signature.
    Github {
        /// A file with the secret; a final line break is left out.
        secret_file: String,
        /// An environment variable with the secret.
        secret_env: String,
    }
}

shape! {
    /// Stripe's webhook signature.
    Stripe {
        /// A file with the endpoint's secret (whsec_…); a final line break is left out.
        secret_file: String,
        /// An environment variable with the endpoint's secret (whsec_…).
        secret_env: String,
        /// How far the time stamp may be off. Default: 5m.
        tolerance: Span,
    }
}
