//! Taking a port, and not taking it.

use tokio::net::TcpStream;

use super::*;

fn refused(config: &Config) -> BindError {
    Listener::bind(config, shared(limits())).expect_err("refused")
}

/// Goal: a taken port is one line that names the setting, the port and who holds it.
/// Method: bind twice; the holder is this very process.
#[tokio::test]
async fn a_taken_port_names_its_holder() {
    let (address, _handle) = on_loopback(&Config::default(), limits());
    let error = refused(&Config {
        address,
        ..Config::default()
    });
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let (name, id) = (name.trim(), std::process::id());
    let port = address.port();
    assert_eq!(
        format!("listen.address {address}: port {port} is taken by {name} (process {id})"),
        error.to_string()
    );
}

/// Goal: plaintext leaves the machine only if that was said.
/// Method: every address of this machine, without and with the word.
#[tokio::test]
async fn plaintext_stays_on_loopback_unless_said() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let address = address.parse().unwrap();
        let config = Config {
            address,
            ..Config::default()
        };
        let error = refused(&config).to_string();
        assert!(error.contains("listen.insecure = true"), "{error}");
        let insecure = Config {
            insecure: true,
            ..config
        };
        if let Err(error) = Listener::bind(&insecure, shared(limits())) {
            // A machine may have no IPv6; it then says so, and nothing of plaintext.
            assert!(matches!(error, BindError::Address { .. }), "{error}");
        }
    }
}

/// Goal: a socket that someone else bound is served like one of ours.
/// Method: bind it outside, adopt it, call.
#[tokio::test]
async fn a_bound_socket_is_adopted() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();

    let handle = start(Listener::adopt(socket, shared(limits())).unwrap());

    assert_eq!(Some(address), handle.local_addr());
    let wire = Wire::over(TcpStream::connect(address).await.unwrap()).await;
    let reply = wire.call(Wire::request(PATH), b"").await.unwrap();
    assert_eq!(200, reply.status.as_u16());
}

/// Goal: sockets do not wait to send, and do not wait for ever for an acknowledgement.
/// Method: read the options back.
#[tokio::test]
async fn sockets_have_their_options() {
    let (address, _handle) = on_loopback(&Config::default(), limits());
    let stream = TcpStream::connect(address).await.unwrap();
    connection::set_options(&stream, &limits()).unwrap();
    assert!(stream.nodelay().unwrap());
    let timeout = rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
    assert_eq!(20_000, timeout);
}

/// Goal: a drained listener gives its port back.
/// Method: drain it, bind the port again.
#[tokio::test]
async fn a_drained_port_is_free() {
    let (address, handle) = on_loopback(&Config::default(), limits());
    handle.drain();
    handle.closed().await;
    let config = Config {
        address,
        ..Config::default()
    };
    drop(Listener::bind(&config, shared(limits())).expect("free again"));
}
