//! What is asked of it before there is anything.

use std::sync::Arc;

use futures_util::FutureExt as _;
use prost::Message as _;
use protox::file::File;
use tokio::sync::watch;

use super::{Api, Catalogue, Service};

const COUNTER: &str = r#"
    syntax = "proto3";
    package count.v1;
    message Number {}
    service CountService {
      rpc Up(Number) returns (stream Number);
      rpc Sum(stream Number) returns (Number);
    }
"#;

/// What is known once `count.v1.CountService` has been asked, if it was.
fn known(was_asked: bool) -> Arc<Api> {
    let file = File::from_source("count.proto", COUNTER).unwrap();
    let files = vec![file.file_descriptor_proto().encode_to_vec()];
    let service = Service::read("count.v1.CountService", files).unwrap();
    let services = [("count.v1.CountService".into(), service.into())];
    Arc::new(Api {
        services: services.into_iter().filter(|_| was_asked).collect(),
        is_partial: !was_asked,
        ..Api::default()
    })
}

/// Goal: how many messages a method takes does not hang on how early it is called.
/// Method: asked while nothing has been read, while its service has not, and once it has; of a method
/// that takes one, of one that takes many, and of one that is not there.
#[tokio::test(start_paused = true)]
async fn what_a_method_takes_is_waited_for() {
    for (path, takes_one) in [
        ("/count.v1.CountService/Up", true),
        ("/count.v1.CountService/Sum", false),
        ("/count.v1.CountService/Down", false),
    ] {
        let (read, newest) = watch::channel(None);
        let catalogue = Catalogue { newest };
        let mut asked = Box::pin(catalogue.takes_one(path));
        assert_eq!(None, asked.as_mut().now_or_never(), "{path}: none was read");
        read.send_replace(Some(known(false)));
        assert_eq!(None, asked.as_mut().now_or_never(), "{path}: it was not");
        read.send_replace(Some(known(true)));
        assert_eq!(Some(takes_one), asked.now_or_never(), "{path}");
    }
}

/// Goal: nobody waits for ever.
/// Method: asked while nothing has been read, and of somebody whom no one has registered.
#[tokio::test(start_paused = true)]
async fn what_nobody_describes_is_not_waited_for() {
    let (read, newest) = watch::channel(None);
    let catalogue = Catalogue { newest };
    assert!(!catalogue.takes_one("/count.v1.CountService/Up").await);
    read.send_replace(Some(known(true)));
    let other = catalogue.takes_one("/other.v1.OtherService/Up");
    assert_eq!(Some(false), other.now_or_never());
}
