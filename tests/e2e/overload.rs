//! Many times more calls than a service can answer: it goes on answering as many as it can, and those
//! first that matter.

use std::{collections::BTreeMap, time::Duration};

use gantry_harness::{
    load::{Load, Report, Void, valid},
    process::Service,
    tools,
    wait::{self, SOON},
};
use gantry_probe::{WaitRequest, probe_service_client::ProbeServiceClient};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, transport::Channel};

use crate::support::{plain, probe, say};

const METHOD: &str = "probe.v1.ProbeService/Wait";
/// Calls in the handler at once.
const PLACES: u32 = 10;
/// How many times more comes than it can do.
const FLOOD: u32 = 10;
/// What somebody waits for, in percent of what it can do.
const CRITICAL: u32 = 40;
/// What is wanted after the flood, likewise.
const CALM: u32 = 50;
/// Calls of little matter made beside the flood, to see how each is answered, come so often.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// As many in a row say that all are answered again.
const AGAIN: u32 = 10;

/// How long a call takes: on a machine that may be busy, ten times fewer calls fill the service.
fn pause() -> u32 {
    if tools::timed() { 20 } else { 200 }
}

/// What the service can do, in calls a second: 500, or 50.
fn capacity() -> u32 {
    PLACES * 1_000 / pause()
}

/// How long the flood lasts, in seconds.
fn flood() -> u64 {
    if tools::timed() { 30 } else { 4 }
}

/// How long it may take after the flood until all is as before.
fn recovery() -> Duration {
    if tools::timed() {
        Duration::from_secs(5)
    } else {
        SOON
    }
}

/// A service whose calls are held to `PLACES`.
async fn bounded() -> Service {
    let file = "config/own.toml";
    let text = format!("[policies.\"{METHOD}\".concurrency]\ncalls_max = {PLACES}\n");
    let builder = probe().file(file, &text);
    builder.argument("--config").argument(file).start().await
}

/// Calls for some seconds, as often as `pace` says. Of all that come in the flood a few matter, as
/// many as `CRITICAL` says.
fn load(service: &Service, pace: [&str; 2], shares: [u32; 2], seconds: u64) -> Load {
    let [critical, sheddable] = shares;
    let call = |word: &str, weight: u32| {
        let pause = pause();
        format!(
            "[[calls]]\nname = \"{word}\"\nmethod = \"{METHOD}\"\nweight = {weight}\n\
             request = '{{\"millis\": {pause}}}'\nmetadata = {{ gantry-criticality = \"{word}\" }}\n"
        )
    };
    let file = service.folder().join("calls.toml");
    let calls = [call("CRITICAL", critical), call("SHEDDABLE", sheddable)];
    std::fs::write(&file, calls.concat()).expect("write a scenario");
    let target = service.address.to_string();
    let file = file.display().to_string();
    let arguments = [&target, "--scenario", &file, pace[0], pace[1]];
    Load::start_as(&arguments, seconds)
}

/// A call of little matter was refused.
#[derive(Debug)]
struct Refused {
    took: Duration,
    code: Code,
    pushback: Option<u64>,
}

/// Makes a call of little matter.
async fn ask(client: &mut ProbeServiceClient<Channel>) -> Result<(), Refused> {
    let mut request = Request::new(WaitRequest {
        millis: pause(),
        ..WaitRequest::default()
    });
    let word = "SHEDDABLE".parse().expect("a word");
    request.metadata_mut().insert("gantry-criticality", word);
    let begun = Instant::now();
    let answer = client.wait(request).await;
    let took = begun.elapsed();
    answer.map(drop).map_err(|status| {
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        let pushback = pushback.and_then(|it| it.to_str().ok()?.parse().ok());
        Refused {
            took,
            code: status.code(),
            pushback,
        }
    })
}

/// Asks again and again until told to stop: the refusals.
async fn asking(
    client: &mut ProbeServiceClient<Channel>,
    stop: &CancellationToken,
) -> Vec<Refused> {
    let mut refusals = Vec::new();
    while !stop.is_cancelled() {
        let due = Instant::now() + ASK_EVERY;
        refusals.extend(ask(client).await.err());
        time::sleep_until(due).await;
    }
    refusals
}

/// Each refusal says when to come back, and came at once; or what is wrong with them.
fn judge_refusals(mut refusals: Vec<Refused>) -> Result<(), String> {
    for refused in &refusals {
        assert_eq!(Code::Unavailable, refused.code, "{refused:?}");
        let pushback = refused.pushback.is_some_and(|millis| millis > 0);
        assert!(pushback, "{refused:?}");
    }
    refusals.sort_by_key(|refused| refused.took);
    let p99 = (refusals.len() * 99).div_ceil(100).checked_sub(1);
    let p99 = refusals.get(p99.unwrap_or(0)).ok_or("nothing is refused")?;
    say(&format!("{} refusals, p99 {:?}", refusals.len(), p99.took));
    if tools::timed() && p99.took > Duration::from_millis(20) {
        return Err(format!("{p99:?}"));
    }
    Ok(())
}

/// Waits until calls of little matter are answered, one after the other.
async fn all_again(client: &mut ProbeServiceClient<Channel>) {
    let mut answered = 0;
    wait::until("calls to be answered again", recovery(), async || {
        let outcome = ask(client).await;
        answered = outcome.map_or(0, |()| answered + 1);
        (answered == AGAIN).then_some(())
    })
    .await;
}

/// How many calls a second it answers at best: as many as there are places are asked for at a time.
async fn best(service: &Service) -> f64 {
    let seconds = if tools::timed() { 10 } else { 2 };
    let places = PLACES.to_string();
    let load = load(service, ["--concurrency", &places], [1, 1], seconds);
    // Each is sent when another has ended: none is late.
    let (report, _) = load.ended().await;
    per_second(report.ended_with("OK"), seconds)
}

#[allow(clippy::cast_precision_loss)]
fn per_second(calls: u64, seconds: u64) -> f64 {
    calls as f64 / seconds as f64
}

/// A flood, and what comes after it.
async fn flooded() -> Result<(), Void> {
    let service = bounded().await;
    let mut client = ProbeServiceClient::new(plain(service.address).await);
    let best = best(&service).await;
    let rate = (capacity() * FLOOD).to_string();
    let shares = [CRITICAL, FLOOD * 100 - CRITICAL];
    let flooding = load(&service, ["--rate", &rate], shares, flood());
    let stop = CancellationToken::new();
    let flooding = async {
        let ended = flooding.ended().await;
        stop.cancel();
        ended
    };
    let (flooded, refusals) = tokio::join!(flooding, asking(&mut client, &stop));
    all_again(&mut client).await;
    let (report, valid) = flooded;
    if tools::timed() {
        let rate = (capacity() * CALM / 100).to_string();
        let calm = load(&service, ["--rate", &rate], [1, 1], 10);
        calm.finish().await?.all_ok();
    }
    // What a machine shows that is busy counts; what it does not show is not the service's fault.
    match judge_flood(&report, best).and_then(|()| judge_refusals(refusals)) {
        Ok(()) if !tools::timed() => Ok(()),
        Ok(()) => valid,
        Err(why) => Err(valid.err().unwrap_or_else(|| panic!("{why}"))),
    }
}

/// What is wrong with the answers, if anything.
fn judge_flood(flooded: &Report, best: f64) -> Result<(), String> {
    let (matter, others) = (flooded.ended_of("CRITICAL"), flooded.ended_of("SHEDDABLE"));
    let good = per_second(flooded.ended_with("OK"), flood());
    let told = format!("{matter:?}, {others:?}: {good:.0} a second, of {best:.0} at best");
    say(&told);
    let of = |ended: &BTreeMap<String, u64>, code: &str| ended.get(code).copied().unwrap_or(0);
    let all: u64 = matter.values().sum();
    let failed = all - of(&matter, "OK");
    let all_others: u64 = others.values().sum();
    let refused = of(&others, "OK") + of(&others, "UNAVAILABLE");
    // On a machine that is busy several that matter come at once, and there is no room for those; and
    // the machine may be what is full.
    let (one_of, share) = if tools::timed() {
        (100, 0.9)
    } else {
        (10, 0.5)
    };
    let well = failed * one_of <= all
        && of(&others, "OK") * 5 < all_others
        && refused == all_others
        && good >= share * best;
    well.then_some(())
        .ok_or_else(|| format!("{told}: {}", flooded.errors()))
}

/// Goal: with ten times more calls than it can do, a service does as much as it ever can; those that
/// matter are answered, the others are refused at once and told when to come back; and when the flood
/// is over, all is as before.
/// Method: a known capacity, by the time a call takes and how many of them may be in the handler;
/// 40 % of it is wanted by calls that matter, and all the rest by calls that do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_leaves_what_matters_alone() {
    valid(flooded).await;
}
