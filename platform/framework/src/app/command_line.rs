//! What every service's command line understands.

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser, value_parser};

use super::Identity;

/// What a service was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// The service's own configuration file; the shared ones come from its folder.
    pub(super) config: Option<PathBuf>,
    /// Show the configuration instead of running.
    pub(super) print_config: bool,
    /// Single keys, in the order given.
    pub(super) overrides: Vec<String>,
}

/// Reads the command line, program name first.
///
/// # Errors
///
/// What clap makes of `--help`, `--version` and mistakes; it knows where to print each and the
/// exit code.
pub(super) fn parse(
    identity: &Identity,
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<CommandLine, clap::Error> {
    let mut command = command(identity);
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    let overrides: Vec<String> = matches.remove_many("set").into_iter().flatten().collect();
    for text in &overrides {
        if !text.contains('=') {
            return Err(command.error(
                clap::error::ErrorKind::ValueValidation,
                format!(
                    "--set {text}: expected KEY=VALUE, such as --set listen.address=127.0.0.1:7001"
                ),
            ));
        }
    }
    Ok(CommandLine {
        config: matches.remove_one("config"),
        print_config: matches.get_flag("print-config"),
        overrides,
    })
}

fn command(identity: &Identity) -> Command {
    Command::new(identity.name)
        .version(identity.version)
        .about(identity.description)
        .after_help(manual(identity.name))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("Read the service's configuration from this file"),
        )
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .value_parser(NonEmptyStringValueParser::new())
                .help("Set one configuration key; may be given again"),
        )
        .arg(
            Arg::new("print-config")
                .long("print-config")
                .action(ArgAction::SetTrue)
                .help("Print every key with its value, where it came from and what it does, then exit"),
        )
}

fn manual(name: &str) -> String {
    let variable = "GANTRY_<SECTION>__<KEY>";
    format!(
        "\
Configuration, the later wins:
  defaults built in
  config/default.toml           shared by all services
  config/{name}.toml            this service; --config names another, and its folder
  config/local.toml             this machine
  {variable}       such as GANTRY_LISTEN__ADDRESS=127.0.0.1:7001
  --set KEY=VALUE               such as --set telemetry.log_level=debug

Signals:
  SIGTERM, SIGINT   finish what is in flight and exit; a second one exits at once
  SIGHUP            read the configuration again; so does a change of its files

Exit codes:
  0 fine, 1 failed, 2 usage or configuration, 130 second signal"
    )
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    const IDENTITY: Identity = Identity {
        name: "orders",
        version: "1.2.3",
        description: "Takes orders.",
    };

    fn parse_words(words: &[&str]) -> Result<CommandLine, clap::Error> {
        parse(&IDENTITY, ["orders"].iter().chain(words))
    }

    /// Goal: every flag is read, and nothing is required.
    /// Method: none of them, then all of them.
    #[test]
    fn flags_are_read() {
        assert_eq!(CommandLine::default(), parse_words(&[]).unwrap());
        let read = parse_words(&[
            "--config",
            "config/orders.toml",
            "--print-config",
            "--set",
            "listen.address=127.0.0.1:7001",
            "--set",
            "database.url = sqlite://a?b=c",
        ]);
        let expected = CommandLine {
            config: Some("config/orders.toml".into()),
            print_config: true,
            overrides: vec![
                "listen.address=127.0.0.1:7001".into(),
                "database.url = sqlite://a?b=c".into(),
            ],
        };
        assert_eq!(expected, read.unwrap());
    }

    /// Goal: a mistake is a usage error (exit code 2) that says what was expected.
    /// Method: one of each.
    #[test]
    fn mistakes_are_usage_errors() {
        for words in [&["--set", "verbose"][..], &["--unknown"], &["serve"]] {
            let error = parse_words(words).unwrap_err();
            assert_eq!(2, error.exit_code(), "{words:?}");
        }
        let error = parse_words(&["--set", "verbose"]).unwrap_err();
        assert!(error.to_string().contains("KEY=VALUE"), "{error}");
    }

    /// Goal: the help teaches where settings come from and what ends the program.
    /// Method: ask for it.
    #[test]
    fn help_names_files_signals_and_exit_codes() {
        let help = parse_words(&["--help"]).unwrap_err();
        assert_eq!(ErrorKind::DisplayHelp, help.kind());
        let text = help.to_string();
        for part in [
            "config/orders.toml",
            "GANTRY_",
            "SIGTERM",
            "130",
            "Takes orders.",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let version = parse_words(&["--version"]).unwrap_err();
        assert_eq!("orders 1.2.3\n", version.to_string());
    }
}
