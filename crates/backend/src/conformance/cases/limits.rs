//! Each limit ends a program, and for its own reason.

use model::limits::Limits;
use protocol::{Exit, GuestLimit};

use crate::{
    SandboxLimit, Termination,
    conformance::{
        context::{Checked, Context, Ended, ensure},
        programs::{BALLOON, CHATTY, FILLER, FORKS, Program, SPIN, THREADS},
    },
};

const MIB: u64 = 1024 * 1024;

pub(super) async fn output_is_cut_at_its_limit(context: Context) -> Checked {
    let limits = Limits { output_bytes: 100_001, ..context.limits() };
    let ended = context.run(CHATTY, limits).await?;
    ensure!(ended.seen.exceeded == [GuestLimit::Output], "{:?} was reported", ended.seen.exceeded);
    ensure!(ended.seen.stdout.len() == 100_001, "{} bytes came through", ended.seen.stdout.len());
    Ok(())
}

pub(super) async fn processes_over_the_limit_are_reported(context: Context) -> Checked {
    too_many(&context, FORKS).await
}

pub(super) async fn threads_over_the_limit_are_reported(context: Context) -> Checked {
    too_many(&context, THREADS).await
}

async fn too_many(context: &Context, program: Program) -> Checked {
    // Enough memory that it is not the first to run out.
    let limits = Limits { pids: 64, memory_bytes: 2048 * MIB, ..context.limits() };
    let ended = context.run(program, limits).await?;
    ensure!(ended.limit() == Some(SandboxLimit::Pids), "{ended:?}");
    Ok(())
}

pub(super) async fn memory_over_the_limit_ends_it(context: Context) -> Checked {
    let limits = Limits { memory_bytes: 192 * MIB, ..context.limits() };
    let ended = context.run(BALLOON, limits).await?;
    ended_by(&ended, SandboxLimit::Memory, "inflating\n")?;
    let peak = ended.observation.usage.memory_peak_bytes;
    // The peak is read off the host's accounting, and what the sandbox itself needs may come on top of the limit.
    ensure!((96 * MIB..=256 * MIB).contains(&peak), "the peak was {peak}");
    Ok(())
}

pub(super) async fn cpu_time_over_the_limit_ends_it(context: Context) -> Checked {
    let limits = Limits { cpu_time_ms: Some(1_500), ..context.limits() };
    let ended = context.run(SPIN, limits).await?;
    ended_by(&ended, SandboxLimit::Cpu, "spinning\n")?;
    let used = ended.observation.usage.cpu_ms;
    ensure!((1_500..5_000).contains(&used), "{used} ms were used");
    Ok(())
}

pub(super) async fn files_over_the_limit_end_it(context: Context) -> Checked {
    let limits = Limits { disk_bytes: 16 * MIB, ..context.limits() };
    let ended = context.run(FILLER, limits).await?;
    // Whoever met the full disk may have gone before the host looked: then the runner has said so.
    let seen_outside = ended.termination == Termination::Exceeded(SandboxLimit::Disk);
    ensure!(seen_outside || ended.seen.exceeded.contains(&GuestLimit::Disk), "{ended:?}");
    ensure!(ended.seen.stdout == b"filling\n", "{ended:?}");
    Ok(())
}

/// The backend ended it, and what the program had written before is not lost.
fn ended_by(ended: &Ended, limit: SandboxLimit, said: &str) -> Checked {
    ensure!(ended.termination == Termination::Exceeded(limit), "{ended:?}");
    ensure!(ended.observation.exceeded == Some(limit), "{ended:?}");
    ensure!(ended.seen.stdout == said.as_bytes(), "{ended:?}");
    // A program that runs into a limit may have died of it, and its runner have said so, just before the end.
    ensure!(ended.seen.exit != Some(Exit::Code(0)), "{ended:?}");
    Ok(())
}
