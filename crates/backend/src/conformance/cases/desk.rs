//! Files that are asked for while a program runs, and when it has ended.

use std::time::Duration;

use model::limits::Limits;
use protocol::{
    Exit, GuestFrame, HostFrame,
    files::{FileCall, FileDone, FileKind, FileOp, FileRefusal, WhyNot},
};

use crate::{
    SandboxLimit, Termination,
    conformance::{
        context::{Checked, Context, Ended, Failed, Given, Running, ensure},
        programs::{BALLOON, KEEPER, SPIN},
    },
};

impl Running {
    async fn ask(&mut self, op: FileOp) -> Checked<Result<FileDone, FileRefusal>> {
        self.sender.send(&HostFrame::File(FileCall { id: 1, op })).await?;
        loop {
            match self.receiver.next().await? {
                Some(GuestFrame::File(reply)) => return Ok(reply.outcome),
                Some(frame) => self.seen.take(frame),
                None => return Err(Failed(format!("no answer: {:?}", self.seen))),
            }
        }
    }

    async fn upload(&mut self, path: &str, data: &[u8], size: Option<u64>) -> Checked<Result<FileDone, FileRefusal>> {
        let begun = self.ask(FileOp::Create { handle: 3, path: path.to_owned(), mode: 0o600, size }).await?;
        if begun.is_err() {
            return Ok(begun);
        }
        for part in data.chunks(1 << 18) {
            let written = self.ask(FileOp::Write { handle: 3, data: part.to_vec() }).await?;
            if written.is_err() {
                return Ok(written);
            }
        }
        self.ask(FileOp::Commit { handle: 3 }).await
    }

    async fn download(&mut self, path: &str) -> Checked<Result<Vec<u8>, WhyNot>> {
        match self.ask(FileOp::Open { handle: 4, path: path.to_owned() }).await? {
            Ok(FileDone::Opened(facts)) => ensure!(facts.kind == FileKind::File, "{facts:?}"),
            Ok(other) => return Err(Failed(format!("{other:?}"))),
            Err(refusal) => return Ok(Err(refusal.why)),
        }
        let read = self.ask(FileOp::Read { handle: 4, offset: 0, bytes: 1 << 19 }).await?;
        let closed = self.ask(FileOp::Close { handle: 4 }).await?;
        ensure!(closed == Ok(FileDone::Done), "{closed:?}");
        match read {
            Ok(FileDone::Read(data)) => Ok(Ok(data)),
            other => Err(Failed(format!("{other:?}"))),
        }
    }

    async fn names(&mut self) -> Checked<Vec<String>> {
        let list = FileOp::List { path: None, recursive: true, after: None, limit: 100 };
        match self.ask(list).await? {
            Ok(FileDone::Listed { entries, more: false }) => {
                Ok(entries.iter().map(|entry| String::from_utf8_lossy(&entry.path.0).into_owned()).collect())
            }
            other => Err(Failed(format!("{other:?}"))),
        }
    }
}

async fn keeper(context: &Context, stays: bool) -> Checked<Running> {
    let mut running = context.start_with(KEEPER, context.limits(), Given { stays, ..Given::default() }).await?;
    running.until_stdout("ready\n").await?;
    Ok(running)
}

pub(super) async fn files_of_a_running_program_are_read_written_listed_and_removed(context: Context) -> Checked {
    let mut running = keeper(&context, false).await?;
    let kept = running.download("out/kept.txt").await?;
    ensure!(kept == Ok(b"kept\n".to_vec()), "{kept:?}");
    let written = running.upload("in/deep/data", b"new", Some(3)).await?;
    ensure!(written == Ok(FileDone::Done), "{written:?}");
    let read = running.download("in/deep/data").await?;
    ensure!(read == Ok(b"new".to_vec()), "{read:?}");
    let names = running.names().await?;
    let expected = ["in", "in/deep", "in/deep/data", "out", "out/kept.txt"];
    // The program itself may be one of them.
    ensure!(names.iter().filter(|name| !name.starts_with("main.")).eq(expected.iter()), "{names:?}");
    let removed = running.ask(FileOp::Remove { path: "in/deep/data".to_owned() }).await?;
    ensure!(removed == Ok(FileDone::Done), "{removed:?}");
    let gone = running.download("in/deep/data").await?;
    ensure!(gone == Err(WhyNot::Absent), "{gone:?}");
    running.finish_by_force().await?;
    Ok(())
}

pub(super) async fn names_that_lead_out_are_refused_and_the_program_lives_on(context: Context) -> Checked {
    let mut running = keeper(&context, false).await?;
    for path in ["../etc/passwd", "/etc/passwd", "out/../../x", "a//b", "a\0b", ""] {
        let read = running.download(path).await?;
        ensure!(read == Err(WhyNot::Failed), "{path:?}: {read:?}");
        let written = running.upload(path, b"x", None).await?;
        ensure!(written.as_ref().is_err_and(|refusal| refusal.why == WhyNot::Failed), "{path:?}: {written:?}");
    }
    let directory = running.download("out").await?;
    ensure!(directory == Err(WhyNot::WrongKind), "{directory:?}");
    let below = running.download("out/kept.txt/x").await?;
    ensure!(matches!(below, Err(WhyNot::WrongKind | WhyNot::Absent)), "{below:?}");
    running.finish_by_force().await?;
    Ok(())
}

pub(super) async fn a_file_that_does_not_fit_is_refused_and_leaves_nothing(context: Context) -> Checked {
    let mut running = keeper(&context, false).await?;
    let before = running.names().await?;
    let most = context.limits().disk_bytes;
    let over = running.upload("over", b"", Some(most + 1)).await?;
    ensure!(over.as_ref().is_err_and(|refusal| refusal.why == WhyNot::NoSpace), "{over:?}");
    // What was announced is not what comes: a piece too much of a file that has the whole disk.
    let data = vec![7; usize::try_from(most).unwrap_or(usize::MAX)];
    let over = running.upload("over", &[&data[..], &vec![1; 1 << 18]].concat(), None).await?;
    ensure!(over.as_ref().is_err_and(|refusal| refusal.why == WhyNot::NoSpace), "{over:?}");
    let after = running.names().await?;
    ensure!(before == after, "{after:?}");
    // Twice in a row: what was refused has given its room back.
    for _ in 0..2 {
        let fits = running.upload("fits", &data[..data.len() - 256 * 1024], None).await?;
        ensure!(fits == Ok(FileDone::Done), "{fits:?}");
        let removed = running.ask(FileOp::Remove { path: "fits".to_owned() }).await?;
        ensure!(removed == Ok(FileDone::Done), "{removed:?}");
    }
    running.finish_by_force().await?;
    Ok(())
}

pub(super) async fn a_program_that_was_stopped_leaves_its_files_to_a_host_that_wants_them(context: Context) -> Checked {
    let mut running = keeper(&context, true).await?;
    running.stop().await?;
    let kept = running.download("out/kept.txt").await?;
    ensure!(kept == Ok(b"kept\n".to_vec()), "{kept:?}");
    running.finish_by_force().await?;
    Ok(())
}

pub(super) async fn what_is_over_its_cpu_time_leaves_its_files_to_a_host_that_wants_them(context: Context) -> Checked {
    let mut running = spin(&context, context.patience).await?;
    let written = running.upload("kept.txt", b"kept\n", None).await?;
    ensure!(written == Ok(FileDone::Done), "{written:?}");
    leaves_its_file(running, SandboxLimit::Cpu).await
}

pub(super) async fn what_is_over_its_memory_leaves_its_files_to_a_host_that_wants_them(context: Context) -> Checked {
    let running = inflate(&context, context.patience).await?;
    leaves_its_file(running, SandboxLimit::Memory).await
}

/// Goes over that limit, is stopped, and still has its file.
async fn leaves_its_file(mut running: Running, over: SandboxLimit) -> Checked {
    let limit = running.context.backend.overrun(&running.id).await?;
    ensure!(limit == over, "{limit:?}");
    running.stop().await?;
    let kept = running.download("kept.txt").await?;
    ensure!(kept == Ok(b"kept\n".to_vec()), "{kept:?}");
    let ended = running.finish_by_force().await?;
    ensure!(ended.termination == Termination::Exceeded(over), "{ended:?}");
    ensure!(ended.observation.exceeded == Some(over), "{ended:?}");
    Ok(())
}

pub(super) async fn a_grace_that_nobody_uses_ends(context: Context) -> Checked {
    let grace = Duration::from_millis(100);
    for (running, limit) in
        [(spin(&context, grace).await?, SandboxLimit::Cpu), (inflate(&context, grace).await?, SandboxLimit::Memory)]
    {
        let ended = running.finish().await?;
        ensure!(ended.termination == Termination::Exceeded(limit), "{ended:?}");
        // In its reserve a program may be told that there is no memory, and end by itself; that is no way out of the limit.
        ensure!(limit == SandboxLimit::Memory || ended.seen.exit.is_none(), "{ended:?}");
    }
    Ok(())
}

async fn inflate(context: &Context, grace: Duration) -> Checked<Running> {
    let limits = Limits { memory_bytes: 96 << 20, ..context.limits() };
    context.start_with(BALLOON, limits, Given { stays: true, grace, ..Given::default() }).await
}

async fn spin(context: &Context, grace: Duration) -> Checked<Running> {
    let limits = Limits { cpu_time_ms: Some(1_500), ..context.limits() };
    let mut running = context.start_with(SPIN, limits, Given { stays: true, grace, ..Given::default() }).await?;
    running.until_stdout("spinning\n").await?;
    Ok(running)
}

impl Running {
    /// Ends the program.
    async fn stop(&mut self) -> Checked {
        self.sender.send(&HostFrame::Stop).await?;
        while self.seen.exit.is_none() {
            let frame = self.receiver.next().await?;
            self.seen.take(frame.ok_or_else(|| Failed("no exit".to_owned()))?);
        }
        ensure!(self.seen.exit == Some(Exit::Signal(9)), "{:?}", self.seen);
        Ok(())
    }

    /// Ends and removes what would go on for ever.
    async fn finish_by_force(self) -> Checked<Ended> {
        self.context.backend.kill(&self.id).await?;
        self.finish().await
    }
}
