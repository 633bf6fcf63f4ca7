//! Keys, and the issuer they come from: away, silent, useless or in the way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::time;

use super::*;

/// An issuer whose keys and presence a test decides.
#[derive(Debug, Default)]
struct Issuer {
    asked: AtomicUsize,
    away: AtomicBool,
    rotated: AtomicBool,
}

impl Issuer {
    fn verifier(self: &Arc<Self>) -> Verifier {
        let issuer = Arc::clone(self);
        verifier(move || {
            let issuer = Arc::clone(&issuer);
            async move {
                issuer.asked.fetch_add(1, Ordering::SeqCst);
                if issuer.away.load(Ordering::SeqCst) {
                    return Err("away".into());
                }
                let rotated = issuer.rotated.load(Ordering::SeqCst);
                let seed = if rotated { 2 } else { 1 };
                Ok(vec![public(&format!("key-{seed}"), seed)])
            }
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn rotated_token() -> String {
    let header = with(header(), &json!({ "kid": "key-2" }));
    sign_text(&header.to_string(), &claims().to_string(), 2)
}

/// Goal: a storm of tokens with unknown keys asks the issuer at most once a minute, and a new key
/// is found that way.
/// Method: a paused clock; five hundred calls at once, again a second later, then after a minute
/// with the key rotated.
#[tokio::test(start_paused = true)]
async fn unknown_keys_ask_at_most_once_a_minute() {
    let issuer = Arc::new(Issuer::default());
    let verifier = issuer.verifier();
    assert!(
        identify(&verifier, &sign(&header(), &claims()))
            .await
            .is_ok()
    );
    assert_eq!(1, issuer.asked());
    issuer.rotated.store(true, Ordering::SeqCst);
    let unknown = rotated_token();
    for seconds in [0, 1, 58] {
        time::advance(Duration::from_secs(seconds)).await;
        let metadata = bearing(&unknown);
        let calls = (0..500).map(|_| verifier.identify(metadata.as_ref()));
        for denied in futures_util::future::join_all(calls).await {
            assert_eq!(Err(Denied::Token(TokenError::UnknownKey)), denied);
        }
        assert_eq!(1, issuer.asked());
    }
    time::advance(Duration::from_secs(1)).await;
    let metadata = bearing(&unknown);
    let calls = (0..500).map(|_| verifier.identify(metadata.as_ref()));
    for identity in futures_util::future::join_all(calls).await {
        assert!(identity.is_ok(), "{identity:?}");
    }
    assert_eq!(2, issuer.asked());
    // The old key is no longer published, so it no longer counts.
    let old = identify(&verifier, &sign(&header(), &claims())).await;
    assert_eq!(Err(Denied::Token(TokenError::UnknownKey)), old);
}

/// Goal: while the issuer is away known keys stay good, and before it was ever there nobody is
/// told that the token is at fault.
/// Method: a paused clock; start with the issuer away, let it come, let it go for an hour.
#[tokio::test(start_paused = true)]
async fn keys_are_kept_while_the_issuer_is_away() {
    let issuer = Arc::new(Issuer::default());
    issuer.away.store(true, Ordering::SeqCst);
    let verifier = issuer.verifier();
    let token = sign(&header(), &claims());
    for _ in 0..10 {
        assert_eq!(Err(Denied::NoKeys), identify(&verifier, &token).await);
    }
    assert_eq!(1, issuer.asked(), "a failed read is not repeated at once");

    issuer.away.store(false, Ordering::SeqCst);
    time::advance(Duration::from_secs(1)).await;
    assert!(identify(&verifier, &token).await.is_ok());

    issuer.away.store(true, Ordering::SeqCst);
    let mut fresh = tokio::task::JoinSet::new();
    fresh.spawn(verifier.clone().keep_fresh());
    for _ in 0..60 {
        time::sleep(Duration::from_mins(1)).await;
        assert!(identify(&verifier, &token).await.is_ok());
    }
    assert!(issuer.asked() > 60, "it goes on asking");
}

/// Goal: keys that nobody vouched for during a day are good no longer, and nobody is told that the
/// token is at fault.
/// Method: a paused clock, and an issuer that goes away for good after one read.
#[tokio::test(start_paused = true)]
async fn keys_are_not_kept_for_more_than_a_day() {
    let issuer = Arc::new(Issuer::default());
    let verifier = issuer.verifier();
    let token = sign(&header(), &claims());
    assert!(identify(&verifier, &token).await.is_ok());
    issuer.away.store(true, Ordering::SeqCst);
    let day = Duration::from_hours(24);
    time::advance(day.checked_sub(Duration::from_secs(1)).unwrap()).await;
    assert!(identify(&verifier, &token).await.is_ok());
    time::advance(Duration::from_secs(1)).await;
    assert_eq!(Err(Denied::NoKeys), identify(&verifier, &token).await);
    issuer.away.store(false, Ordering::SeqCst);
    time::advance(Duration::from_secs(1)).await;
    assert!(identify(&verifier, &token).await.is_ok());
}

/// Goal: an issuer that suddenly has no keys, or broken ones, does not lock everybody out.
/// Method: keys of no or the wrong length after a good one.
#[tokio::test(start_paused = true)]
async fn useless_answers_change_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let verifier = verifier(move || {
        let count = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut broken = public("key-1", 1);
            match count {
                0 => return Ok(vec![broken]),
                1 => return Ok(Vec::new()),
                2 => broken.x.clear(),
                _ => broken.x = "!".repeat(43),
            }
            Ok(vec![broken])
        }
    });
    let token = sign(&header(), &claims());
    assert!(identify(&verifier, &token).await.is_ok());
    let mut fresh = tokio::task::JoinSet::new();
    fresh.spawn(verifier.clone().keep_fresh());
    time::sleep(Duration::from_secs(10)).await;
    assert!(asked.load(Ordering::SeqCst) > 4);
    assert!(identify(&verifier, &token).await.is_ok());
}

/// Goal: an issuer that does not answer holds no caller for ever, and no more than one read.
/// Method: a paused clock and an issuer that hangs.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_is_given_up() {
    let verifier = verifier(std::future::pending);
    let began = time::Instant::now();
    let token = sign(&header(), &claims());
    let identified = identify(&verifier, &token);
    let denied = time::timeout(Duration::from_mins(1), identified).await;
    assert_eq!(Err(Denied::NoKeys), denied.expect("it ends"));
    assert_eq!(5, began.elapsed().as_secs());
}

/// Goal: an issuer cannot fill the memory with keys.
/// Method: more keys than are kept, with the token's own first and last.
#[tokio::test(start_paused = true)]
async fn keys_are_bounded() {
    for (place, known) in [(0, true), (1_000, false)] {
        let verifier = verifier(move || async move {
            let others = (0..1_000).map(|other| public(&format!("other-{other}"), 2));
            let mut keys: Vec<_> = others.collect();
            keys.insert(place, public("key-1", 1));
            Ok(keys)
        });
        let identity = identify(&verifier, &sign(&header(), &claims())).await;
        assert_eq!(known, identity.is_ok(), "{place}: {identity:?}");
    }
}
