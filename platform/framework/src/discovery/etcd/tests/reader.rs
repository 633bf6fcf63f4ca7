use super::fake::{Fake, Kind};
use crate::discovery::etcd::{Error, pages::ENTRIES_MAX};

/// Goal: whatever else is there, however large, all that may be an instance is read, and each key
/// once.
/// Method: 700 keys of 100 kB and of 10 kB and 20 of etcd's largest size; some of ours around them.
#[tokio::test(start_paused = true)]
async fn large_values_are_no_obstacle() {
    let fake = Fake::new();
    let [large, middle, largest] = [100_000, 10_000, 3 << 19].map(|size| "x".repeat(size));
    for (folder, count, value) in [("b", 700, &large), ("c", 700, &middle), ("d", 20, &largest)] {
        for number in 0..count {
            fake.put(&format!("{folder}/{number:03}"), value);
        }
    }
    for ours in ["a", "bb", "cc", "e"] {
        fake.put(ours, "instance");
    }
    let reader = fake.etcd().reader().await.unwrap();
    let entries = reader.entries("").await.unwrap();
    let mut keys = vec!["a".to_owned(), "bb".to_owned()];
    keys.extend((0..700).map(|number| format!("c/{number:03}")));
    keys.extend(["cc".to_owned(), "e".to_owned()]);
    let read: Vec<_> = entries.into_iter().map(|it| it.key).collect();
    let keys: Vec<_> = keys.into_iter().map(String::into_bytes).collect();
    assert_eq!(keys, read);
    let asked = fake.asked(Kind::Range);
    assert!(asked < 40, "{asked}");
}

/// Goal: a list has a bound.
/// Method: as many keys as it takes, and one more.
#[tokio::test(start_paused = true)]
async fn a_list_is_bounded() {
    let fake = Fake::new();
    for number in 1..=ENTRIES_MAX {
        fake.put(&format!("orders/{number}"), "instance");
    }
    let reader = fake.etcd().reader().await.unwrap();
    let entries = reader.entries("orders/").await.unwrap();
    assert_eq!(ENTRIES_MAX, entries.len());
    fake.put("orders/", "instance");
    let Err(Error::Answer { message, .. }) = reader.entries("orders/").await else {
        panic!("not refused");
    };
    assert_eq!("more than 100000 keys under orders/", message);
}
