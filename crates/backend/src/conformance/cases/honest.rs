//! What honest programs see, and what is seen of them.

use std::{collections::BTreeMap, time::Duration};

use model::Language;
use protocol::{Exit, HostFrame, Start};
use serde_json::json;

use crate::{
    SandboxSpec,
    conformance::{
        context::{Checked, Context, Given, ensure, spoken},
        programs::{BUSY, EXCEPTION, EXIT_CODE, HALF_FULL, HONEST, MIRROR, PARENT, SIGNAL},
    },
};

const MIB: u64 = 1024 * 1024;

pub(super) async fn a_program_is_heard_in_order_and_hands_back_its_last_result(context: Context) -> Checked {
    let ended = context.run(HONEST, context.limits()).await?;
    ended.exited(0)?;
    ensure!(ended.seen.stdout == b"one\ntwo\nthree\n", "stdout: {ended:?}");
    ensure!(ended.seen.stderr == b"careful\n", "stderr: {ended:?}");
    let expected = json!({ "sum": 6, "text": "zwölf \"✓\"", "nested": [1, { "a": null }] });
    ensure!(ended.result()? == expected, "result: {}", ended.result()?);
    Ok(())
}

pub(super) async fn an_exit_code_comes_back(context: Context) -> Checked {
    context.run(EXIT_CODE, context.limits()).await?.exited(7)
}

pub(super) async fn an_exception_leaves_a_trace_and_code_one(context: Context) -> Checked {
    let ended = context.run(EXCEPTION, context.limits()).await?;
    ended.exited(1)?;
    ensure!(ended.seen.stdout == b"before\n", "stdout: {ended:?}");
    let trace = String::from_utf8_lossy(&ended.seen.stderr);
    ensure!(trace.contains("Error: no such thing\n") && trace.contains("/workspace/main."), "trace: {trace}");
    Ok(())
}

pub(super) async fn a_signal_comes_back(context: Context) -> Checked {
    let ended = context.run(SIGNAL, context.limits()).await?;
    ensure!(ended.seen.exit == Some(Exit::Signal(9)) && ended.limit().is_none(), "{ended:?}");
    Ok(())
}

pub(super) async fn arguments_and_environment_arrive_exactly_and_nothing_else_does(context: Context) -> Checked {
    let args = ["--flag", "", "two words", "zwölf ✓", "line\nbreak", "\"quoted\" 'twice' $HOME `id` \\n", "-c"];
    let env = [("GREETING", "zwölf ✓"), ("EMPTY", ""), ("LINES", "a\nb"), ("EQUALS", "a=b=c"), ("lower", "$HOME `id`")];
    let running =
        context.start_with(MIRROR, context.limits(), Given { args: &args, env: &env, ..Given::default() }).await?;
    let ended = running.finish().await?;
    ended.exited(0)?;
    let result = ended.result()?;
    ensure!(result["args"] == json!(args), "arguments: {}", result["args"]);
    let mut seen: BTreeMap<String, String> = serde_json::from_value(result["env"].clone())?;
    let session_id = seen.remove("ENCLAVE_SESSION_ID");
    ensure!(session_id.as_deref() == Some(&ended.session_id), "ENCLAVE_SESSION_ID is {session_id:?}");
    for own in ["PATH", "HOME", "LANG"] {
        ensure!(seen.remove(own).is_some(), "{own} is missing");
    }
    let given: BTreeMap<_, _> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    ensure!(seen == given, "environment: {seen:?}");
    Ok(())
}

pub(super) async fn children_end_with_the_first_process(context: Context) -> Checked {
    let ended = context.run(PARENT, context.limits()).await?;
    ended.exited(0)?;
    ensure!(ended.seen.stdout == b"parent\n", "{ended:?}");
    Ok(())
}

pub(super) async fn a_program_for_another_language_is_a_fault(context: Context) -> Checked {
    let limits = context.limits();
    let prepared = context.prepare(&limits).await?;
    let sandbox =
        context.backend.assign(prepared, &SandboxSpec { limits, gateway: None, grace: Duration::ZERO }).await?;
    let (mut sender, mut receiver) = sandbox.channel.assign("ses_other_language");
    let other = match context.language {
        Language::Python => Language::Node,
        Language::Node => Language::Python,
    };
    let start = Start {
        session_id: "ses_other_language".to_owned(),
        language: spoken(other),
        code: String::new(),
        args: Vec::new(),
        env: Vec::new(),
        pids: limits.pids,
        output_bytes: limits.output_bytes,
        disk_bytes: limits.disk_bytes,
        entrypoint: None,
        interactive: false,
        stays: false,
    };
    sender.send(&HostFrame::Start(Box::new(start))).await?;
    let answer = receiver.next().await?;
    ensure!(matches!(answer, Some(protocol::GuestFrame::Fault { .. })), "{answer:?}");
    context.backend.wait(&sandbox.id).await?;
    context.remove(&sandbox.id).await
}

pub(super) async fn usage_is_plausible_and_stays_readable(context: Context) -> Checked {
    let limits = context.limits();
    let mut running = context.start(BUSY, limits).await?;
    running.until_stdout("done\n").await?;
    let (backend, id) = (context.backend.clone(), running.id.clone());
    while running.receiver.next().await?.is_some() {}
    backend.wait(&id).await?;
    let first = backend.observe(&id).await?;
    let usage = first.usage;
    ensure!(first.exceeded.is_none(), "{first:?}");
    ensure!((100..60_000).contains(&usage.cpu_ms), "half a second of spinning used {usage:?}");
    let memory = 64 * MIB..=limits.memory_bytes;
    ensure!(memory.contains(&usage.memory_peak_bytes), "64 MiB of a program are {usage:?}");
    let second = backend.observe(&id).await?;
    ensure!(second == first, "after the end usage changed from {first:?} to {second:?}");
    context.remove(&id).await
}

pub(super) async fn files_within_the_limit_are_kept(context: Context) -> Checked {
    let limits = model::limits::Limits { disk_bytes: 16 * MIB, ..context.limits() };
    let ended = context.run(HALF_FULL, limits).await?;
    ended.exited(0)?;
    ensure!(ended.seen.stdout == b"8388608\n", "{ended:?}");
    Ok(())
}
