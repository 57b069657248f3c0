//! Files that a request brings along.

use engine::CreateError;
use wire::{AuditType, File, KillReason, Outcome};

use super::support::{request, world};

fn file(path: &str, content: &str) -> File {
    File { path: path.into(), content: Some(content.into()), ..File::default() }
}

#[tokio::test]
async fn the_program_finds_its_files_and_each_is_audited_before_the_start() {
    let world = world().await;
    let large = "x".repeat(3 * 512 * 1024 - 1);
    let mut asked = request("# sim: cat in/words.txt\n# sim: cat /workspace/bytes\n# sim: cat large");
    asked.request.limits.output_bytes = Some(8 << 20);
    asked.request.files = vec![
        file("in/words.txt", "zwölf\n"),
        File { path: "bytes".into(), content_base64: Some("AP8=".into()), mode: Some(0o755), content: None },
        file("large", &large),
        file("empty", ""),
    ];
    let session = world.engine.create(&world.caller, asked).await.unwrap();
    let (_, result, trail) = world.end_of(&session).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.stdout_tail_offset + result.stdout_tail.len() as u64, 7 + 2 + large.len() as u64);
    let written = [AuditType::FileWritten; 4];
    let before = [AuditType::SessionCreated, AuditType::SandboxProvisioned];
    assert_eq!(trail[..7], [&before[..], &written, &[AuditType::SandboxStarted]].concat());
    let events = world.engine.audit(&world.caller, session.id, 0, 100).await.unwrap().items;
    let bytes = events.iter().find(|event| event.data["path"] == "bytes").unwrap();
    // Computed with sha256sum.
    let sha256 = "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8";
    assert_eq!((&bytes.data["bytes"], &bytes.data["sha256"]), (&2.into(), &sha256.into()));
}

#[tokio::test]
async fn files_that_cannot_be_put_are_refused_by_name() {
    let world = world().await;
    let mut asked = request("# sim: hang");
    asked.request.files = vec![file("../x", ""), file("a", ""), file("a/b", "")];
    let Err(CreateError::Invalid(faults)) = world.engine.create(&world.caller, asked).await else { panic!() };
    let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["files[0].path", "files"]);
}

#[tokio::test]
async fn files_that_fill_the_disk_leave_the_program_what_is_left() {
    let world = world().await;
    let mut asked = request("# sim: disk 600KiB");
    asked.request.limits.disk_bytes = Some(1 << 20);
    asked.request.files = vec![file("half", &"x".repeat(512 * 1024))];
    let session = world.engine.create(&world.caller, asked).await.unwrap();
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!(result.kill_reason, Some(KillReason::DiskExceeded));
}
