//! Programs out of repositories, from a real git server through real gateways. Needs gVisor, with a way out.

mod forge;

use std::time::Duration;

use serde_json::json;
use wire::{AuditEvent, AuditType, CreateSession, FaultCode, GitSource, Outcome, SessionResult, Source};

use crate::{
    faults::sandboxes_below,
    residue,
    server::{Server, backends},
};

use self::forge::{Forge, TOKEN, change};

const PATIENCE: Duration = Duration::from_mins(2);

/// A server that lets sessions reach the forge, or a printed skip.
async fn start(test: &str) -> Option<(Server, Forge)> {
    let forge = forge::start(test)?;
    if !backends(test).contains(&"gvisor") {
        return None;
    }
    let permit = format!("127.0.0.1/32:{}", forge.port);
    let server = Server::start("gvisor", &["--egress-permit", &permit]).await;
    let trial = source(&forge, "/trial");
    let trial = CreateSession { source: Some(Source::Git(trial)), ..CreateSession::default() };
    match server.client().create(&trial).await {
        Err(error) if format!("{error:?}").contains("NotEnforceable") => {
            println!("SKIP {test}: a gateway on this backend");
            None
        }
        Err(_) | Ok(_) => Some((server, forge)),
    }
}

fn source(forge: &Forge, path: &str) -> GitSource {
    GitSource { repo: forge.url(path), reference: "main".into(), entrypoint: "main.py".into(), ..GitSource::default() }
}

async fn run(server: &Server, source: GitSource) -> (SessionResult, Vec<AuditEvent>) {
    run_request(server, CreateSession { source: Some(Source::Git(source)), ..CreateSession::default() }).await
}

async fn run_request(server: &Server, request: CreateSession) -> (SessionResult, Vec<AuditEvent>) {
    let client = server.client();
    let session = client.create(&request).await.unwrap();
    let result = client.result(session.id, PATIENCE).await.unwrap();
    (result, client.audit(session.id, None).await.unwrap().items)
}

fn event(trail: &[AuditEvent], kind: AuditType) -> serde_json::Value {
    trail.iter().find(|event| event.kind == kind).unwrap_or_else(|| panic!("no {kind:?} in {trail:?}")).data.clone()
}

const PROGRAM: &str = r#"cat > main.py <<'PY'
import os
from helper import words
enclave.result({"words": words, "files": sorted(set(os.listdir()) - {"__pycache__"}), "git": os.path.exists(".git")})
PY
echo 'words = open("data.txt").read()' > helper.py; echo hello > data.txt"#;

#[tokio::test]
async fn a_public_repository_is_cloned_at_a_branch_a_tag_and_a_commit() {
    let Some((server, forge)) = start("git::public").await else { return };
    let commit = forge.publish("/public/r.git", PROGRAM).unwrap();
    change(&forge, "/public/r.git", "git tag v1 main");
    for reference in ["main", "v1", "HEAD", "refs/heads/main", &commit] {
        let asked = GitSource { reference: reference.into(), ..source(&forge, "/public/r.git") };
        let (result, trail) = run(&server, asked).await;
        let expected = json!({"words": "hello\n", "files": ["data.txt", "helper.py", "main.py"], "git": false});
        assert_eq!(result.value(), Some(expected), "{reference}: {result:?}");
        assert_eq!(event(&trail, AuditType::CloneCompleted)["commit"], commit.as_str());
        let allowed = event(&trail, AuditType::EgressAllowed);
        assert_eq!(allowed["destination"], format!("127.0.0.1:{}", forge.port));
    }
    server.audit_verifies().unwrap();
}

#[tokio::test]
async fn hostile_repositories_bring_in_nothing_but_files() {
    let Some((server, forge)) = start("git::hostile").await else { return };
    forge
        .publish(
            "/hostile/r.git",
            r#"ln -s /etc/shadow shadow; ln -s ../../../etc/passwd out; ln -s main.py inside
printf x > "$(printf 'new\nline')"; printf x > "$(printf 'bad\377')"
echo '* filter=evil diff=evil text eol=crlf' > .gitattributes
printf '[submodule "x"]\n\tpath = x\n\turl = file:///etc\n' > .gitmodules
cat > main.py <<'PY'
import os
enclave.result({"files": sorted(os.listdir("."))})
PY"#,
        )
        .unwrap();
    // Trees that git itself would refuse to make.
    change(
        &forge,
        "/hostile/r.git",
        r"blob=$(echo evil | git hash-object -w --stdin)
hooks=$(printf '100755 blob %s\tpost-checkout\n' $blob | git mktree)
tree=$( (git ls-tree main; printf '160000 commit 1111111111111111111111111111111111111111\tx\n'; printf '040000 tree %s\t.git\n040000 tree %s\t.GIT\n' $hooks $hooks) | git mktree --missing)
git -c user.name=a -c user.email=a@example.org commit-tree $tree -m two | xargs git update-ref refs/heads/main",
    );
    let (result, trail) = run(&server, source(&forge, "/hostile/r.git")).await;
    let expected = json!({"files": [".gitattributes", ".gitmodules", "inside", "main.py"]});
    assert_eq!(result.value(), Some(expected), "{result:?}");
    let skipped = event(&trail, AuditType::CloneCompleted)["skipped"].clone();
    assert_eq!(skipped, json!({"links": 2, "submodules": 1, "names": 4}));
}

#[tokio::test]
async fn what_is_too_large_is_not_there_or_not_allowed_is_told_in_a_line() {
    let Some((mut server, forge)) = start("git::failures").await else { return };
    forge.publish("/public/large.git", "head -c 3000000 /dev/zero > large; echo 'print(1)' > main.py").unwrap();
    let small = wire::Limits { disk_bytes: Some(1 << 20), ..wire::Limits::default() };
    let large = CreateSession {
        source: Some(Source::Git(source(&forge, "/public/large.git"))),
        limits: small,
        ..CreateSession::default()
    };
    let missing = |change: &dyn Fn(&mut GitSource)| {
        let mut asked = source(&forge, "/public/large.git");
        change(&mut asked);
        CreateSession { source: Some(Source::Git(asked)), ..CreateSession::default() }
    };
    let cases = [
        (large, "the files have more than 1048576 bytes"),
        (missing(&|source| source.reference = "nope".into()), "couldn't find remote ref nope"),
        (missing(&|source| source.subpath = Some("nope".into())), "there is no directory nope"),
        (missing(&|source| source.entrypoint = "nope.py".into()), "there is no file nope.py"),
        (missing(&|source| source.repo = forge.url("/public/nope.git")), "not found"),
        (missing(&|source| source.repo = forge.url("/private/r.git")), "fatal: "),
        (missing(&|source| source.reference = "1".repeat(40)), "fatal: "),
    ];
    for (request, words) in cases {
        let (result, trail) = run_request(&server, request).await;
        let fault = result.fault.unwrap();
        assert_eq!((result.outcome, fault.code), (Outcome::Faulted, FaultCode::CloneFailed), "{words}");
        assert!(fault.detail.contains(words) && !fault.detail.contains('\n'), "{words}: {}", fault.detail);
        assert!(event(&trail, AuditType::CloneFailed)["detail"].is_string());
    }
    // Once all of it is reclaimed.
    assert!(server.terminate().0);
    let left: Vec<_> = server.groups().iter().flat_map(|group| sandboxes_below(group)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The token goes through the gateway alone: it is in no sandbox, no answer, no log and no file of the server.
#[tokio::test]
async fn a_private_repository_is_cloned_with_a_token_that_no_sandbox_sees() {
    let Some((server, forge)) = start("git::private").await else { return };
    let commit = forge.publish("/private/r.git", PROGRAM).unwrap();
    let binding = json!({
        "name": "forge", "kind": {"type": "git"}, "upstream": {"url": forge.url("/private")}, "secret": {"value": TOKEN},
    });
    let made =
        reqwest::Client::new().post(format!("{}/v1/bindings", server.url())).json(&binding).send().await.unwrap();
    assert_eq!(made.status(), 201, "{}", made.text().await.unwrap());
    let asked = GitSource { credential: Some("forge".into()), ..source(&forge, "/private/r.git") };
    let (result, trail) = run(&server, asked).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(event(&trail, AuditType::CloneCompleted)["commit"], commit.as_str());
    assert_eq!(event(&trail, AuditType::BindingInvoked)["name"], "forge");
    assert!(!forge.presented().is_empty());
    let told = format!("{}{}", serde_json::to_string(&result).unwrap(), serde_json::to_string(&trail).unwrap());
    assert!(!told.contains(TOKEN) && !server.log().contains(TOKEN));
    let (read, copies) = residue::copies(&server.data, TOKEN);
    assert!(read > 0 && copies.is_empty(), "{copies:?}");
}

#[tokio::test]
async fn a_binding_of_another_place_or_kind_clones_nothing() {
    let Some((server, forge)) = start("git::elsewhere").await else { return };
    let http = reqwest::Client::new();
    for (name, kind, url) in [("other", "git", forge.url("/elsewhere")), ("bearer", "bearer", forge.url("/private"))] {
        let binding =
            json!({"name": name, "kind": {"type": kind}, "upstream": {"url": url}, "secret": {"value": TOKEN}});
        let made = http.post(format!("{}/v1/bindings", server.url())).json(&binding).send().await.unwrap();
        assert_eq!(made.status(), 201, "{}", made.text().await.unwrap());
        let asked = GitSource { credential: Some(name.into()), ..source(&forge, "/private/r.git") };
        let request = CreateSession { source: Some(Source::Git(asked)), ..CreateSession::default() };
        let refused = server.client().create(&request).await.unwrap_err();
        assert!(format!("{refused:?}").contains("source.credential"), "{refused:?}");
    }
}
