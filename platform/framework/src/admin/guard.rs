//! Who may ask the side port: no web page.
//!
//! A page that a person on this machine has open can make its own name resolve to 127.0.0.1 and
//! then send requests here (DNS rebinding, etcd's CVE-2018-5702). Such a request names the page's
//! host; programs that mean the side port name an address, `localhost`, or a configured name. The
//! same holds for where a request says it comes from (`Origin`).

use std::net::IpAddr;

use http::{HeaderMap, Uri, header, uri::Authority};

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// It does not say whom it is for.
    #[error("the request names no host")]
    NoHost,
    /// It is for someone else.
    #[error("the request is for another host; add it to admin.hosts to allow it")]
    Host,
    /// A web page sent it.
    #[error("the request comes from a web page")]
    Origin,
}

/// Lets a request pass that means this port; `hosts` are names allowed beside addresses.
pub(super) fn check(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> Result<(), Refused> {
    // HTTP/2 names the host in `:authority`, HTTP/1.1 in `Host`. Where there are both, both count.
    let headed = headers.get_all(header::HOST).iter();
    let headed = headed.map(|value| value.to_str().unwrap_or_default());
    let authority = uri.authority().map(Authority::as_str);
    let mut hosts_named = authority.into_iter().chain(headed).peekable();
    if hosts_named.peek().is_none() {
        return Err(Refused::NoHost);
    }
    if !hosts_named.all(|name| means_us(name, hosts)) {
        return Err(Refused::Host);
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let ours = origins.all(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        origin
            .split_once("://")
            .is_some_and(|(_, host)| means_us(host, hosts))
    });
    if ours { Ok(()) } else { Err(Refused::Origin) }
}

fn means_us(authority: &str, hosts: &[String]) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    // An address cannot be rebound.
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(uri: &str, headers: &[(header::HeaderName, &'static str)]) -> Result<(), Refused> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        check(&uri.parse().unwrap(), &map, &["orders.internal".to_owned()])
    }

    /// Goal: addresses, `localhost` and configured names pass in either version of HTTP.
    /// Method: each as `Host` and as `:authority`.
    #[test]
    fn requests_that_mean_this_port_pass() {
        for host in [
            "127.0.0.1:9000",
            "127.0.0.1",
            "10.1.2.3:9000",
            "[::1]:9000",
            "localhost:9000",
            "LOCALHOST",
            "orders.internal:9000",
        ] {
            let static_host: &'static str = host;
            assert_eq!(
                Ok(()),
                asked("/readyz", &[(header::HOST, static_host)]),
                "{host}"
            );
            assert_eq!(
                Ok(()),
                asked(&format!("http://{host}/readyz"), &[]),
                "{host}"
            );
        }
    }

    /// Goal: a name that someone else controls is refused wherever it stands.
    /// Method: rebound names, look-alikes, two hosts, none.
    #[test]
    fn other_hosts_are_refused() {
        for host in [
            "evil.example:9000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "user@evil.example",
            "a b",
        ] {
            let refused = asked("/readyz", &[(header::HOST, host)]);
            assert_eq!(Err(Refused::Host), refused, "{host}");
        }
        assert_eq!(Err(Refused::Host), asked("http://evil.example/readyz", &[]));
        let two = [(header::HOST, "127.0.0.1"), (header::HOST, "evil.example")];
        assert_eq!(Err(Refused::Host), asked("/readyz", &two));
        let hidden = [(header::HOST, "evil.example")];
        assert_eq!(
            Err(Refused::Host),
            asked("http://127.0.0.1/readyz", &hidden)
        );
        assert_eq!(Err(Refused::NoHost), asked("/readyz", &[]));
    }

    /// Goal: a page of another origin is refused even where it knows the address.
    /// Method: origins of strangers, of sandboxed pages, and of this port.
    #[test]
    fn web_pages_of_strangers_are_refused() {
        let host = (header::HOST, "127.0.0.1:9000");
        for origin in ["https://evil.example", "null", "file://"] {
            let refused = asked("/readyz", &[host.clone(), (header::ORIGIN, origin)]);
            assert_eq!(Err(Refused::Origin), refused, "{origin}");
        }
        let own = (header::ORIGIN, "http://127.0.0.1:9000");
        assert_eq!(Ok(()), asked("/readyz", &[host, own]));
    }
}
