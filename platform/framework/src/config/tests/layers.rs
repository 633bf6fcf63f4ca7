//! Which layer has the last word, and where a value comes from.

use super::*;

fn origins(loaded: &Loaded<Root>) -> Vec<(&str, String)> {
    let given = loaded
        .entries()
        .iter()
        .filter(|entry| entry.origin != Origin::Default);
    given
        .map(|entry| (entry.key.as_str(), entry.origin.to_string()))
        .collect()
}

/// Goal: each layer overrides the ones before it, key by key, and every value knows its layer.
/// Method: each layer gives its own key and all those after it.
#[test]
fn a_later_layer_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "default.toml",
        "message_max = 1\nshare = 0.1\nformat = 'json'\nnames = ['d']\n[listen]\nconnections_max = 1",
    );
    write(
        "orders.toml",
        "share = 0.2\nformat = 'json'\nnames = ['s']\n[listen]\nconnections_max = 2",
    );
    write(
        "local.toml",
        "\nformat = 'json'\nnames = ['l']\n[listen]\nconnections_max = 3",
    );

    for sources in [
        Sources::new().folder(folder.path(), "orders"),
        Sources::new().file(folder.path().join("orders.toml")),
    ] {
        let sources = sources
            .variables([
                ("GANTRY_NAMES", "e"),
                ("GANTRY_LISTEN__CONNECTIONS_MAX", "4"),
                ("UNRELATED", "x"),
                ("gantry_names", "not ours"),
            ])
            .set("listen.connections_max=5")
            .set("listen.connections_max=6");
        let loaded = load::<Root>(sources).expect("valid");

        let config = loaded.config();
        assert_eq!(Size::bytes(1), config.message_max);
        assert!((config.share - 0.2).abs() < f64::EPSILON);
        assert_eq!(vec!["e".to_owned()], config.names);
        assert_eq!(6, config.listen.connections_max);
        let path = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(
            vec![
                ("listen.connections_max", "--set".to_owned()),
                ("format", format!("{}:2", path("local.toml"))),
                ("message_max", format!("{}:1", path("default.toml"))),
                ("share", format!("{}:1", path("orders.toml"))),
                ("names", "GANTRY_NAMES".to_owned()),
            ],
            origins(&loaded)
        );
    }
}

/// Goal: a file that was named has to be there; those beside it do not.
/// Method: name one that is not there, one that is not text, one that is a folder.
#[test]
fn a_named_file_that_cannot_be_read_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.toml");
    let refused = |expected: &str| {
        let faults = load::<Root>(Sources::new().file(&path)).expect_err("at fault");
        assert_eq!(
            format!("{}: cannot be read: {expected}", path.display()),
            faults.to_string()
        );
    };

    assert_eq!(
        Root::default(),
        good(Sources::new().folder(folder.path(), "orders"))
    );
    refused("No such file or directory (os error 2)");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    refused("stream did not contain valid UTF-8");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("Is a directory (os error 21)");
}

/// Goal: two structs are read from one root, each with its own keys and none of the other's
/// taken for unknown.
/// Method: give one key of each, and one of neither.
#[test]
fn two_structs_share_a_root() {
    let sources = |toml: &str| Sources::new().text("a.toml", toml);
    let loaded = load::<Both<Listen, Retry>>(sources("connections_max = 7\nwait_min = '1s'"));
    let loaded = loaded.expect("valid");
    assert_eq!(7, loaded.config().first.connections_max);
    assert_eq!(Duration::from_secs(1), loaded.config().second.wait_min);

    let faults = load::<Both<Listen, Retry>>(sources("wait_mim = '1s'")).expect_err("at fault");
    assert_eq!(
        "a.toml:1: unknown key wait_mim; did you mean wait_min?",
        faults.to_string()
    );
    // The rules of each are applied.
    let faults = load::<Both<Listen, Retry>>(sources("wait_min = '1h'")).expect_err("at fault");
    assert_eq!(
        "default: wait_max = \"2s\": expected no less than wait_min",
        faults.to_string()
    );
}

/// Goal: sizes are read as people write them and shown so that they read back.
/// Method: a table of both.
#[test]
fn sizes_read_back_as_they_are_shown() {
    let cases = [
        ("'4MiB'", 4 << 20, "4MiB"),
        ("'64 KiB'", 64 << 10, "64KiB"),
        ("'1.5 KiB'", 1_536, "1536B"),
        ("'5kB'", 5_000, "5000B"),
        ("1024", 1_024, "1KiB"),
        ("0", 0, "0B"),
    ];
    for (text, bytes, shown) in cases {
        let size = good(sources(&format!("message_max = {text}"))).message_max;
        assert_eq!((bytes, shown.to_owned()), (size.as_u64(), size.to_string()));
        let again = good(sources(&format!("message_max = '{size}'"))).message_max;
        assert_eq!(size, again);
    }
}
