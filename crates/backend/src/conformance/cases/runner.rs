//! A runner that was taken over, or whose program floods it, can hurt its own session alone.

use std::time::Duration;

use futures::FutureExt;
use model::limits::Limits;
use protocol::{DecodeError, OrderError};
use tokio::time::timeout;

use crate::{
    Termination,
    channel::ChannelError,
    conformance::{
        context::{Checked, Context, ensure},
        programs::{CHATTY, Program},
    },
};

const CHATTY_BYTES: usize = 8 << 20;
/// How long a program that has nobody to write to is watched not to end.
const STUCK: Duration = Duration::from_millis(700);

/// More than all pipes on the way hold, so that whoever does not make the program wait has to keep it.
pub(super) async fn an_unread_flood_waits_in_the_sandbox(context: Context) -> Checked {
    let limits = Limits { output_bytes: 64 << 20, ..context.limits() };
    let running = context.start(CHATTY, limits).await?;
    let early = timeout(STUCK, context.backend.wait(&running.id)).await;
    ensure!(early.is_err(), "nobody read 8 MiB, and the program could write them: {early:?}");
    let ended = running.finish().await?;
    ended.exited(0)?;
    ensure!(ended.seen.stdout.len() == CHATTY_BYTES, "{} of {CHATTY_BYTES} bytes came", ended.seen.stdout.len());
    Ok(())
}

fn is_refused_rightly(lie: &str, violation: &ChannelError) -> bool {
    match violation {
        ChannelError::Decode(DecodeError::Malformed) => lie == "garbage",
        ChannelError::Decode(DecodeError::TooLarge(_)) => lie == "oversized",
        ChannelError::Order(OrderError::Unexpected(_)) => matches!(lie, "wrong-order" | "hello-again"),
        ChannelError::Order(OrderError::OtherSession) => lie == "other-session",
        ChannelError::Order(OrderError::Excessive(_)) => lie == "excessive",
        ChannelError::Decode(DecodeError::Trailing(_))
        | ChannelError::Order(OrderError::Version(_) | OrderError::Unasked)
        | ChannelError::Io(_)
        | ChannelError::Encode(_)
        | ChannelError::Closed
        | ChannelError::Silent(_) => false,
    }
}

/// Each lie, as the first thing after the start and in the middle of a program.
pub(super) async fn frames_that_no_honest_runner_sends_are_refused(context: Context) -> Checked {
    let lies = [
        ("garbage", "# sim: frame garbage", "# sim: stdout x\n# sim: frame garbage"),
        ("oversized", "# sim: frame oversized", "# sim: stdout x\n# sim: frame oversized"),
        ("wrong-order", "# sim: frame wrong-order", "# sim: stdout x\n# sim: frame wrong-order"),
        ("other-session", "# sim: frame other-session", "# sim: stdout x\n# sim: frame other-session"),
        ("hello-again", "# sim: frame hello-again", "# sim: stdout x\n# sim: frame hello-again"),
        ("excessive", "# sim: frame excessive", "# sim: stdout x\n# sim: frame excessive"),
    ];
    for (lie, at_once, later) in lies {
        for (script, heard) in [(at_once, ""), (later, "x")] {
            let ended = context.run(Program::model(script), context.limits()).await?;
            let violation = ended.violation.as_ref();
            ensure!(violation.is_some_and(|error| is_refused_rightly(lie, error)), "{script:?}: {ended:?}");
            ensure!(ended.seen.stdout == heard.as_bytes(), "{script:?}: {ended:?}");
            ensure!(ended.seen.exit.is_none(), "{script:?}: {ended:?}");
        }
    }
    Ok(())
}

pub(super) async fn a_runner_that_goes_away_or_is_silent_costs_its_own_sandbox_alone(context: Context) -> Checked {
    let died = context.run(Program::model("# sim: stdout x\n# sim: frame die"), context.limits()).await?;
    ensure!(died.seen.exit.is_none() && died.violation.is_none(), "{died:?}");
    ensure!(died.seen.stdout == b"x" && died.termination == Termination::Exited, "{died:?}");
    for script in ["# sim: frame silent", "# sim: stdout x\n# sim: frame silent"] {
        let mut running = context.start(Program::model(script), context.limits()).await?;
        if script.contains("stdout") {
            running.until_stdout("x").await?;
        }
        let said = timeout(STUCK, running.receiver.next()).await;
        ensure!(said.is_err(), "{script:?} said {said:?}");
        ensure!(context.backend.wait(&running.id).now_or_never().is_none(), "{script:?} ended by itself");
        context.backend.kill(&running.id).await?;
        let ended = running.finish().await?;
        ensure!(ended.termination == Termination::Killed, "{ended:?}");
    }
    Ok(())
}
