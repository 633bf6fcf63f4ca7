//! How much a call matters goes with whatever is called for it.

use super::{net::addr, *};
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

fn serving(criticality: Criticality) -> Arc<call::Context> {
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

/// Goal: what is called for a call matters as much as that, or less where its caller says so, never more.
/// Method: calls made within one of each criticality, saying nothing and the most, and outside of any.
#[tokio::test(start_paused = true)]
async fn criticality_goes_with_what_is_called() {
    let net = Net::default();
    let mut requests = noting(&net);
    let caller = Caller::new(&net, &[addr(1)]);
    let said = |headers: &HeaderMap| Criticality::of(headers, true);
    for criticality in Criticality::ALL {
        let call = call::Scoped::new(serving(criticality), caller.check("x"));
        assert!(call.await.is_err());
        assert_eq!(criticality, said(&requests.recv().await.unwrap()));

        let mut request = tonic::Request::new(HealthCheckRequest::default());
        let most = Criticality::CriticalPlus.as_str().parse().unwrap();
        request.metadata_mut().insert("gantry-criticality", most);
        let mut client = caller.client();
        let call = async move { client.check(request).await };
        let call = call::Scoped::new(serving(criticality), call);
        assert!(call.await.is_err());
        assert_eq!(criticality, said(&requests.recv().await.unwrap()));
    }
    assert!(caller.check("x").await.is_err());
    assert!(!requests.recv().await.unwrap().contains_key(&CRITICALITY));
    caller.stop().await;
}
