//! `enclave fleet run`: from the request to the last result.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use client::{Client, ClientError, ListMembers, Retry};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use wire::{CreateFleet, Fleet, FleetCounts, FleetFrame, FleetId, FleetMember, FleetResult, MemberPhase};

use super::{args::RunArgs, exit_code, verdict};
use crate::{
    embedded::{Embedded, EmbeddedOptions},
    run::{exit, report, terminal::plain},
    settings::ConfigError,
    signals::Signals,
};

/// Members that were not successful and get a line of their own where there is no terminal; the rest is counted.
const MAX_LINES: u32 = 100;
/// How often the state is asked for when the stream was lost.
const POLL: Duration = Duration::from_secs(1);

pub(super) async fn run(args: RunArgs, url: Option<String>, json: bool) -> anyhow::Result<ExitCode> {
    let signals = Signals::take()?;
    tokio::spawn({
        let signals = signals.clone();
        async move {
            signals.at_least(3).await;
            std::process::exit(exit::CANCELLED.into());
        }
    });
    let backend = args.backend.clone();
    let request = match args.request() {
        Ok(request) => request,
        Err(error) => return Ok(give_up(&[error.to_string()], exit::REFUSED)),
    };
    if let Some(url) = url {
        let client = match client::key_from_env().and_then(|key| Client::new(&url, key)) {
            Ok(client) => client,
            Err(error) => return Ok(give_up(&[error.chain()], exit::REFUSED)),
        };
        if client.is_in_clear() {
            say("the server is reached by plain HTTP: the API key can be read on the network on its way");
        }
        return Ok(fleet(&client, &with_backend(request, backend), &signals, json).await.into());
    }
    let embedded = match Embedded::start(EmbeddedOptions { backend, ..EmbeddedOptions::default() }).await {
        Ok(embedded) => embedded,
        Err(error) => {
            let code = if error.is::<ConfigError>() { exit::REFUSED } else { exit::UNREACHABLE };
            return Ok(give_up(&[format!("{error:#}")], code));
        }
    };
    let client = embedded.client().with_retry(Retry { attempts: 2, ..Retry::default() });
    let code = fleet(&client, &request, &signals, json).await;
    // Said, but the fleet's verdict stays the exit code.
    if let Err(error) = embedded.shutdown().await {
        say(&format!("the server did not end cleanly: {error:#}"));
    }
    Ok(code.into())
}

fn with_backend(mut request: CreateFleet, backend: Option<String>) -> CreateFleet {
    if let wire::FleetMembers::Template(template) = &mut request.members {
        template.template.backend = backend;
    }
    request
}

/// Runs the fleet to its end, and gives the exit code.
async fn fleet(client: &Client, request: &CreateFleet, signals: &Signals, json: bool) -> u8 {
    let created = tokio::select! {
        created = client.create_fleet(request) => created,
        () = signals.at_least(2) => {
            say("the server may have made the fleet");
            return exit::CANCELLED;
        }
    };
    let created = match created {
        Ok(created) => created,
        Err(error) => return refused(client, &error),
    };
    let cancelling = tokio::spawn({
        let (client, signals, id) = (client.clone(), signals.clone(), created.id);
        async move {
            signals.at_least(1).await;
            say("cancelling; waiting until the members have ended");
            // The stream tells what became of it.
            let _ = client.cancel_fleet(id).await;
        }
    });
    let followed = follow(client, &created).await;
    cancelling.abort();
    match followed {
        Ok((fleet, results)) => match print(&fleet, &results, json) {
            Ok(()) => exit_code(&fleet),
            Err(_) => exit::CLOSED,
        },
        Err(error) => {
            say(&format!("{} could not be followed to its end, and goes on without a reader", created.id));
            refused(client, &error);
            exit::UNREACHABLE
        }
    }
}

/// Shows what comes until the end, then gives the fleet and its results as they are then.
async fn follow(client: &Client, created: &Fleet) -> Result<(Fleet, Vec<FleetResult>), ClientError> {
    let mut board = Board::new(created);
    let mut frames = client.fleet_stream(created.id, 0);
    while let Some(frame) = frames.next().await {
        match frame?.1 {
            FleetFrame::Member(member) => board.member(&member),
            FleetFrame::Progress(progress) => board.progress(&progress.counts),
            FleetFrame::End(_) => {}
        }
    }
    board.finish();
    let mut fleet = client.fleet(created.id).await?;
    while !fleet.phase.is_terminal() {
        tokio::time::sleep(POLL).await;
        fleet = client.fleet(created.id).await?;
    }
    say(&verdict(&fleet));
    Ok((fleet, results(client, created.id).await?))
}

async fn results(client: &Client, id: FleetId) -> Result<Vec<FleetResult>, ClientError> {
    let (mut all, mut which) = (Vec::new(), ListMembers::default());
    loop {
        let page = client.fleet_results(id, &which).await?;
        all.extend(page.items);
        which.cursor = page.next_cursor;
        if which.cursor.is_none() {
            return Ok(all);
        }
    }
}

/// stdout: one line for each member, or one object.
fn print(fleet: &Fleet, results: &[FleetResult], as_json: bool) -> io::Result<()> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut stdout = io::BufWriter::new(stdout.lock());
    if as_json {
        let mut object = json!({ "fleet": fleet });
        object["results"] = serde_json::to_value(results).unwrap_or_default();
        writeln!(stdout, "{object}")?;
    } else {
        for result in results {
            let given = result.result.as_ref().map_or("", wire::JsonText::as_str);
            let line = format!("{}\t{}\t{given}", result.index, result.phase.as_str());
            // A pipe gets the JSON as it is.
            writeln!(stdout, "{}", if terminal { plain(&line) } else { line })?;
        }
    }
    stdout.flush()
}

/// What happens, on stderr: a bar with a table above it that fills, or plain lines where there is no terminal.
struct Board {
    bar: Option<ProgressBar>,
    total: u32,
    lines: u32,
    /// Tenths of the members that were told of as over.
    tenths: u32,
}

impl Board {
    fn new(fleet: &Fleet) -> Self {
        let total = fleet.counts.total;
        let bar = io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{bar:40} {pos}/{len}  {elapsed}  {msg}").expect("a valid template");
            let bar = ProgressBar::with_draw_target(Some(total.into()), ProgressDrawTarget::stderr()).with_style(style);
            bar.println(format!("{:>6}  {:<9}  {:>8}  {:>8}  why", "#", "phase", "ms", "cpu ms"));
            bar
        });
        say(&format!("{}, {total} members", fleet.id));
        Self { bar, total, lines: 0, tenths: 0 }
    }

    fn member(&mut self, member: &FleetMember) {
        if !member.phase.is_over() {
            return;
        }
        let line = row(member);
        match &self.bar {
            Some(bar) => bar.println(line),
            None if member.phase == MemberPhase::Succeeded || member.phase == MemberPhase::Skipped => {}
            None => {
                self.lines += 1;
                match self.lines {
                    lines if lines < MAX_LINES => say(line.trim_start()),
                    MAX_LINES => say("… more members were not successful; the end counts them"),
                    _ => {}
                }
            }
        }
    }

    fn progress(&mut self, counts: &FleetCounts) {
        let over = counts.succeeded + counts.failed + counts.killed + counts.skipped;
        if let Some(bar) = &self.bar {
            bar.set_position(over.into());
            bar.set_message(format!("{} run, {} wait", counts.pending + counts.running, counts.queued));
            return;
        }
        let tenths = u32::try_from(u64::from(over) * 10 / u64::from(self.total.max(1))).unwrap_or(0);
        if tenths > self.tenths {
            self.tenths = tenths;
            say(&format!("{over} of {} members are over", self.total));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn row(member: &FleetMember) -> String {
    let usage = member.usage.unwrap_or_default();
    let why = match (member.kill_reason, &member.fault, member.reason) {
        (Some(reason), ..) => reason.as_str().to_owned(),
        (None, Some(fault), _) => plain(&fault.detail),
        (None, None, Some(reason)) => reason.as_str().to_owned(),
        (None, None, None) => String::new(),
    };
    let (index, phase) = (member.index, member.phase.as_str());
    format!("{index:>6}  {phase:<9}  {:>8}  {:>8}  {why}", usage.wall_ms, usage.cpu_ms).trim_end().to_owned()
}

fn refused(client: &Client, error: &ClientError) -> u8 {
    for line in report::told(client, error) {
        say(&line);
    }
    match error.problem() {
        Some(problem) if problem.status < 500 && problem.status != 429 => exit::REFUSED,
        Some(_) | None => exit::UNREACHABLE,
    }
}

fn give_up(lines: &[String], code: u8) -> ExitCode {
    for line in lines {
        say(line);
    }
    code.into()
}

/// A line of Enclave's own. Parts of it may come from a server that somebody else runs.
fn say(text: &str) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "enclave: {}", plain(text));
}
