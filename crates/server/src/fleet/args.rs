//! From the command line to a request for a fleet.

use std::path::{Path, PathBuf};

use clap::Args;
use wire::{Completion, CreateFleet, FleetBudget, FleetMembers, FleetTemplate, JsonText, MAX_JSON_DEPTH};

use crate::{
    run::request::{ProgramArgs, ProgramError, bytes},
    settings::values,
};

/// For help and for docs/cli.md.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    the fleet succeeded
  1    it failed: its completion could not be met
  2    the command line is wrong, or the server refused the request
  3    the server cannot be reached, is busy, or there is no backend
  130  cancelled (Ctrl-C)
  137  a budget was used up";

/// A program, its inputs, and how to run them.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) program: ProgramArgs,
    /// File with one JSON value a line, an input for each member; - for standard input
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "count",
        conflicts_with = "count",
        help_heading = "Fleet"
    )]
    inputs: Option<PathBuf>,
    /// So many members, with the inputs 0, 1, 2 and so on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Fleet")]
    count: Option<u32>,
    /// Members at the same time [default: as many as the server runs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Fleet")]
    ceiling: Option<u32>,
    /// When the fleet has succeeded: all, first_success or quorum:N
    #[arg(long, value_name = "WHEN", default_value = "all", value_parser = completion, help_heading = "Fleet")]
    completion: Completion,
    /// CPU time of all members together, 10m for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Fleet")]
    budget_cpu: Option<u64>,
    /// Time of all members together
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Fleet")]
    budget_wall: Option<u64>,
    /// Bytes of all members together on the network, 100MiB for example
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Fleet")]
    budget_egress: Option<u64>,
    /// Calls of bindings of all members together
    #[arg(long, value_name = "N", help_heading = "Fleet")]
    budget_calls: Option<u64>,
    /// What to call the fleet [default: the name of the file]
    #[arg(long, value_name = "NAME", help_heading = "Fleet")]
    name: Option<String>,
    /// Backend to run on: gvisor or simulator [default: the strongest that works; the server's own with --server]
    #[arg(long, value_name = "NAME")]
    pub(super) backend: Option<String>,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{}, line {line}: {source}", path.display())]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
}

impl RunArgs {
    /// Reads the program and the inputs, and puts the request together.
    pub(super) fn request(self) -> Result<CreateFleet, InputError> {
        let inputs = match (&self.inputs, self.count) {
            (Some(path), _) => lines(path)?,
            (None, count) => {
                (0..count.unwrap_or_default()).map(|index| serde_json::Value::from(index).into()).collect()
            }
        };
        let budget = FleetBudget {
            cpu_ms: self.budget_cpu,
            wall_ms: self.budget_wall,
            egress_bytes: self.budget_egress,
            binding_calls: self.budget_calls,
        };
        let name = self.name.or_else(|| self.program.name()).unwrap_or_else(|| "fleet".to_owned());
        let template = self.program.request()?.inline()?;
        Ok(CreateFleet {
            name,
            members: FleetMembers::Template(Box::new(FleetTemplate { template, inputs })),
            max_concurrency: self.ceiling,
            budget: (budget != FleetBudget::default()).then_some(budget),
            completion: self.completion,
            labels: std::collections::BTreeMap::new(),
        })
    }
}

/// One input a line; empty lines are none.
fn lines(path: &Path) -> Result<Vec<JsonText>, InputError> {
    let bytes = bytes(path)?;
    let lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |(index, line): (usize, &[u8])| {
        JsonText::parse(line, MAX_JSON_DEPTH).map_err(|source| InputError::Line {
            path: path.to_owned(),
            line: index + 1,
            source,
        })
    };
    lines.map(read).collect()
}

fn completion(text: &str) -> Result<Completion, String> {
    match (text, text.strip_prefix("quorum:").map(str::parse)) {
        ("all", _) => Ok(Completion::All),
        ("first_success", _) => Ok(Completion::FirstSuccess),
        (_, Some(Ok(quorum))) => Ok(Completion::Quorum(quorum)),
        (_, Some(Err(_)) | None) => Err(format!("{text:?} is none of all, first_success and quorum:N")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn request(words: &[&str]) -> Result<CreateFleet, String> {
        let line = Line::try_parse_from([&["run"], words].concat()).map_err(|error| error.to_string())?;
        line.run.request().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_becomes_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let (program, inputs) = (dir.path().join("shard.py"), dir.path().join("inputs.jsonl"));
        std::fs::write(&program, "enclave.result(1)").unwrap();
        std::fs::write(&inputs, "{\"a\": 1.50}\n\n  [2]\r\n\"x\"").unwrap();
        let (program, inputs) = (program.to_str().unwrap(), inputs.to_str().unwrap());
        let line = "--ceiling 8 --completion quorum:2 --budget-cpu 10s --budget-calls 5 --memory 64MiB";
        let mut words = vec![program, "--inputs", inputs];
        words.extend(line.split_whitespace());
        let asked = request(&words).unwrap();
        assert_eq!((asked.name.as_str(), asked.max_concurrency), ("shard.py", Some(8)));
        assert_eq!(asked.completion, Completion::Quorum(2));
        let budget = FleetBudget { cpu_ms: Some(10_000), binding_calls: Some(5), ..FleetBudget::default() };
        assert_eq!(asked.budget, Some(budget));
        let FleetMembers::Template(template) = asked.members else { panic!("a template") };
        assert_eq!(template.template.limits.memory_bytes, Some(64 << 20));
        let texts: Vec<_> = template.inputs.iter().map(JsonText::as_str).collect();
        assert_eq!(texts, ["{\"a\":1.50}", "[2]", "\"x\""]);

        let asked = request(&[program, "--count", "3", "--name", "three"]).unwrap();
        let FleetMembers::Template(template) = asked.members else { panic!("a template") };
        assert_eq!((asked.name.as_str(), template.inputs.len(), asked.budget), ("three", 3, None));
    }

    #[test]
    fn what_cannot_be_understood_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (program, inputs) = (dir.path().join("a.py"), dir.path().join("inputs"));
        std::fs::write(&program, "1").unwrap();
        std::fs::write(&inputs, "1\n{").unwrap();
        let (program, inputs) = (program.to_str().unwrap(), inputs.to_str().unwrap());
        assert!(request(&[program, "--inputs", inputs]).unwrap_err().contains("line 2"));
        for words in [
            &[program][..],
            &[program, "--count", "0"],
            &[program, "--count", "1", "--inputs", inputs],
            &[program, "--count", "1", "--completion", "most"],
            &[program, "--count", "1", "--completion", "quorum:x"],
        ] {
            assert!(request(words).is_err(), "{words:?}");
        }
    }
}
