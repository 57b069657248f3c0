//! docs/configuration.md, made from the table of keys.

use std::fmt::Write;

use crate::settings::keys::{KEYS, Key};

const HEAD: &str = "\
<!-- @generated from crates/server/src/settings/keys.rs; ENCLAVE_UPDATE=1 cargo nextest run -p server reference -->

# Configuration

`enclave serve` reads its configuration once, when it starts. A later source wins over an earlier one:

1. the defaults below;
2. the configuration file, TOML: the one that `--config` (or `ENCLAVE_CONFIG`) names, or else the first of
   `/etc/enclave/enclave.toml` and `$XDG_CONFIG_HOME/enclave/enclave.toml` that exists;
3. the environment: `ENCLAVE_` and the key in capitals;
4. the command line: the key with dashes.

All faults are reported at once, each with the place where it was said, and the server does not start with any.

- A key of the file that does not exist is an error. So is a flag.
- A variable `ENCLAVE_…` that is a letter or two away from a key is an error: it is a typing mistake, and a limit that was
  meant and is not set would be worse than a server that does not start. Other unknown ones are warned of and left alone,
  since orchestrators put variables of their own beside ours. An empty variable counts as not set.
- The file must belong to root or to the user of the server, and be writable by nobody else.
- `ENCLAVE_BASE_URL` and `ENCLAVE_API_KEY` are for clients; the server does not read them.
- A server that `enclave run` or `enclave demo` starts for itself reads the environment and not the file.

Sizes are `512MiB`, `1GiB` or a number of bytes; durations `500ms`, `60s`, `5m`, `24h`, `1d`.

```toml
listen = \"127.0.0.1:8088\"
metrics_listen = \"127.0.0.1:9464\"
max_concurrency = 16
max_memory = \"2GiB\"
```
";

/// The page.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        if section != key.section {
            section = key.section;
            write!(page, "\n## {section}\n").expect("writing to a string");
        }
        let default = match key.default {
            crate::settings::keys::Fallback::Text(text) => format!("`{text}`"),
            crate::settings::keys::Fallback::Described(words) => words.to_owned(),
        };
        write!(
            page,
            "\n### `{}`\n\n{}\n\n- value: `{}`\n- default: {default}\n{}",
            key.name,
            wrap(key.help),
            key.value,
            places(key),
        )
        .expect("writing to a string");
    }
    page
}

/// Where it can be said, besides the file.
fn places(key: &Key) -> String {
    if key.is_secret() {
        return format!("- environment, and nowhere else: `{}`\n", key.env());
    }
    format!("- environment: `{}`\n- flag: `--{}`\n", key.env(), key.flag())
}

/// Breaks lines at 120 characters.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= 120 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        if std::env::var_os("ENCLAVE_UPDATE").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == page(), "docs/configuration.md is stale; run with ENCLAVE_UPDATE=1 to write it again");
    }
}
