mod issuer;
mod proven;

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::*;

/// Claims or headers that a case removes.
const ABSENT: Value = Value::Null;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(kid: &str, seed: u8) -> PublicKey {
    PublicKey {
        kid: kid.to_owned(),
        x: BASE64.encode(pair(seed).public_key()),
    }
}

fn rules() -> Rules {
    Rules {
        issuer: "test.issuer".to_owned(),
        audience: "house".to_owned(),
        leeway: Duration::from_mins(1),
        lifetime_max: Duration::from_hours(1),
    }
}

fn verifier(fetch: impl Fetch) -> Verifier {
    Verifier::new(fetch, Live::fixed(rules()))
}

/// A verifier whose issuer has one key, `key-1`.
pub(crate) fn ordinary() -> Verifier {
    verifier(|| async { Ok(vec![public("key-1", 1)]) })
}

fn now() -> i64 {
    i64::try_from(since_1970().as_secs()).unwrap()
}

fn since_1970() -> Duration {
    let now = crate::journal::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap()
}

pub(crate) fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "key-1" })
}

pub(crate) fn claims() -> Value {
    let now = now();
    json!({
        "iss": "test.issuer", "sub": "ada", "aud": "house",
        "exp": now + 900, "iat": now, "nbf": now,
    })
}

/// `base` with these fields replaced, those that are absent removed.
fn with(mut base: Value, changes: &Value) -> Value {
    let fields = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if *value == ABSENT {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    base
}

fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", BASE64.encode(header), BASE64.encode(claims))
}

fn sign_text(header: &str, claims: &str, seed: u8) -> String {
    let message = unsigned(header, claims);
    let signature = pair(seed).sign(message.as_bytes());
    format!("{message}.{}", BASE64.encode(signature))
}

pub(crate) fn sign(header: &Value, claims: &Value) -> String {
    sign_text(&header.to_string(), &claims.to_string(), 1)
}

fn with_header(changes: &Value) -> String {
    sign(&with(header(), changes), &claims())
}

fn with_claims(changes: &Value) -> String {
    sign(&header(), &with(claims(), changes))
}

fn bearing(token: &str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let value: MetadataValue<Ascii> = format!("Bearer {token}").parse().unwrap();
    metadata.insert("authorization", value);
    metadata
}

async fn identify(verifier: &Verifier, token: &str) -> Result<Identity, Denied> {
    verifier.identify(bearing(token).as_ref()).await
}

/// Goal: what the issuer signs is accepted, within the leeway and in any writing of the
/// scheme.
/// Method: good tokens.
#[tokio::test]
async fn good_tokens_are_accepted() {
    let verifier = ordinary();
    let good = [
        sign(&header(), &claims()),
        with_header(&json!({ "typ": "AT+JWT" })),
        with_claims(&json!({ "aud": ["other", "house"] })),
        with_claims(&json!({ "exp": now() - 55, "iat": now() - 900, "nbf": now() - 900 })),
        with_claims(&json!({ "nbf": now() + 55 })),
        with_claims(&json!({ "unknown": { "more": 1 } })),
        // Where it says its key is found is not looked at.
        with_header(&json!({ "jku": "http://127.0.0.1:1/", "x5u": "file:///etc/passwd" })),
    ];
    for token in good {
        let identity = identify(&verifier, &token).await;
        assert_eq!(
            Ok("ada"),
            identity.as_ref().map(|who| &*who.subject),
            "{token}"
        );
    }
    let mut metadata = MetadataMap::new();
    let token = sign(&header(), &claims());
    metadata.insert("authorization", format!("bearer {token}").parse().unwrap());
    assert!(verifier.identify(metadata.as_ref()).await.is_ok());
}

/// Goal: nothing else in the metadata counts as a token.
/// Method: no header, two, other schemes, no token, a long one.
#[tokio::test]
async fn the_header_must_be_one_bearer_token() {
    let verifier = ordinary();
    let token = sign(&header(), &claims());
    let denied = async |values: &[&str]| {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append("authorization", value.parse().unwrap());
        }
        verifier.identify(metadata.as_ref()).await.unwrap_err()
    };
    let bearer = format!("Bearer {token}");
    assert_eq!(Denied::Missing, denied(&[]).await);
    assert_eq!(Denied::Malformed, denied(&[&bearer, &bearer]).await);
    assert_eq!(Denied::Malformed, denied(&[&token]).await);
    assert_eq!(Denied::Malformed, denied(&["Bearer "]).await);
    assert_eq!(
        Denied::Malformed,
        denied(&[&format!("Basic {token}")]).await
    );
    let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
    assert_eq!(Denied::Token(TokenError::TooLong), denied(&[&long]).await);
    let longest = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX));
    assert_eq!(
        Denied::Token(TokenError::Malformed),
        denied(&[&longest]).await
    );
    let long_kid = with_header(&json!({ "kid": "k".repeat(1_000_000) }));
    let long_kid = denied(&[&format!("Bearer {long_kid}")]).await;
    assert_eq!(Denied::Token(TokenError::TooLong), long_kid);
}

/// Our public key used as the secret of a symmetric algorithm.
fn signed_by_hs256() -> String {
    let header = with(header(), &json!({ "alg": "HS256" }));
    let message = unsigned(&header.to_string(), &claims().to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, pair(1).public_key().as_ref());
    let tag = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", BASE64.encode(tag))
}

/// A flawless signature of another family.
fn signed_by_es256() -> String {
    let header = with(header(), &json!({ "alg": "ES256" }));
    let message = unsigned(&header.to_string(), &claims().to_string());
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let signature = pair.sign(&random, message.as_bytes()).unwrap();
    format!("{message}.{}", BASE64.encode(signature))
}

/// Goal: no header chooses how a token is checked.
/// Method: other algorithms, properly signed where that means something, types and extensions.
#[tokio::test]
async fn headers_cannot_choose_the_rules() {
    use TokenError::{Kind, Malformed};
    let verifier = ordinary();
    let none = |alg: &str| {
        let header = with(header(), &json!({ "alg": alg }));
        format!("{}.", unsigned(&header.to_string(), &claims().to_string()))
    };
    let twice = r#"{"alg":"none","alg":"EdDSA","typ":"at+jwt","kid":"key-1"}"#;
    let twice = sign_text(twice, &claims().to_string(), 1);
    let changed = |changes: Value| with_header(&changes);
    let cases = [
        ("HS256 with the public key", signed_by_hs256(), Kind),
        ("ES256", signed_by_es256(), Kind),
        ("RS256", changed(json!({ "alg": "RS256" })), Kind),
        ("none", none("none"), Malformed),
        ("None", none("None"), Malformed),
        ("nOnE", none("nOnE"), Malformed),
        ("no algorithm", changed(json!({ "alg": ABSENT })), Malformed),
        ("two algorithms", twice, Malformed),
        ("an extension", changed(json!({ "crit": ["exp"] })), Kind),
        ("another type", changed(json!({ "typ": "JWT" })), Kind),
        ("no type", changed(json!({ "typ": ABSENT })), Kind),
    ];
    for (case, token, expected) in cases {
        let denied = identify(&verifier, &token).await;
        assert_eq!(Err(Denied::Token(expected)), denied, "{case}");
    }
}

/// Goal: the name of a key is a word to look up and nothing else.
/// Method: names that mean something elsewhere, and none.
#[tokio::test]
async fn key_names_are_words() {
    let verifier = ordinary();
    let long = "k".repeat(65);
    for kid in [
        "",
        "../../",
        "' OR 1=1 --",
        "http://x/",
        "a b",
        "key\u{0}",
        &long,
    ] {
        let denied = identify(&verifier, &with_header(&json!({ "kid": kid }))).await;
        assert_eq!(Err(Denied::Token(TokenError::Malformed)), denied, "{kid:?}");
    }
    let denied = identify(&verifier, &with_header(&json!({ "kid": ABSENT }))).await;
    assert_eq!(Err(Denied::Token(TokenError::Malformed)), denied);
    let denied = identify(&verifier, &with_header(&json!({ "kid": "key-2" }))).await;
    assert_eq!(Err(Denied::Token(TokenError::UnknownKey)), denied);
}

/// Goal: a token says who, for whom and how long, exactly once and in the right form.
/// Method: one wrong claim at a time.
#[tokio::test]
async fn claims_must_be_right_and_complete() {
    use TokenError::{Early, Expired, Lifetime, Malformed, Parties};
    let verifier = ordinary();
    let now = now();
    let cases = [
        (json!({ "iss": ABSENT }), Malformed),
        (json!({ "sub": ABSENT }), Malformed),
        (json!({ "aud": ABSENT }), Malformed),
        (json!({ "exp": ABSENT }), Malformed),
        (json!({ "iat": ABSENT }), Malformed),
        (json!({ "nbf": ABSENT }), Malformed),
        (json!({ "iss": "someone.else" }), Parties),
        (json!({ "iss": "test.issuer.evil" }), Parties),
        (json!({ "iss": ["test.issuer"] }), Malformed),
        (json!({ "aud": "house2" }), Parties),
        (json!({ "aud": "hous" }), Parties),
        (json!({ "aud": ["other"] }), Parties),
        (json!({ "aud": [] }), Parties),
        (json!({ "aud": 7 }), Malformed),
        (json!({ "sub": "" }), Malformed),
        (json!({ "sub": 7 }), Malformed),
        (json!({ "sub": "s".repeat(129) }), Malformed),
        (json!({ "exp": now - 61 }), Expired),
        (json!({ "exp": (now + 900).to_string() }), Malformed),
        (json!({ "exp": 1.5e9 }), Malformed),
        (json!({ "exp": -1 }), Malformed),
        (json!({ "exp": 18_446_744_073_709_551_615_u64 }), Lifetime),
        // A minute beyond the hour: the clock goes on while the test runs.
        (json!({ "exp": now + 3_660 }), Lifetime),
        (json!({ "nbf": now + 90 }), Early),
        (json!({ "iat": now + 90, "exp": now + 900 }), Early),
        (json!({ "iat": now + 30, "exp": now + 10 }), Lifetime),
    ];
    for (changes, expected) in cases {
        let denied = identify(&verifier, &with_claims(&changes)).await;
        assert_eq!(Err(Denied::Token(expected)), denied, "{changes}");
    }
    // A number no machine word holds, and each claim given twice.
    let good = claims();
    let text = good.to_string();
    let huge = text.replacen(&good["exp"].to_string(), "18446744073709551616", 1);
    let mut odd = vec![huge];
    for name in ["iss", "sub", "aud", "exp", "iat", "nbf"] {
        odd.push(text.replacen('{', &format!("{{\"{name}\":{},", good[name]), 1));
    }
    for text in odd {
        let token = sign_text(&header().to_string(), &text, 1);
        let denied = identify(&verifier, &token).await;
        assert_eq!(Err(Denied::Token(Malformed)), denied, "{text}");
    }
}

/// Goal: whoever calls has the roles that their token says, letter for letter, and no other.
/// Method: tokens without roles, with none and with some; what each may.
#[tokio::test]
async fn roles_are_those_of_the_token() {
    let verifier = ordinary();
    for (roles, has) in [
        (ABSENT, false),
        (json!([]), false),
        (json!(["staff"]), true),
        (json!(["night", "staff", "staff"]), true),
        (json!(["Staff", "staff ", "staf", "staffs", "*"]), false),
        (json!(["r".repeat(64)]), false),
        (json!(vec!["night"; 32]), false),
    ] {
        let token = with_claims(&json!({ "roles": roles.clone() }));
        let identity = identify(&verifier, &token).await.unwrap();
        assert_eq!(has, identity.has_role("staff"), "{roles}");
        assert!(!identity.has_role(""), "{roles}");
        let refused = identity.require_role("staff").err();
        let code = refused.as_ref().map(Status::code);
        let expected = (!has).then_some(tonic::Code::PermissionDenied);
        assert_eq!(expected, code, "{roles}: {refused:?}");
    }
    // What it is refused with fits into a header, whatever a contract asks for.
    let identity = identify(&verifier, &sign(&header(), &claims())).await;
    let refused = identity.unwrap().require_role(&"é".repeat(100_000));
    assert!(refused.unwrap_err().message().len() < 256);
}

/// Goal: a token whose roles are not a short list of names proves nothing at all.
/// Method: other types, names that are none, too many, too long, and the claim twice.
#[tokio::test]
async fn roles_are_a_short_list_of_names() {
    let verifier = ordinary();
    for roles in [
        json!("staff"),
        json!({ "staff": true }),
        json!(true),
        json!([1]),
        json!([["staff"]]),
        json!(["staff", null]),
        json!([""]),
        json!(["staff\n"]),
        json!(["r".repeat(65)]),
        json!(vec!["staff"; 33]),
    ] {
        let denied = identify(&verifier, &with_claims(&json!({ "roles": roles.clone() }))).await;
        let expected = Err(Denied::Token(TokenError::Malformed));
        assert_eq!(expected, denied, "{roles}");
    }
    for text in [r#"{"roles":null,"#, r#"{"roles":[],"roles":["staff"],"#] {
        let text = claims().to_string().replacen('{', text, 1);
        let denied = identify(&verifier, &sign_text(&header().to_string(), &text, 1)).await;
        assert_eq!(Err(Denied::Token(TokenError::Malformed)), denied, "{text}");
    }
}

/// Goal: only the holder of the named key can have signed.
/// Method: another key's signature, a changed claim, a cut, missing or padded signature.
#[tokio::test]
async fn signatures_must_be_the_named_keys() {
    let verifier = ordinary();
    let good = sign(&header(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let cut = BASE64.encode(&BASE64.decode(signature).unwrap()[..63]);
    let forged = unsigned(
        &header().to_string(),
        &with(claims(), &json!({ "sub": "eve" })).to_string(),
    );
    let other = sign_text(&header().to_string(), &claims().to_string(), 2);
    for (token, expected) in [
        (other, TokenError::Signature),
        (format!("{forged}.{signature}"), TokenError::Signature),
        (format!("{message}."), TokenError::Signature),
        (format!("{message}.{cut}"), TokenError::Signature),
        (format!("{good}=="), TokenError::Malformed),
        (message.to_owned(), TokenError::Malformed),
        (format!("{good}.{signature}"), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        ("no-token".to_owned(), TokenError::Malformed),
    ] {
        let denied = identify(&verifier, &token).await;
        assert_eq!(Err(Denied::Token(expected)), denied, "{token}");
    }
}

/// Goal: callers learn that a token is refused and whether it was too old, nothing of why.
/// Method: the statuses of a few refusals.
#[test]
fn refusals_say_no_more_than_helps() {
    let status = |denied: Denied| {
        let status = Status::from(denied);
        (status.code(), status.message().to_owned())
    };
    let refused = (
        tonic::Code::Unauthenticated,
        "the token is not accepted".to_owned(),
    );
    for error in [
        TokenError::Signature,
        TokenError::UnknownKey,
        TokenError::Parties,
    ] {
        assert_eq!(refused, status(error.into()));
    }
    assert_eq!(
        "the token has expired",
        status(TokenError::Expired.into()).1
    );
    assert_eq!(tonic::Code::Unavailable, status(Denied::NoKeys).0);
}
