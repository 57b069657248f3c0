//! Sandboxes come, are listed, end and go.

use std::sync::Arc;

use futures::{FutureExt, future::join_all};
use model::limits::Limits;
use serde_json::json;

use crate::{
    PrepareError, SandboxId, SandboxLimit, Shape, Termination,
    conformance::{
        context::{Checked, Context, Given, ensure, is_gone},
        programs::{BALLOON, HONEST, MIRROR, PATIENT},
    },
};

pub(super) async fn a_prepared_sandbox_is_listed_and_belongs_to_nobody(context: Context) -> Checked {
    let (first, second) = (context.prepare(&context.limits()).await?, context.prepare(&context.limits()).await?);
    ensure!(first.id != second.id, "two sandboxes are named {}", first.id);
    let listed = context.backend.list().await?;
    for prepared in [first, second] {
        ensure!(listed.contains(&prepared.id), "{} is not listed", prepared.id);
        ensure!(context.backend.wait(&prepared.id).now_or_never().is_none(), "it has ended before it was used");
        let observation = context.backend.observe(&prepared.id).await?;
        ensure!(observation.exceeded.is_none(), "it is over a limit before it was used: {observation:?}");
        let (_sender, mut receiver) = prepared.channel.assign("ses_nobody");
        let early = receiver.next().now_or_never();
        ensure!(early.is_none(), "its runner has more to say than hello: {early:?}");
        context.remove(&prepared.id).await?;
    }
    Ok(())
}

pub(super) async fn an_unknown_image_is_refused(context: Context) -> Checked {
    for image in ["no-such-image", "", "../default", "default\0"] {
        let shape = Shape { image: image.to_owned(), ..(context.shape)(context.language) };
        let refused = context.backend.prepare(&shape).await;
        ensure!(matches!(&refused, Err(PrepareError::NoImage(name)) if name == image), "{image:?} gave {refused:?}");
    }
    Ok(())
}

pub(super) async fn killing_ends_a_running_program(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    context.backend.observe(&running.id).await?;
    context.backend.kill(&running.id).await?;
    let ended = running.finish().await?;
    ensure!(ended.termination == Termination::Killed, "{ended:?}");
    ensure!(ended.seen.exit.is_none() && ended.limit().is_none(), "{ended:?}");
    Ok(())
}

pub(super) async fn killing_a_prepared_sandbox_ends_it(context: Context) -> Checked {
    let prepared = context.prepare(&context.limits()).await?;
    context.backend.kill(&prepared.id).await?;
    let termination = context.backend.wait(&prepared.id).await?;
    ensure!(termination == Termination::Killed, "{termination:?}");
    context.remove(&prepared.id).await
}

pub(super) async fn a_sandbox_that_rested_is_as_good_as_any_and_ends_as_any(context: Context) -> Checked {
    let (first, second) = (context.prepare(&context.limits()).await?, context.prepare(&context.limits()).await?);
    for id in [first.id.clone(), second.id.clone()] {
        context.backend.rest(&id).await;
        // Twice is once.
        context.backend.rest(&id).await;
        ensure!(context.backend.wait(&id).now_or_never().is_none(), "it has ended while it rested");
    }
    context.backend.kill(&second.id).await?;
    let termination = context.backend.wait(&second.id).await?;
    ensure!(termination == Termination::Killed, "{termination:?}");
    context.remove(&second.id).await?;
    // What is not there is not made to rest.
    context.backend.rest(&second.id).await;
    let running = context.start_prepared(first, HONEST, context.limits(), Given::default()).await?;
    running.finish().await?.exited(0)
}

pub(super) async fn killing_twice_or_after_the_end_changes_nothing(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    for _ in 0..3 {
        context.backend.kill(&running.id).await?;
        let termination = context.backend.wait(&running.id).await?;
        ensure!(termination == Termination::Killed, "{termination:?}");
    }
    running.finish().await?;
    let mut running = context.start(HONEST, context.limits()).await?;
    while running.receiver.next().await?.is_some() {}
    for _ in 0..3 {
        let termination = context.backend.wait(&running.id).await?;
        ensure!(termination == Termination::Exited, "{termination:?}");
        context.backend.kill(&running.id).await?;
    }
    context.remove(&running.id).await
}

pub(super) async fn everybody_who_waits_gets_the_same_answer(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (backend, id) = (Arc::clone(&context.backend), running.id.clone());
            tokio::spawn(async move { backend.wait(&id).await })
        })
        .collect();
    tokio::task::yield_now().await;
    ensure!(waiters.iter().all(|waiter| !waiter.is_finished()), "somebody was told of an end before there was one");
    context.backend.kill(&running.id).await?;
    for waiter in waiters {
        let told = waiter.await??;
        ensure!(told == Termination::Killed, "{told:?}");
    }
    running.finish().await?;
    Ok(())
}

pub(super) async fn destroying_a_running_program_ends_it(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    let (backend, id) = (Arc::clone(&context.backend), running.id.clone());
    let waiter = tokio::spawn(async move { backend.wait(&id).await });
    tokio::task::yield_now().await;
    context.remove(&running.id).await?;
    while let Ok(Some(_)) = running.receiver.next().await {}
    let told = waiter.await?;
    ensure!(matches!(told, Ok(Termination::Killed)) || is_gone(&told), "{told:?}");
    Ok(())
}

pub(super) async fn destroying_twice_or_something_unknown_leaves_nothing(context: Context) -> Checked {
    let prepared = context.prepare(&context.limits()).await?;
    for _ in 0..3 {
        context.remove(&prepared.id).await?;
    }
    context.remove(&SandboxId::from_bits(0x00de_ad00_0000_0000_0000_0000_0000_0001)).await
}

pub(super) async fn a_destroyed_sandbox_is_gone(context: Context) -> Checked {
    let running = context.start(HONEST, context.limits()).await?;
    let id = running.id.clone();
    running.finish().await?;
    let waited = context.backend.wait(&id).await;
    ensure!(is_gone(&waited), "wait gave {waited:?}");
    let observed = context.backend.observe(&id).await;
    ensure!(is_gone(&observed), "observe gave {observed:?}");
    Ok(())
}

pub(super) async fn closing_the_pipe_ends_the_sandbox(context: Context) -> Checked {
    let mut running = context.start(PATIENT, context.limits()).await?;
    running.until_stdout("ready\n").await?;
    let id = running.id.clone();
    drop(running);
    let termination = context.backend.wait(&id).await?;
    ensure!(!matches!(termination, Termination::Exceeded(_)), "{termination:?}");
    context.remove(&id).await?;
    // The same before there was a program.
    let prepared = context.prepare(&context.limits()).await?;
    drop(prepared.channel);
    context.backend.wait(&prepared.id).await?;
    context.remove(&prepared.id).await
}

pub(super) async fn ten_sandboxes_at_once_do_not_notice_each_other(context: Context) -> Checked {
    let limits = Limits { memory_bytes: 192 << 20, ..context.limits() };
    let hostile = async { context.run(BALLOON, limits).await };
    let honest = join_all((0..9).map(|number| {
        let context = &context;
        async move {
            let own = format!("number {number}");
            let running = context
                .start_with(MIRROR, limits, Given { args: &[&own], env: &[("OWN", &own)], ..Given::default() })
                .await?;
            let id = running.id.clone();
            let ended = running.finish().await?;
            ended.exited(0)?;
            let result = ended.result()?;
            ensure!(result["args"] == json!([own]) && result["env"]["OWN"] == json!(own), "{number} got {result}");
            Ok(id)
        }
    }));
    let (hostile, honest) = tokio::join!(hostile, honest);
    let mut ids = honest.into_iter().collect::<Checked<Vec<_>>>()?;
    ids.sort();
    ids.dedup();
    ensure!(ids.len() == 9, "nine sandboxes have {} names", ids.len());
    let hostile = hostile?;
    ensure!(hostile.limit() == Some(SandboxLimit::Memory), "{hostile:?}");
    Ok(())
}
