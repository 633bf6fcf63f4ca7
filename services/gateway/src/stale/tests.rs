//! Answers that are kept, given once more and let go of, on a paused clock.

use std::{cell::Cell, collections::BTreeMap};

use gantry::config::{Publisher, Size};
use http_body_util::{BodyExt as _, StreamBody};

use super::*;

const READ: &str = "/shop.v1.Shop/Read";
const AGE: Duration = Duration::from_mins(1);
const ADA: (&str, &str) = ("authorization", "Bearer ada");

/// Policies by pattern, each with how old an answer may be.
fn policies(ages: &[(&str, Duration)]) -> BTreeMap<String, Policy> {
    let policy = |age_max: Duration| {
        let mut policy = Policy::default();
        policy.stale_cache.age_max = age_max;
        policy
    };
    let ages = ages.iter();
    ages.map(|(pattern, age)| ((*pattern).to_owned(), policy(*age)))
        .collect()
}

/// Path, headers and message of a call.
type Question<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8]);

/// What keeps answers of all methods for a minute, as `config` says.
fn stale(config: config::StaleCache) -> Stale {
    let policies = Policies::new(&Live::fixed(policies(&[("*", AGE)])));
    Stale::new(&policies, Live::fixed(config))
}

/// A request in pieces of five bytes.
fn request(path: &str, headers: &[(&str, &str)], message: &[u8]) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let pieces = message.chunks(5).map(|it| Ok::<_, Status>(frame(it)));
    let pieces: Vec<_> = pieces.collect();
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    request.body(Body::new(body)).unwrap()
}

fn frame(data: &[u8]) -> http_body::Frame<bytes::Bytes> {
    http_body::Frame::data(bytes::Bytes::copy_from_slice(data))
}

#[expect(clippy::unnecessary_wraps, reason = "an answer is either")]
fn good(message: &[u8]) -> Result<Response<Body>, Status> {
    let mut trailers = HeaderMap::new();
    trailers.insert(&status::GRPC_STATUS, HeaderValue::from_static("0"));
    let trailers = http_body::Frame::trailers(trailers);
    let mut response = Response::new(Body::new(Taken::whole([frame(message), trailers])));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// How a call was answered: its message and how old it is, where that is said; or its code.
type Seen = Result<(Vec<u8>, Option<u64>), Code>;

/// Makes a call that the backend answers like that.
async fn ask(
    stale: &Stale,
    request: Request<Body>,
    answer: Result<Response<Body>, Status>,
) -> Seen {
    let answered = stale.answer(AGE, request, async |_| answer).await;
    let response = answered.map_err(|status| status.code())?;
    let (head, body) = response.into_parts();
    if let Some(code) = status::code_in(&head.headers) {
        return Err(code);
    }
    let body = body.collect().await.map_err(|status| status.code())?;
    match body.trailers().and_then(status::code_in) {
        Some(Code::Ok) => {}
        code => return Err(code.unwrap_or(Code::Unknown)),
    }
    let age = head.headers.get(&STALE);
    let age = age.map(|it| it.to_str().unwrap().parse().unwrap());
    Ok((body.to_bytes().to_vec(), age))
}

/// How many answers are kept, and their bytes.
fn kept(stale: &Stale) -> (usize, usize) {
    let cache = stale.cache();
    (cache.entries(), cache.bytes())
}

fn down() -> Result<Response<Body>, Status> {
    Err(Status::unavailable("gone"))
}

/// The end of a call after its head, as servers of other makers have it.
#[expect(clippy::unnecessary_wraps, reason = "an answer is either")]
fn late(code: Code) -> Result<Response<Body>, Status> {
    let trailers = status::trailers(&Status::new(code, "late"));
    let trailers = http_body::Frame::trailers(trailers);
    Ok(Response::new(Body::new(Taken::whole([trailers]))))
}

/// Goal: in place of a backend that is at fault or overloaded its last answer is given, with its age; what
/// a backend says for good is handed on, and the answer before it is not given any more.
/// Method: each code, as a call that got no answer, as a head alone, and after one; then the backend is
/// down.
#[tokio::test(start_paused = true)]
async fn the_last_answer_stands_in_for_a_backend_at_fault() {
    use Code::{DataLoss, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    let at_fault = [
        Unknown,
        Internal,
        DataLoss,
        Unavailable,
        DeadlineExceeded,
        ResourceExhausted,
    ];
    for number in 1..=16 {
        let code = Code::from_i32(number);
        let status = Status::new(code, "no");
        for answer in [Err(status.clone()), Ok(status.into_http()), late(code)] {
            let stale = stale(config::StaleCache::default());
            let call = async |answer| ask(&stale, request(READ, &[ADA], b"one"), answer).await;
            assert_eq!(Err(Unavailable), call(down()).await, "there is none yet");
            assert_eq!(Ok((b"1".to_vec(), None)), call(good(b"1")).await);
            time::advance(Duration::from_millis(7_900)).await;
            let old = Ok((b"1".to_vec(), Some(7)));
            let (now, later) = if at_fault.contains(&code) {
                (old.clone(), old)
            } else {
                (Err(code), Err(Unavailable))
            };
            assert_eq!(now, call(answer).await, "{code:?}");
            assert_eq!(later, call(down()).await, "after {code:?}");
            assert_eq!(Ok((b"2".to_vec(), None)), call(good(b"2")).await);
            assert_eq!(Ok((b"2".to_vec(), Some(0))), call(down()).await);
        }
    }
}

/// Goal: nobody is given what was another's answer, or one to another question; how a call goes makes
/// none another.
/// Method: one answer is kept; while the backend is down, calls that differ from its in one thing each.
#[tokio::test(start_paused = true)]
async fn an_answer_is_for_who_asked_and_what_was_asked() {
    let stale = stale(config::StaleCache::default());
    let tenant = ("x-tenant", "a");
    let call = request(READ, &[ADA, tenant], b"message");
    assert!(ask(&stale, call, good(b"1")).await.is_ok());
    let others: &[Question<'_>] = &[
        (READ, &[tenant], b"message"),
        (READ, &[("authorization", "Bearer eve"), tenant], b"message"),
        (
            READ,
            &[ADA, ("authorization", "Bearer eve"), tenant],
            b"message",
        ),
        (READ, &[ADA], b"message"),
        (READ, &[ADA, ("x-tenant", "b")], b"message"),
        (READ, &[ADA, tenant, ("x-tenant", "b")], b"message"),
        (
            READ,
            &[ADA, tenant, ("grpc-accept-encoding", "gzip")],
            b"message",
        ),
        (READ, &[ADA, tenant], b"message."),
        (READ, &[ADA, tenant], b"messag"),
        (READ, &[ADA, tenant], b""),
        ("/shop.v1.Shop/ReadAll", &[ADA, tenant], b"message"),
    ];
    for (path, headers, message) in others {
        let seen = ask(&stale, request(path, headers, message), down()).await;
        assert_eq!(
            Err(Code::Unavailable),
            seen,
            "{path} {headers:?} {message:?}"
        );
    }
    let same: &[&[(&str, &str)]] = &[
        &[ADA, tenant],
        &[tenant, ADA],
        &[
            ADA,
            tenant,
            ("grpc-timeout", "5S"),
            ("traceparent", "00-1-1-01"),
            ("te", "trailers"),
        ],
    ];
    for headers in same {
        let seen = ask(&stale, request(READ, headers, b"message"), down()).await;
        assert_eq!(Ok((b"1".to_vec(), Some(0))), seen, "{headers:?}");
    }
}

/// Goal: an answer is given until it is as old as it may be, and is gone then; one that is stale already
/// does not begin to be young.
/// Method: move the clock to that moment and past it; then let the tidying come by.
#[tokio::test(start_paused = true)]
async fn an_answer_is_not_given_when_it_is_too_old() {
    let stale = stale(config::StaleCache::default());
    let call = async |answer| ask(&stale, request(READ, &[ADA], b"one"), answer).await;
    assert!(call(good(b"1")).await.is_ok());
    time::advance(AGE).await;
    assert_eq!(Ok((b"1".to_vec(), Some(60))), call(down()).await);
    time::advance(Duration::from_millis(1)).await;
    assert_eq!(Err(Code::Unavailable), call(down()).await);
    assert_eq!(1, kept(&stale).0);
    stale.look();
    assert_eq!((0, 0), kept(&stale));

    // One that grows too old while the backend is waited for.
    assert!(call(good(b"1")).await.is_ok());
    let waits = async |_| {
        time::sleep(AGE + Duration::from_secs(1)).await;
        down()
    };
    let answered = stale
        .answer(AGE, request(READ, &[ADA], b"one"), waits)
        .await;
    assert_eq!(Code::Unavailable, answered.unwrap_err().code());

    let mut old = good(b"1").unwrap();
    old.headers_mut()
        .insert(&STALE, HeaderValue::from_static("50"));
    assert_eq!(Ok((b"1".to_vec(), Some(50))), call(Ok(old)).await);
    assert_eq!(Err(Code::Unavailable), call(down()).await);
}

/// Goal: answers of methods that change something, or are streams, are not kept, nor are any where no policy
/// says so; a policy that changes holds for the next call, and what it kept is let go of.
/// Method: what is known of a method, kind by kind; policies by pattern, replaced while they are followed.
#[tokio::test(start_paused = true)]
async fn policies_say_whose_answers_are_kept() {
    use Idempotency::{Idempotent, NoSideEffects, Unknown};
    let method = "shop.v1.Shop/Read";
    let mut configured = Publisher::new(policies(&[("shop.v1.Shop/*", AGE), (method, AGE * 2)]));
    let live = Live::fixed(config::StaleCache::default());
    let stale = Stale::new(&Policies::new(&configured.live()), live);
    let known = |is_stream, idempotency| Known {
        is_stream,
        idempotency,
    };
    let read = known(false, NoSideEffects);
    let others = [
        known(true, NoSideEffects),
        known(false, Idempotent),
        known(false, Unknown),
    ];
    for other in others {
        assert_eq!(None, stale.age_max(READ, other), "{other:?}");
        assert_eq!(None, stale.age_max("/shop.v1.Shop/Write", other));
    }
    let told: Vec<_> = lock(&stale.shared.told).iter().cloned().collect();
    assert_eq!(
        [method],
        *told,
        "that of all methods is meant for those that can"
    );
    assert_eq!(Some(AGE * 2), stale.age_max(READ, read));
    assert_eq!(Some(AGE), stale.age_max("/shop.v1.Shop/List", read));
    assert_eq!(None, stale.age_max("/shop.v1.Other/List", read));

    assert!(
        ask(&stale, request(READ, &[ADA], b"one"), good(b"1"))
            .await
            .is_ok()
    );
    configured.publish(policies(&[(method, AGE / 2)]));
    assert_eq!(Some(AGE / 2), stale.age_max(READ, read));
    assert_eq!(None, stale.age_max("/shop.v1.Shop/List", read));
    assert!(stale.is_wanted(READ));
    configured.publish(policies(&[("*", Duration::ZERO)]));
    assert_eq!(None, stale.age_max(READ, read));
    assert!(!stale.is_wanted(READ));
    stale.look();
    assert_eq!((0, 0), kept(&stale));
    assert!(lock(&stale.shared.told).is_empty());
}

/// Goal: what is larger than may be kept passes whole, as it comes, and is not kept.
/// Method: an answer and a request at their bounds and beyond, then a backend that is down.
#[tokio::test(start_paused = true)]
async fn what_is_large_passes_and_is_not_kept() {
    let entry_bytes_max = Size::kib(4);
    let config = config::StaleCache {
        entry_bytes_max,
        ..config::StaleCache::default()
    };
    for (request_bytes, answer_bytes, kept) in [
        (10, 3_000, true),
        (10, 4_000, false),
        (10, 50_000, false),
        (REQUEST_MAX, 10, true),
        (REQUEST_MAX + 1, 10, false),
        (REQUEST_MAX * 3, 10, false),
    ] {
        let stale = stale(config.clone());
        let (message, answer) = (vec![b'q'; request_bytes], vec![b'a'; answer_bytes]);
        let arrived = Cell::new(0);
        let call = async |request: Request<Body>| {
            let body = request.into_body().collect().await?;
            arrived.set(body.to_bytes().len());
            good(&answer)
        };
        let response = stale
            .answer(AGE, request(READ, &[ADA], &message), call)
            .await;
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(
            (request_bytes, Some(Code::Ok)),
            (arrived.get(), body.trailers().and_then(status::code_in))
        );
        assert_eq!(answer, body.to_bytes());
        let seen = ask(&stale, request(READ, &[ADA], &message), down()).await;
        assert_eq!(kept, seen.is_ok(), "{request_bytes} {answer_bytes}");
    }
}

/// Goal: never more answers or bytes are kept than there is room for, counted exactly; who was not used for
/// the longest time goes.
/// Method: answers of many sizes under few keys, some used again, each step against a list that is kept by
/// hand; then smaller bounds.
#[tokio::test(start_paused = true)]
async fn bounds_hold_and_what_is_unused_goes_first() {
    let answer = |size: usize| {
        let taken = Taken::whole([frame(&vec![0; size])]);
        Answer::new(&HeaderMap::new(), &taken)
    };
    let key = |number: u64| {
        let message = Taken::whole([frame(&number.to_le_bytes())]);
        Key::of("m", &HeaderMap::new(), &message)
    };
    let base = {
        let (mut cache, room) = (Cache::default(), usize::MAX);
        let bounds = Bounds {
            entries: room,
            bytes: room,
            entry_bytes: room,
        };
        cache.put(key(0), answer(0), Instant::now(), bounds);
        cache.bytes()
    };
    let mut bounds = Bounds {
        entries: 20,
        bytes: 10_000,
        entry_bytes: 1_200,
    };
    let mut cache = Cache::default();
    // From the one that goes first: number and bytes.
    let mut expected: Vec<(u64, usize)> = Vec::new();
    let mut random = 88_172_645_463_325_252_u64;
    for step in 0..5_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = random % 40;
        let size = usize::try_from(random >> 32).unwrap() % 1_400;
        let place = expected.iter().position(|it| it.0 == number);
        let was = place.map(|it| expected.remove(it));
        if (random / 64).is_multiple_of(4) {
            assert_eq!(
                was.is_some(),
                cache.find(&key(number)).is_some(),
                "step {step}"
            );
            expected.extend(was);
        } else {
            cache.put(key(number), answer(size), Instant::now(), bounds);
            let bytes = base + size;
            expected.extend((bytes <= bounds.entry_bytes).then_some((number, bytes)));
        }
        if step == 4_000 {
            bounds.entries = 3;
            cache.tidy(Instant::now() - Duration::from_secs(1), bounds);
        }
        while expected.len() > bounds.entries
            || expected.iter().map(|it| it.1).sum::<usize>() > bounds.bytes
        {
            expected.remove(0);
        }
        let bytes = expected.iter().map(|it| it.1).sum::<usize>();
        assert_eq!(
            (expected.len(), bytes),
            (cache.entries(), cache.bytes()),
            "step {step}"
        );
    }
    for (number, _) in expected {
        assert!(cache.find(&key(number)).is_some(), "{number}");
    }
}
