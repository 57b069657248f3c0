//! The keys as command-line flags, made from the table.

use std::path::PathBuf;

use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches,
    builder::{OsStringValueParser, TypedValueParser},
};

use crate::settings::{
    keys::{KEYS, Key},
    layers::Flags,
};

/// `--config`, for every command that reads the configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigFlag {
    /// Configuration file (TOML).
    ///
    /// Without it the first of /etc/enclave/enclave.toml and $XDG_CONFIG_HOME/enclave/enclave.toml that exists is read.
    #[arg(long, value_name = "FILE", env = "ENCLAVE_CONFIG", global = true, value_parser = possibly_empty())]
    pub(crate) config: Option<PathBuf>,
}

/// A path, or nothing: an empty variable counts as not set.
fn possibly_empty() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A flag for every key.
#[derive(Clone, Debug)]
pub(crate) struct AllFlags(pub(crate) Flags);

/// Flags for the keys of the data directory.
#[derive(Clone, Debug)]
pub(crate) struct StateFlags(pub(crate) Flags);

fn is_state(key: &Key) -> bool {
    matches!(key.name, "data_dir" | "database_url")
}

fn augment(command: Command, wanted: fn(&Key) -> bool, global: bool) -> Command {
    KEYS.iter().filter(|key| wanted(key)).fold(command, |command, key| command.arg(arg(key).global(global)))
}

fn arg(key: &'static Key) -> Arg {
    let short = key.help.split_inclusive(". ").next().unwrap_or(key.help).trim_end().trim_end_matches('.');
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.value)
        .help_heading(key.section)
        .help(format!("{short} [default: {}] [env: {}]", key.shown_default(), key.env()))
        .long_help(format!(
            "{}\n\n[default: {}]\n[env: {}] [file: {}]",
            key.help,
            key.shown_default(),
            key.env(),
            key.name
        ))
}

fn collect(matches: &ArgMatches, wanted: fn(&Key) -> bool) -> Flags {
    let given = |key: &'static Key| Some((key.name, matches.get_one::<String>(key.name)?.clone()));
    KEYS.iter().filter(|key| wanted(key)).filter_map(given).collect()
}

macro_rules! flags {
    ($name:ident, $wanted:expr, $global:expr) => {
        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(collect(matches, $wanted)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0.extend(collect(matches, $wanted));
                Ok(())
            }
        }

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                augment(command, $wanted, $global)
            }

            fn augment_args_for_update(command: Command) -> Command {
                augment(command, $wanted, $global)
            }
        }
    };
}

flags!(AllFlags, |key| !key.is_secret(), false);
// Of commands that have commands of their own: taken before and behind those.
flags!(StateFlags, is_state, true);
