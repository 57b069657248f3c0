//! The programs of the suite: real sources, each with the script of what can be observed of it.

use model::Language;

/// One program in both languages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    python: &'static str,
    node: &'static str,
}

impl Program {
    /// A script alone, for what only a model of a runner can do. `#` is the comment of Python.
    pub(super) const fn model(script: &'static str) -> Self {
        Self { python: script, node: "" }
    }

    /// A program of a line or two, which the simulator recognises without a script.
    pub(super) const fn text(python: &'static str, node: &'static str) -> Self {
        Self { python, node }
    }

    pub(super) fn source(self, language: Language) -> &'static str {
        match language {
            Language::Python => self.python,
            Language::Node => self.node,
        }
    }
}

macro_rules! programs {
    ($($name:ident = $file:literal),+ $(,)?) => {
        $(pub(super) const $name: Program = Program {
            python: include_str!(concat!("programs/", $file, ".py")),
            node: include_str!(concat!("programs/", $file, ".js")),
        };)+

        #[cfg(test)]
        const ALL: &[Program] = &[$($name),+];
    };
}

programs! {
    BALLOON = "balloon",
    BUSY = "busy",
    CHATTY = "chatty",
    EXCEPTION = "exception",
    EXIT_CODE = "exit_code",
    FILLER = "filler",
    FORKS = "forks",
    HALF_FULL = "half_full",
    HONEST = "honest",
    INPUTS = "inputs",
    MIRROR = "mirror",
    PARENT = "parent",
    PATIENT = "patient",
    SIGNAL = "signal",
    SPIN = "spin",
    THREADS = "threads",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_a_program_have_the_same_script() {
        for program in ALL {
            let script = |source: &str, comment: &str| -> Vec<String> {
                let marked = format!("{comment} sim: ");
                source.lines().filter_map(|line| line.strip_prefix(&marked).map(str::to_owned)).collect()
            };
            let python = script(program.source(Language::Python), "#");
            let node = script(program.source(Language::Node), "//");
            let without_types = |lines: Vec<String>| -> Vec<_> {
                lines.into_iter().map(|line| line.replace("raise ValueError", "raise Error")).collect()
            };
            assert!(!python.is_empty(), "{program:?}");
            assert_eq!(without_types(python), without_types(node));
        }
    }
}
