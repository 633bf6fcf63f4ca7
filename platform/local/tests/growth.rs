//! What the local etcd takes while it is written to without end: memory, and its file.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{fs, net::SocketAddr, path::Path};

use etcd_client::{Client, DeleteOptions, GetOptions, GetResponse};
use gantry::{config::Size, journal::Journal, shutdown::Tasks};
use gantry_local::etcd::{Config, Data, Etcd, Listen};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Lets `work` use a server of `config`, which is gone afterwards.
async fn with<T>(config: Config, work: impl AsyncFnOnce(Client) -> T) -> T {
    let etcd = Etcd::open(config).unwrap();
    let client = Client::connect([etcd.handle().url()], None).await.unwrap();
    tokio::select! {
        ended = etcd.run(Tasks::new(Journal::new())) => panic!("it ended: {ended:?}"),
        worked = work(client) => worked,
    }
}

fn kept(folder: &Path) -> Config {
    Config {
        data: Data::Folder(folder.to_owned()),
        listen: Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..Config::default()
    }
}

/// Puts a key; the revision of that.
async fn put(client: &mut Client, key: &str, size: usize) -> i64 {
    let answer = client.put(key, vec![b'x'; size], None).await.unwrap();
    answer.header().unwrap().revision()
}

async fn read(client: &mut Client, revision: i64) -> Result<GetResponse, etcd_client::Error> {
    let options = GetOptions::new().with_revision(revision);
    client.get("k", Some(options)).await
}

/// Goal: few large values take no more memory than history may take, also after a restart.
/// Method: a key written over and over, far below the bound of revisions; what was last is still
/// read, what was first is gone, and the size says so. Then the same of what was in the file.
#[tokio::test]
async fn history_is_bounded_by_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let small = || Config {
        history_bytes_max: Size::mib(1),
        ..kept(folder.path())
    };
    let unbounded = Config {
        history_bytes_max: Size::mib(100),
        ..kept(folder.path())
    };
    let size = async |client: &mut Client| {
        let status = client.status().await.unwrap();
        usize::try_from(status.raft_used_db_size()).unwrap()
    };
    with(unbounded, async |mut client| {
        for _ in 0..64 {
            put(&mut client, "k", 64 * KIB).await;
        }
        assert!(size(&mut client).await > 4 * MIB, "it is unbounded");
        assert!(read(&mut client, 2).await.is_ok(), "nothing is forgotten");
    })
    .await;

    for _ in 0..2 {
        with(small(), async |mut client| {
            // The first write after the start is enough.
            let mut last = put(&mut client, "k", 64 * KIB).await;
            for _ in 0..40 {
                let size = size(&mut client).await;
                assert!(size < MIB + MIB / 2, "{size}");
                last = put(&mut client, "k", 64 * KIB).await;
            }
            let refused = read(&mut client, 2).await.unwrap_err();
            assert!(refused.to_string().contains("compacted"), "{refused}");
            let old = read(&mut client, last - 10).await.unwrap();
            assert_eq!(last - 10, old.kvs()[0].mod_revision());
        })
        .await;
    }
}

/// Makes a file of more than 30 MB that holds little.
async fn grown(folder: &Path) {
    with(kept(folder), async |mut client| {
        for number in 0..40 {
            put(&mut client, &format!("large/{number}"), MIB - KIB).await;
        }
        put(&mut client, "k", MIB - KIB).await;
        let options = DeleteOptions::new().with_prefix();
        client.delete("large/", Some(options)).await.unwrap();
        let last = put(&mut client, "other", 1).await;
        client.compact(last, None).await.unwrap();
    })
    .await;
    assert!(length(folder) > 30_000_000, "{} bytes", length(folder));
}

fn length(folder: &Path) -> u64 {
    fs::metadata(folder.join("etcd.redb")).unwrap().len()
}

/// Goal: a file that has grown does not stay so for ever.
/// Method: many large keys, all but the last deleted and compacted away. The file gives nothing
/// back for that, as what is left is at its end; once it is opened again it does.
#[tokio::test]
async fn a_grown_file_shrinks_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    grown(folder.path()).await;
    for _ in 0..2 {
        with(kept(folder.path()), async |mut client| {
            let there = read(&mut client, 0).await.unwrap();
            assert_eq!(MIB - KIB, there.kvs()[0].value().len());
        })
        .await;
        let length = length(folder.path());
        assert!(length < 8_000_000, "{length} bytes");
    }
}

/// Goal: a file that cannot shrink is served from as it is.
/// Method: such a file with a savepoint, which keeps it from that; read and write.
#[tokio::test]
async fn a_file_that_cannot_shrink_is_used_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    grown(folder.path()).await;
    let database = redb::Database::open(folder.path().join("etcd.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.persistent_savepoint().unwrap();
    write.commit().unwrap();
    drop(database);
    with(kept(folder.path()), async |mut client| {
        let there = read(&mut client, 0).await.unwrap();
        assert_eq!(MIB - KIB, there.kvs()[0].value().len());
        put(&mut client, "k", 1).await;
    })
    .await;
    assert!(length(folder.path()) > 30_000_000);
}
