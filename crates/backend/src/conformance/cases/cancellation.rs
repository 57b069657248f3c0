//! A caller may go away at any moment: what exists by then is listed, and can be destroyed.

use std::time::Duration;

use futures::FutureExt;

use crate::{
    SandboxSpec, Shape, Termination,
    conformance::{
        context::{Checked, Context, ensure, poll_times},
        programs::PATIENT,
    },
};

/// After how many polls a future is dropped. All of them where time costs nothing, a sample elsewhere.
fn moments(context: &Context) -> Vec<u32> {
    if context.backend.capabilities().executes { vec![0, 1, 2, 3, 5, 8, 13, 21, 34] } else { (0..200).collect() }
}

pub(super) async fn a_dropped_prepare_leaves_what_is_listed_and_can_be_destroyed(context: Context) -> Checked {
    let before = context.backend.list().await?;
    let shape: Shape = (context.shape)(context.language);
    for polls in moments(&context) {
        let prepared = poll_times(context.backend.prepare(&shape), polls).await;
        let completed = prepared.is_some();
        if let Some(prepared) = prepared {
            prepared?;
        }
        context.sweep(&before).await?;
        if completed {
            ensure!(polls > 0, "it was there before it was asked for");
            return Ok(());
        }
    }
    Ok(())
}

pub(super) async fn a_dropped_assign_leaves_what_is_listed_and_can_be_destroyed(context: Context) -> Checked {
    let limits = context.limits();
    for polls in moments(&context) {
        let prepared = context.prepare(&limits).await?;
        let id = prepared.id.clone();
        let spec = SandboxSpec { limits, gateway: None, grace: Duration::ZERO };
        let assigned = poll_times(context.backend.assign(prepared, &spec), polls).await;
        ensure!(context.backend.list().await?.contains(&id), "after {polls} polls it is not listed");
        context.remove(&id).await?;
        if let Some(assigned) = assigned {
            assigned?;
            return Ok(());
        }
    }
    Ok(())
}

pub(super) async fn a_dropped_wait_takes_nothing_away(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    for _ in 0..5 {
        ensure!(context.backend.wait(&running.id).now_or_never().is_none(), "it ended by itself");
    }
    context.backend.kill(&running.id).await?;
    let ended = running.finish().await?;
    ensure!(ended.termination == Termination::Killed, "{ended:?}");
    Ok(())
}

pub(super) async fn a_dropped_destroy_can_be_repeated(context: Context) -> Checked {
    for polls in moments(&context) {
        let mut running = context.start(PATIENT, context.limits()).await?;
        running.until_stdout("ready\n").await?;
        let completed = poll_times(context.backend.destroy(&running.id), polls).await.is_some();
        context.remove(&running.id).await?;
        if completed {
            return Ok(());
        }
    }
    Ok(())
}
