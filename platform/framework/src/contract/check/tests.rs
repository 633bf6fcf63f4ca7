//! Each check with values on both sides of it.

use super::*;

fn check(checked: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
    for value in good {
        assert!(checked(value), "{value:?} should pass");
    }
    for value in bad {
        assert!(!checked(value), "{value:?} should not pass");
    }
}

#[test]
fn emails() {
    let long = format!("a@{}.com", "b".repeat(64));
    check(
        email,
        &[
            "a@b",
            "ada.lovelace+1@example.co.uk",
            "!#$%&'*+/=?^_`{|}~-@x",
        ],
        &[
            "", "@", "a@", "@b", "a", "a b@c", "a@b@c", "a@-b", "a@b-", "a@b..c", "ä@b", "a@b.",
            &long,
        ],
    );
}

#[test]
fn host_names() {
    let long = format!("{}.com", "a".repeat(64));
    let whole = format!("{}com", "abc.".repeat(63));
    check(
        hostname,
        &["localhost", "a.b-c.example", "A.B", "1a.2b", "example.com."],
        &[
            "", ".", "a..b", "-a", "a-", "a_b", "1.2.3.4", "a.1", "ä.de", &long, &whole,
        ],
    );
}

#[test]
fn addresses() {
    check(
        ipv4,
        &["0.0.0.0", "255.255.255.255"],
        &["", "256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4 ", "::1"],
    );
    check(
        ipv6,
        &[
            "::",
            "::1",
            "2001:db8::8a2e:370:7334",
            "::ffff:1.2.3.4",
            "fe80::1%eth0",
        ],
        &["", "1.2.3.4", ":::", "fe80::1%", "12345::", "[::1]"],
    );
    check(ip, &["1.2.3.4", "::1"], &["", "example.com"]);
}

#[test]
fn identifiers() {
    check(
        uuid,
        &[
            "00000000-0000-0000-0000-000000000000",
            "01890A5D-ac96-774b-bcce-b302099a8057",
        ],
        &[
            "",
            "00000000000000000000000000000000",
            "00000000-0000-0000-0000-00000000000g",
            "00000000-0000-0000-0000-0000000000000",
            "000000000-000-0000-0000-000000000000",
        ],
    );
    check(
        tuuid,
        &["01890a5dac96774bbcceb302099a8057"],
        &[
            "",
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5dac96774bbcceb302099a805",
        ],
    );
    check(
        ulid,
        &["01ARZ3NDEKTSV4RRFFQ69G5FAV", "7zzzzzzzzzzzzzzzzzzzzzzzzz"],
        &[
            "",
            "81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        ],
    );
}

#[test]
fn uris() {
    check(
        uri,
        &[
            "https://user:pass@example.com:8080/a/b%20c?d=e&f#g",
            "mailto:ada@example.com",
            "urn:isbn:0451450523",
            "file:///etc/hosts",
            "http://[::1]:80/",
            "http://[fe80::1%25eth0]/",
            "http://[v7.a:b]/",
            "x:",
            "a+b-c.1://",
        ],
        &[
            "",
            "example.com",
            "/a/b",
            "//example.com",
            "1http://a",
            "http://a b",
            "http://a/%2",
            "http://a/%zz",
            "http://[::1",
            "http://[::1]a",
            "http://a:b/",
            "http://a/#b#c",
            "http://a/\"b\"",
            "ht_tp://a",
            "http://ä",
        ],
    );
}

#[test]
fn parts_of_bytes() {
    assert!(bytes_contain(b"abcd", b"bc"));
    assert!(bytes_contain(b"", b""));
    assert!(!bytes_contain(b"abcd", b"ca"));
    assert!(!bytes_contain(b"a", b"ab"));
}

#[test]
fn repeated_items() {
    assert!(unique::<i32>([]));
    assert!(unique([1, 2, 3]));
    assert!(!unique([1, 2, 1]));
}

#[test]
fn now_is_after_this_was_written() {
    assert!(now() > 1_700_000_000_000_000_000);
}
