//! How much a call matters goes with whatever is called for it.

use super::{
    net::addr,
    retries::{DOWNLOADS, KINDS, TALKS, UNARY, UPLOADS},
    *,
};
use crate::{
    call::{self, TraceContext},
    caller::{CRITICALITY, Criticality},
};

/// A peer that notes what requests say of themselves and lets them hang.
fn noting(net: &Net) -> tokio::sync::mpsc::Receiver<HeaderMap> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let mut listener = net.listen(addr(1));
    spawn(async move {
        while let Some(io) = listener.recv().await {
            let mut connection = h2::server::handshake(io).await.unwrap();
            let mut held = Vec::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                sender.send(request.headers().clone()).await.unwrap();
                held.push((request, respond));
            }
        }
    });
    receiver
}

fn serving(criticality: Option<Criticality>) -> Arc<call::Context> {
    Arc::new(call::Context {
        method: &METHODS[0],
        peer: None,
        deadline: Deadline::after(100 * MS),
        trace: TraceContext::root(false),
        previous_attempts: 0,
        criticality,
        ended: call::Ended::default(),
    })
}

/// Makes a call of a method of [`KINDS`], which may say how much it matters.
async fn begin(mut channel: Channel, kind: usize, own: Option<Criticality>) {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = KINDS[kind].path.parse().unwrap();
    if let Some(own) = own {
        let word = HeaderValue::from_static(own.as_str());
        request.headers_mut().insert(&CRITICALITY, word);
    }
    drop(channel.call(request).await);
}

fn said(headers: &HeaderMap) -> Option<Criticality> {
    Criticality::of(headers, true, None)
}

/// Goal: what is called for a call matters as much as that, or less where its caller says so, never more.
/// Method: calls made within one of each criticality, saying nothing and the most, and outside of any.
#[tokio::test(start_paused = true)]
async fn criticality_goes_with_what_is_called() {
    let net = Net::default();
    let mut requests = noting(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    let said = |headers: &HeaderMap| said(headers).unwrap();
    for criticality in Criticality::ALL {
        let call = call::Scoped::new(serving(Some(criticality)), caller.check("x"));
        assert!(call.await.is_err());
        assert_eq!(criticality, said(&requests.recv().await.unwrap()));

        let mut request = tonic::Request::new(HealthCheckRequest::default());
        let most = Criticality::CriticalPlus.as_str().parse().unwrap();
        request.metadata_mut().insert("gantry-criticality", most);
        let mut client = caller.client();
        let call = async move { client.check(request).await };
        let call = call::Scoped::new(serving(Some(criticality)), call);
        assert!(call.await.is_err());
        assert_eq!(criticality, said(&requests.recv().await.unwrap()));
    }
    // Nobody said anything of these.
    let call = call::Scoped::new(serving(None), caller.check("x"));
    assert!(call.await.is_err());
    assert!(!requests.recv().await.unwrap().contains_key(&CRITICALITY));
    assert!(caller.check("x").await.is_err());
    assert!(!requests.recv().await.unwrap().contains_key(&CRITICALITY));
    caller.stop().await;
}

/// Goal: the policy of a method says how much its calls matter where nobody else does, and is the most
/// they claim; whoever calls, and the call it is done for, may say less and never more.
/// Method: every policy, calls of all four kinds of methods outside of any call, within one of each
/// criticality and within one of which nothing was said, with and without a word of their own.
#[tokio::test(start_paused = true)]
async fn a_policy_says_how_much_calls_matter() {
    let net = Net::default();
    let mut requests = noting(&net);
    for policy in Criticality::ALL {
        let policies = Policy {
            criticality: Some(policy),
            ..Policy::default()
        };
        let caller = Caller::under(&net, &[addr(1)], policies, |_| {});
        for kind in [UNARY, UPLOADS, DOWNLOADS, TALKS] {
            // Dropped as soon as its request was seen.
            let mut make = async |within: Option<Option<Criticality>>, own: Option<Criticality>| {
                let call = begin(caller.clients.channel("peer", &KINDS), kind, own);
                let found = async { requests.recv().await.unwrap() };
                match within {
                    Some(served) => {
                        let call = call::Scoped::new(serving(served), call);
                        tokio::select! { () = call => panic!("nobody answers"), it = found => it }
                    }
                    None => {
                        tokio::select! { () = call => panic!("nobody answers"), it = found => it }
                    }
                }
            };
            assert_eq!(Some(policy), said(&make(None, None).await), "{kind}");
            assert_eq!(Some(policy), said(&make(Some(None), None).await), "{kind}");
            for other in Criticality::ALL {
                let least = Some(policy.min(other));
                assert_eq!(least, said(&make(Some(Some(other)), None).await), "{kind}");
                assert_eq!(least, said(&make(None, Some(other)).await), "{kind}");
            }
        }
        caller.stop().await;
    }
}
