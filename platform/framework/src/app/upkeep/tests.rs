use std::{
    pin::pin,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt as _;

use super::*;
use crate::config::Publisher;

/// Goal: a change is followed whenever it comes, and nothing is applied that never changed.
/// Method: publish before the task's first step, or after it, or never.
#[tokio::test]
async fn a_change_is_followed_whenever_it_comes() {
    for (before, after, expected) in [
        (vec![], vec![], vec![]),
        (vec![2], vec![], vec![2]),
        (vec![], vec![3], vec![3]),
        (vec![2, 3], vec![4], vec![3, 4]),
    ] {
        let mut publisher = Publisher::new(1_u32);
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let apply = move |value: &u32| seen.lock().unwrap().push(*value);
        let mut following = pin!(follow(publisher.live(), CancellationToken::new(), apply));

        for value in before {
            publisher.publish(value);
        }
        assert!(following.as_mut().now_or_never().is_none(), "it goes on");
        for value in after {
            publisher.publish(value);
            assert!(following.as_mut().now_or_never().is_none(), "it goes on");
        }

        assert_eq!(expected, *applied.lock().unwrap());
    }
}
