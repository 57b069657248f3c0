//! Files of a session that runs.

use std::{convert::Infallible, time::Duration};

use axum::body::{Body, Bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, stream};
use http::{Method, Request};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Answer, Api, Key, eventually, request};

const CHUNK: usize = 512 * 1024;

fn at(id: &str, path: &str) -> String {
    format!("/v1/sessions/{id}/files/{path}")
}

pub(crate) async fn put(api: &Api, key: &Key, id: &str, path: &str, content: impl Into<Body>) -> Answer {
    api.send(request(Method::PUT, &at(id, path), Some(key), content.into())).await
}

async fn get(api: &Api, key: &Key, id: &str, path: &str, header: (&str, &str)) -> Answer {
    let mut asked = request(Method::GET, &at(id, path), Some(key), Body::empty());
    asked.headers_mut().insert(http::HeaderName::try_from(header.0).unwrap(), header.1.parse().unwrap());
    api.send(asked).await
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As it comes in pieces, of an unknown length.
fn pieces(content: &[u8], piece: usize) -> Body {
    let pieces: Vec<_> = content.chunks(piece).map(Bytes::copy_from_slice).collect();
    Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>))
}

async fn names(api: &Api, key: &Key, id: &str) -> Vec<String> {
    let page = api.get(key, &format!("/v1/sessions/{id}/files?recursive=true")).await.json();
    page["items"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

async fn audited(api: &Api, key: &Key, id: &str, kind: &str) -> Vec<Value> {
    let page = api.get(key, &format!("/v1/sessions/{id}/audit?limit=1000")).await.json();
    let events = page["items"].as_array().unwrap().iter().filter(|event| event["type"] == kind);
    events.map(|event| event["data"].clone()).collect()
}

#[tokio::test]
async fn a_file_goes_in_and_out_and_both_are_audited() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["write out/greeting.txt hello\\n", "sleep 1h"]).await;
    let content: Vec<u8> = (0..3 * CHUNK + 7).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (path, body) in [("in/known", Body::from(content.clone())), ("in/streamed", pieces(&content, 10_000))] {
        let answer = put(&api, &key, &id, path, body).await;
        assert_eq!(answer.json(), json!({"path": path, "size": content.len(), "sha256": sha256(&content)}));
        let read = api.get(&key, &at(&id, path)).await;
        assert_eq!((read.status.as_u16(), read.bytes == content), (200, true));
        assert_eq!(read.header("content-length"), content.len().to_string());
        assert_eq!(read.header("content-digest"), "", "more than one piece");
    }
    let read = api.get(&key, &at(&id, "out/greeting.txt")).await;
    assert_eq!(read.bytes, b"hello\n");
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(b"hello\n")));
    for (header, value) in [
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("content-digest", &digest),
    ] {
        assert_eq!(read.header(header), value);
    }
    let written = audited(&api, &key, &id, "file_written").await;
    let event = |path: &str| json!({"path": path, "bytes": content.len(), "sha256": sha256(&content)});
    assert_eq!(written, [event("in/known"), event("in/streamed")]);
    eventually("reads are audited", async || audited(&api, &key, &id, "file_read").await.len() == 3).await;
    let mut read = audited(&api, &key, &id, "file_read").await;
    read.retain(|read| read["path"] != "out/greeting.txt");
    assert_eq!(read, written);
}

#[tokio::test]
async fn parts_are_served_and_audited_as_parts() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["sleep 1h"]).await;
    let content: Vec<u8> = (0..2 * CHUNK).map(|n| u8::try_from(n % 253).unwrap()).collect();
    put(&api, &key, &id, "a", content.clone()).await;
    for (range, from, to) in
        [("bytes=0-0", 0, 1), ("bytes=524287-524288", CHUNK - 1, CHUNK + 1), ("bytes=-9", 2 * CHUNK - 9, 2 * CHUNK)]
    {
        let part = get(&api, &key, &id, "a", ("range", range)).await;
        assert_eq!((part.status.as_u16(), part.bytes.as_slice()), (206, &content[from..to]), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{}", to - 1, content.len()));
    }
    let beyond = get(&api, &key, &id, "a", ("range", "bytes=1048576-")).await;
    beyond.problem("range_not_satisfiable");
    assert_eq!(beyond.header("content-range"), "bytes */1048576");
    eventually("reads are audited", async || audited(&api, &key, &id, "file_read").await.len() >= 3).await;
    let read = audited(&api, &key, &id, "file_read").await;
    let event = json!({"path": "a", "bytes": 2, "offset": CHUNK - 1, "size": 2 * CHUNK, "sha256": sha256(&content[CHUNK - 1..=CHUNK])});
    assert!(read.contains(&event), "{read:?}");
}

#[tokio::test]
async fn what_is_not_what_it_should_be_leaves_nothing() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["write kept old", "sleep 1h"]).await;
    let with = |digest: &str, body: Body| {
        let mut asked = request(Method::PUT, &at(&id, "kept"), Some(&key), body);
        asked.headers_mut().insert("content-digest", digest.parse().unwrap());
        asked
    };
    let right = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(b"new")));
    let answer = api.send(with(&right, "other".into())).await;
    let problem = answer.problem("digest_mismatch");
    assert!(problem["detail"].as_str().unwrap().contains(&sha256(b"other")), "{answer:?}");
    let answer = api.send(with("sha-512=:AA==:", "new".into())).await;
    answer.problem("invalid_request");
    assert_eq!(answer.fields(), ["Content-Digest"]);
    for (header, value, code) in
        [("content-encoding", "gzip", "unsupported_media_type"), ("content-range", "bytes 0-1/2", "invalid_request")]
    {
        let mut asked = request(Method::PUT, &at(&id, "kept"), Some(&key), "new".into());
        asked.headers_mut().insert(http::HeaderName::from_static(header), value.parse().unwrap());
        api.send(asked).await.problem(code);
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))]);
    let answer = put(&api, &key, &id, "kept", Body::from_stream(broken)).await;
    answer.problem("invalid_request");
    assert_eq!(answer.fields(), ["(body)"]);
    assert_eq!(api.get(&key, &at(&id, "kept")).await.bytes, b"old");
    assert_eq!(names(&api, &key, &id).await, ["kept"]);
    let answer = api.send(with(&right, "new".into())).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(api.get(&key, &at(&id, "kept")).await.bytes, b"new");
}

#[tokio::test]
async fn one_byte_over_the_disk_is_refused_and_the_session_lives_on() {
    let api = Api::start().await;
    let key = api.owner().await;
    let body = json!({"code": "# sim: sleep 1h", "limits": {"diskBytes": 1 << 20}});
    let id = api.post(&key, body.to_string()).await.json()["id"].as_str().unwrap().to_owned();
    eventually("running", async || api.get(&key, &format!("/v1/sessions/{id}")).await.json()["phase"] == "running")
        .await;
    let over = vec![7; (1 << 20) + 1];
    put(&api, &key, &id, "a", over.clone()).await.problem("disk_exceeded");
    put(&api, &key, &id, "a", pieces(&over, 1000)).await.problem("disk_exceeded");
    assert_eq!(names(&api, &key, &id).await, [""; 0]);
    let exactly = &over[1..];
    assert_eq!(put(&api, &key, &id, "a", exactly.to_vec()).await.status, 200);
    put(&api, &key, &id, "b", "x").await.problem("disk_exceeded");
    assert_eq!(names(&api, &key, &id).await, ["a"]);
    assert_eq!(api.get(&key, &format!("/v1/sessions/{id}")).await.json()["phase"], "running");
    assert_eq!(audited(&api, &key, &id, "file_written").await.len(), 1);
}

#[tokio::test]
async fn hostile_paths_are_refused_before_any_sandbox_hears_of_them() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["sleep 1h"]).await;
    let long = "a/".repeat(40) + "b";
    for path in [
        "../x",
        "%2e%2e%2fx",
        "a/%2e%2e/x",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "a//b",
        "./a",
        "a%00b",
        "a%0ab",
        "a/",
        "%FF",
        &long,
        &"a".repeat(256),
    ] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let asked = Request::builder()
                .method(method.clone())
                .uri(at(&id, path))
                .header("authorization", format!("Bearer {}", key.text));
            let answer = api.send(asked.body("x".into()).unwrap()).await;
            answer.problem("invalid_request");
            assert_eq!(answer.fields(), ["path"], "{method} {path}");
        }
    }
    for query in ["path=..", "path=/etc", "path=a%00", "recursive=yes", "cursor=!", "limit=0", "x=1"] {
        let answer = api.get(&key, &format!("/v1/sessions/{id}/files?{query}")).await;
        answer.problem("invalid_request");
    }
    put(&api, &key, &id, "a%5Cb%20%C3%A4", "x").await;
    assert_eq!(names(&api, &key, &id).await, ["a\\b ä"]);
}

#[tokio::test]
async fn files_are_listed_in_pages_and_removed() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["sleep 1h"]).await;
    for path in ["b", "a/z", "a/b/c", "a.txt"] {
        put(&api, &key, &id, path, "x").await;
    }
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let page = api.get(&key, &format!("/v1/sessions/{id}/files?recursive=true&limit=2{next}")).await.json();
        all.extend(
            page["items"].as_array().unwrap().iter().map(|entry| format!("{} {}", entry["path"], entry["kind"])),
        );
        match page["nextCursor"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    let expected = [
        "\"a\" \"directory\"",
        "\"a/b\" \"directory\"",
        "\"a/b/c\" \"file\"",
        "\"a/z\" \"file\"",
        "\"a.txt\" \"file\"",
        "\"b\" \"file\"",
    ];
    assert_eq!(all, expected);
    let inside = api.get(&key, &format!("/v1/sessions/{id}/files?path=a")).await.json();
    assert_eq!(inside["items"].as_array().unwrap().len(), 2, "{inside}");
    let delete = async |path: &str| api.send(request(Method::DELETE, &at(&id, path), Some(&key), Body::empty())).await;
    delete("a").await.problem("wrong_state");
    assert_eq!(delete("a/z").await.status, 204);
    delete("a/z").await.problem("not_found");
    api.get(&key, &at(&id, "a/b")).await.problem("not_a_file");
    put(&api, &key, &id, "a/b", "x").await.problem("not_a_file");
    put(&api, &key, &id, "b/c", "x").await.problem("not_a_file");
    assert!(audited(&api, &key, &id, "file_written").await.contains(&json!({"path": "a/z", "removed": true})));
}

#[tokio::test]
async fn files_are_there_only_while_the_program_runs() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, &["write a x", "exit 0"]).await;
    api.get(&key, &at(&id, "a")).await.problem("wrong_state");
    put(&api, &key, &id, "a", "x").await.problem("wrong_state");
    api.get(&key, &format!("/v1/sessions/{id}/files")).await.problem("wrong_state");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_nothing_and_gives_back_its_place() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["sleep 1h"]).await;
    let server = api.listen().await;
    // More often than there are places.
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 2000000\r\n\r\n",
            at(&id, "half"),
            key.text
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 1_500_000]).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), put(&api, &key, &id, "whole", "x")).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("nothing is left", async || names(&api, &key, &id).await == ["whole"]).await;
}
