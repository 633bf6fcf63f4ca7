//! What is kept of tokens that are good.

use super::*;
use crate::auth::{
    keys::Key,
    proven::{Proof, Proven},
};

/// `proof` of a token that stands for somebody else, so that it shows where it is used.
fn of_eve(proof: &Proof) -> Proof {
    let mut identity = proof.identity.clone();
    identity.subject = "eve".to_owned();
    Proof {
        kid: proof.kid.clone(),
        key: Arc::clone(&proof.key),
        rules: Arc::clone(&proof.rules),
        from: proof.from,
        until: proof.until,
        identity,
    }
}

/// Goal: a token is judged once, and again as soon as anything is not as it was: its key, what is
/// asked for, or the time.
/// Method: what was kept is replaced by what would give another caller, as it was and with one thing
/// changed at a time.
#[tokio::test]
async fn what_was_found_holds_as_long_as_all_it_was_found_by() {
    let verifier = ordinary();
    let token = sign(&header(), &claims());
    identify(&verifier, &token).await.unwrap();
    let found = verifier.proven.find(&token).expect("it is kept");
    let exp = u64::try_from(claims()["exp"].as_i64().unwrap()).unwrap();
    // The clock may have gone on since the token was made.
    assert!((exp + 58..=exp + 60).contains(&found.until), "{found:?}");

    let other = verifier_of_another_key().await;
    let strict = Rules {
        audience: "another house".to_owned(),
        ..rules()
    };
    let now = found.from;
    for (change, proof, expected) in [
        ("nothing", of_eve(&found), "eve"),
        (
            "key",
            Proof {
                key: other,
                ..of_eve(&found)
            },
            "ada",
        ),
        (
            "rules",
            Proof {
                rules: Arc::new(strict),
                ..of_eve(&found)
            },
            "ada",
        ),
        (
            "over",
            Proof {
                until: now - 1,
                ..of_eve(&found)
            },
            "ada",
        ),
        (
            "not yet",
            Proof {
                from: now + 60,
                ..of_eve(&found)
            },
            "ada",
        ),
    ] {
        verifier.proven.keep(token.clone(), proof);
        let identity = identify(&verifier, &token).await.unwrap();
        assert_eq!(expected, identity.subject, "{change}");
        if expected == "ada" {
            let again = verifier.proven.find(&token).unwrap();
            assert_eq!("ada", again.identity.subject, "{change}: it is kept anew");
        }
    }
}

async fn verifier_of_another_key() -> Arc<Key> {
    let verifier = verifier(|| async { Ok(vec![public("key-1", 2)]) });
    let token = sign_text(&header().to_string(), &claims().to_string(), 2);
    identify(&verifier, &token).await.unwrap();
    Arc::clone(&verifier.proven.find(&token).unwrap().key)
}

/// Goal: what is kept is bounded, and is of tokens that are good alone; a token that is used stays,
/// however many others come.
/// Method: tokens that are refused or long; then ten thousand good ones, and one between them.
#[tokio::test]
async fn what_is_kept_is_bounded() {
    let verifier = ordinary();
    let long = with_claims(&json!({ "unknown": "u".repeat(1_024) }));
    assert!(identify(&verifier, &long).await.is_ok());
    for token in [
        with_claims(&json!({ "aud": "another house" })),
        sign_text(&header().to_string(), &claims().to_string(), 2),
        "no token".to_owned(),
    ] {
        identify(&verifier, &token).await.unwrap_err();
    }
    assert_eq!(0, verifier.proven.len());

    let used = sign(&header(), &claims());
    identify(&verifier, &used).await.unwrap();
    let proof = verifier.proven.find(&used).unwrap();
    let proven = Proven::default();
    proven.keep(used.clone(), of_eve(&proof));
    for other in 0..10_000 {
        proven.keep(other.to_string(), of_eve(&proof));
        assert!(proven.find(&used).is_some(), "{other}");
    }
    assert!(proven.len() <= 4_096, "{}", proven.len());
    assert!(proven.find("0").is_none());
}
