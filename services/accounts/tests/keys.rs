//! Signing keys shared by replicas, from the first to the forgotten one.

// Helpers of tests fail like tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use accounts::{
    domain::{Claims, Terms},
    keys::{Keys, RefreshError},
    signing::SigningKey,
    store::{MIGRATIONS, Store},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use gantry_harness::database::Place;
use gantry_store::{Config, Database, Statement, Timestamp};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::{task::JoinSet, time};

gantry_harness::on_both!(
    replicas_agree_on_the_first_key,
    a_busy_database_is_waited_for,
    a_damaged_key_is_not_waited_for,
    keys_are_published_around_their_time,
    tokens_verify_by_the_published_key,
);

const LIFETIME: Duration = Duration::from_hours(30 * 24);
const MINUTE: Duration = Duration::from_mins(1);

fn config(place: &Place) -> Config {
    Config {
        url: place.url().parse().unwrap(),
        ..Config::default()
    }
}

async fn open(place: &Place) -> Keys {
    let database = Database::open(&config(place), MIGRATIONS).await.unwrap();
    Keys::open(Store::new(database), LIFETIME).await.unwrap()
}

fn names(keys: &Keys) -> Vec<String> {
    keys.ring().iter().map(|key| key.kid().to_owned()).collect()
}

fn signer(keys: &Keys, now: Timestamp) -> String {
    let ring = keys.ring();
    let signer = ring.signer(Keys::published(now)).unwrap();
    signer.kid().to_owned()
}

/// Goal: replicas that start together on no key yet agree on one.
/// Method: eight of them at once.
async fn replicas_agree_on_the_first_key(place: Place) {
    let place = std::sync::Arc::new(place);
    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let place = std::sync::Arc::clone(&place);
        opening.spawn(async move { names(&open(&place).await) });
    }
    let rings = opening.join_all().await;
    assert_eq!(1, rings[0].len());
    assert!(rings.iter().all(|ring| *ring == rings[0]), "{rings:?}");
}

/// Goal: a database that is busy right after it was opened delays the first key, and no more.
/// Method: another writer holds it for many times as long as a statement waits, then lets go.
async fn a_busy_database_is_waited_for(place: Place) {
    let config = Config {
        busy_timeout: Duration::from_millis(1),
        statement_timeout: Duration::from_millis(50),
        ..config(&place)
    };
    let database = Database::open(&config, MIGRATIONS).await.unwrap();
    let other = Database::open(&config, MIGRATIONS).await.unwrap();
    let mut writing = other.begin("test.write").await.unwrap();
    writing.alone("signing keys").await.unwrap();
    let opening = Keys::open(Store::new(database), LIFETIME);
    tokio::pin!(opening);
    let early = time::timeout(Duration::from_secs(1), &mut opening).await;
    assert!(early.is_err(), "{early:?}");
    writing.rollback().await.unwrap();
    let opened = time::timeout(Duration::from_secs(30), opening).await;
    assert_eq!(1, names(&opened.unwrap().unwrap()).len());
}

/// Goal: a key that cannot be read ends the start at once: waiting does not mend it.
/// Method: spoil the only key.
async fn a_damaged_key_is_not_waited_for(place: Place) {
    const SPOIL: Statement = Statement::new("test.spoil", "UPDATE signing_keys SET pkcs8 = 'x'");
    open(&place).await;
    let database = Database::open(&config(&place), MIGRATIONS).await.unwrap();
    database.statement(&SPOIL).execute().await.unwrap();
    let opened = Keys::open(Store::new(database), LIFETIME).await;
    assert!(matches!(opened, Err(RefreshError::Key(_))), "{opened:?}");
}

/// Goal: a key is published before it signs and after it has signed, and then forgotten.
/// Method: two replicas; go through time by asking for it, one replica ahead of the other.
async fn keys_are_published_around_their_time(place: Place) {
    let (one, other) = (open(&place).await, open(&place).await);
    let start = Timestamp::now();
    let first = signer(&one, start);
    assert_eq!(first, signer(&other, start), "the first key signs at once");

    let due = start.after(LIFETIME).after(MINUTE);
    one.refresh(due).await.unwrap();
    other.refresh(due).await.unwrap();
    let published = names(&one);
    assert_eq!(2, published.len());
    assert_eq!(
        published,
        names(&other),
        "one new key, not one of each replica"
    );
    for keys in [&one, &other] {
        assert_eq!(
            first,
            signer(keys, due.after(MINUTE)),
            "it does not sign yet"
        );
        assert_eq!(published[0], signer(keys, due.after(3 * MINUTE)));
    }

    // Each later key is older than its successors' memory only once nothing it signed can live.
    let mut now = due;
    for round in 2..6 {
        now = now.after(LIFETIME).after(MINUTE);
        one.refresh(now).await.unwrap();
        let kept = names(&one);
        assert!((2..=4).contains(&kept.len()), "round {round}: {kept:?}");
        let before = now.before(MINUTE);
        assert!(
            kept.contains(&signer(&one, before)),
            "what signs is published"
        );
    }
    assert!(!names(&one).contains(&first));
}

/// Goal: a token is what the standard says, and its named key verifies it.
/// Method: take one apart.
async fn tokens_verify_by_the_published_key(place: Place) {
    let keys = open(&place).await;
    let terms = Terms {
        issuer: "shop.accounts".to_owned(),
        audience: "shop".to_owned(),
        lifetime: MINUTE,
    };
    let now = Timestamp::now();
    let ring = keys.ring();
    let key = ring.signer(Keys::published(now)).unwrap();
    for roles in [&[][..], &["staff".to_owned()]] {
        let token = key.sign(&Claims::new(&terms, "ada", roles.to_vec(), now));
        verifies(&token, key, now, roles);
    }
}

/// Method, continued: of an account without roles, and of one with some.
fn verifies(token: &str, key: &SigningKey, now: Timestamp, roles: &[String]) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let public = BASE64.decode(key.public()).unwrap();
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message.as_bytes(), &BASE64.decode(signature).unwrap())
        .unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let json = |part| serde_json::from_slice(&BASE64.decode(part).unwrap()).unwrap();
    let (header, claims): (serde_json::Value, serde_json::Value) = (json(header), json(claims));
    let expected = serde_json::json!({ "alg": "EdDSA", "kid": key.kid(), "typ": "at+jwt" });
    assert_eq!(expected, header);
    let seconds = now.seconds();
    let mut expected = serde_json::json!({
        "iss": "shop.accounts", "sub": "ada", "aud": "shop",
        "exp": seconds + 60, "iat": seconds, "nbf": seconds,
    });
    if !roles.is_empty() {
        expected["roles"] = roles.into();
    }
    assert_eq!(expected, claims);
}
