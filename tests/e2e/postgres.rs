//! The shop under `gantry up --database`, on a real PostgreSQL.

use gantry_harness::{
    postgres::{self, Postgres},
    system::{Instance, System},
    wait::{self, SOON},
};
use shop_audit::State;

use crate::money::Shop;

fn processes(instances: &[Instance]) -> Vec<(String, Option<u32>, u64)> {
    let one = |it: &Instance| (it.instance.clone(), it.pid, it.restarts);
    instances.iter().map(one).collect()
}

/// Goal: the whole shop works on PostgreSQL as on files; the server can be killed and come back, and
/// no service is started again for it; what was ordered is there the next time.
/// Method: an order; kill the server, order in vain; start it, order again; end `up`, and start it
/// on the same database.
#[tokio::test(flavor = "multi_thread")]
async fn the_shop_lives_in_postgres() {
    let Some(mut server) = Postgres::start().await else {
        return;
    };
    let url = server.url();
    let shop = Shop::open(&["--database", &url]).await;
    let folder = shop.system.folder().join(".gantry/data");
    let files = std::fs::read_dir(folder).expect("a folder");
    let databases = files.flatten().filter(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.ends_with(".db") && name != "etcd.db"
    });
    let databases: Vec<_> = databases.map(|file| file.path()).collect();
    assert!(databases.is_empty(), "{databases:?}");
    shop.customer.order(0).await;
    shop.customer.settled(1, "before").await;
    let before = processes(&shop.system.instances());

    server.kill().await;
    let refused = shop.customer.try_order(1).await.unwrap_err();
    assert_eq!(tonic::Code::Unavailable, refused.code(), "{refused:?}");
    server.restart().await;
    shop.customer.order(1).await;
    let books = shop.customer.settled(2, "after").await;
    let states: Vec<_> = books.orders.values().map(|order| order.state).collect();
    assert_eq!(vec![State::Confirmed; 2], states);
    wait::until("everything to serve again", SOON, async || {
        let rows = shop.system.instances();
        rows.iter().all(|it| it.state == "SERVING").then_some(())
    })
    .await;
    assert_eq!(before, processes(&shop.system.instances()));

    let stopped = shop.system.gantry(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    let shop = shop.again(&["--database", &url]).await;
    shop.customer.order(2).await;
    shop.customer.settled(3, "the next time").await;
}

/// Goal: the password may be in the environment, where no other user can read it, also with services
/// that have no database.
/// Method: start everything so.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_may_be_in_the_environment() {
    let Some(server) = Postgres::start().await else {
        return;
    };
    let password = ("GANTRY_DATABASE__PASSWORD", postgres::PASSWORD);
    let arguments = ["--database", &server.url_without_password()];
    let system = System::up_with(&[password], &arguments);
    assert!(system.instances().iter().all(|it| it.state == "SERVING"));
}
