//! Tokens as an issuer signs them, and as others would like to.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// A public key under a name.
pub(crate) fn public(kid: &str, seed: u8) -> (String, String) {
    (kid.to_owned(), BASE64.encode(pair(seed).public_key()))
}

#[expect(clippy::disallowed_methods, reason = "tokens tell the time of day")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A token of ada's, with these claims and headers in place of the usual ones, signed with the key of
/// `seed`.
pub(crate) fn token(seed: u8, headers: &Value, claims: &Value) -> String {
    let now = now();
    let mut header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "key-1"});
    let mut body = json!({
        "iss": "echo.issuer", "sub": "ada", "aud": "echo",
        "exp": now + 900, "iat": now, "nbf": now,
    });
    for (base, changes) in [(&mut header, headers), (&mut body, claims)] {
        for (name, value) in changes.as_object().unwrap() {
            base[name] = value.clone();
        }
    }
    let encode = |part: Value| BASE64.encode(part.to_string());
    let message = format!("{}.{}", encode(header), encode(body));
    let signature = pair(seed).sign(message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

/// A token that is good.
pub(crate) fn good() -> String {
    token(1, &json!({}), &json!({}))
}

/// Tokens that are not, each with what is wrong with it.
pub(crate) fn bad() -> Vec<(&'static str, String)> {
    let none = json!({});
    let now = now();
    let expired = json!({"exp": now - 120, "iat": now - 600, "nbf": now - 600});
    let good = good();
    let (message, _) = good.rsplit_once('.').unwrap();
    vec![
        ("expired", token(1, &none, &expired)),
        ("another's key", token(2, &none, &none)),
        ("an unknown key", token(1, &json!({"kid": "key-2"}), &none)),
        (
            "another audience",
            token(1, &none, &json!({"aud": "others"})),
        ),
        ("another issuer", token(1, &none, &json!({"iss": "others"}))),
        ("alg none", token(1, &json!({"alg": "none"}), &none)),
        ("no signature", format!("{message}.")),
        ("no token", "not-a-token".to_owned()),
    ]
}
