//! Files that are put into the working directory before the program starts.

use model::limits::Limits;
use protocol::{NotPut, PUT_CHUNK_BYTES, Put, PutKind};

use crate::{
    SandboxLimit,
    conformance::{
        context::{Checked, Context, Ended, Given, ensure},
        programs::{EXIT_CODE, INPUTS},
    },
};

const MIB: u64 = 1024 * 1024;

fn file(path: &str, data: &[u8]) -> Put {
    Put { path: path.into(), kind: PutKind::File { mode: 0o640 }, data: data.into(), last: true }
}

async fn refused(context: &Context, files: &[Put], limits: Limits) -> Checked<Ended> {
    let ended = context.start_with(EXIT_CODE, limits, Given { files, ..Given::default() }).await?.finish().await?;
    ensure!(!ended.seen.started && ended.seen.exit.is_none(), "the program ran all the same: {ended:?}");
    ensure!(ended.violation.is_none() && ended.seen.fault.is_none(), "a fault: {ended:?}");
    Ok(ended)
}

pub(super) async fn what_was_put_before_the_start_is_there_and_the_programs(context: Context) -> Checked {
    let files = [
        Put { last: false, ..file("in/deep/words.txt", "zwölf ".as_bytes()) },
        file("in/deep/words.txt", "✓\n".as_bytes()),
        file("in/empty", b""),
        Put { kind: PutKind::Link, ..file("link", b"in/deep") },
    ];
    let given = Given { files: &files, ..Given::default() };
    let ended = context.start_with(INPUTS, context.limits(), given).await?.finish().await?;
    ended.exited(0)?;
    ensure!(ended.seen.stdout == "zwölf ✓\nchanged\n".as_bytes(), "{ended:?}");
    Ok(())
}

pub(super) async fn a_name_that_leads_out_is_refused(context: Context) -> Checked {
    for path in ["../out", "/tmp/out", "a/../../out", "", "a//b", "./a", "a\0b"] {
        let ended = refused(&context, &[file(path, b"x")], context.limits()).await?;
        ensure!(ended.seen.not_put == Some(NotPut::Failed), "{path:?}: {ended:?}");
    }
    let link = Put { kind: PutKind::Link, ..file("link", b"../../etc/shadow") };
    let ended = refused(&context, &[link], context.limits()).await?;
    ensure!(ended.seen.not_put == Some(NotPut::Failed), "{ended:?}");
    Ok(())
}

pub(super) async fn nothing_is_replaced(context: Context) -> Checked {
    let link = Put { kind: PutKind::Link, ..file("link", b"there") };
    for second in ["a/b", "a", "a/b/c", "link", "link/x"] {
        let files = [file("a/b", b"x"), link.clone(), file(second, b"y")];
        let ended = refused(&context, &files, context.limits()).await?;
        ensure!(ended.seen.not_put == Some(NotPut::InTheWay), "{second}: {ended:?}");
    }
    Ok(())
}

pub(super) async fn more_than_the_disk_holds_is_refused(context: Context) -> Checked {
    let limits = Limits { disk_bytes: 8 * MIB, ..context.limits() };
    let part = |last| Put { last, ..file("big", &vec![1; PUT_CHUNK_BYTES]) };
    // Twice what fits: what a file system needs for itself does not matter.
    let files: Vec<_> = (0..32).map(|n| part(n == 31)).collect();
    let ended = refused(&context, &files, limits).await?;
    // Whoever sees it first.
    let full = ended.seen.not_put == Some(NotPut::NoSpace) || ended.limit() == Some(SandboxLimit::Disk);
    ensure!(full, "{ended:?}");
    Ok(())
}
