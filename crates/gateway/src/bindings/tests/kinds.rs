//! How secrets go into requests.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    upstream::{Upstream, text},
    *,
};

#[tokio::test]
async fn each_kind_puts_the_secret_where_it_says() {
    let upstream = Upstream::answering(|_| text("ok")).await;
    let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{SECRET}")));
    for (kind, header, value) in [
        (json!({"type": "bearer"}), "authorization", format!("Bearer {SECRET}")),
        (json!({"type": "header", "name": "X-Api-Key"}), "x-api-key", SECRET.to_owned()),
        (
            json!({"type": "header", "name": "Authorization", "template": "Token {secret};v=1"}),
            "authorization",
            format!("Token {SECRET};v=1"),
        ),
        (json!({"type": "header", "name": "cookie", "template": "sid={secret}"}), "cookie", format!("sid={SECRET}")),
        (json!({"type": "basic", "username": "me"}), "authorization", basic("me")),
        (json!({"type": "git"}), "authorization", basic("x-access-token")),
    ] {
        let session = Session::with(&[(spec(&kind, &upstream.url), secret(SECRET))]);
        let request = Request::get("/r.git/info/refs?service=git-upload-pack")
            .header("authorization", "mine")
            .header("x-api-key", "mine")
            .header("cookie", "mine=1")
            .body(Full::default())
            .unwrap();
        assert_eq!(session.send("svc", request).await.status, 200, "{kind}");
        let seen = upstream.last();
        assert_eq!(seen.headers.get_all(header).iter().collect::<Vec<_>>(), [&value], "{kind}");
        assert!(seen.headers.get("authorization").is_none_or(|value| value != "mine"), "{kind}");
        let cookie = if header == "cookie" { value } else { "mine=1".to_owned() };
        assert_eq!(seen.headers["cookie"], cookie, "{kind}");
    }
}

#[tokio::test]
async fn a_query_parameter_is_the_only_one_of_its_name() {
    let upstream = Upstream::answering(|_| text("ok")).await;
    let session =
        Session::with(&[(spec(&json!({"type": "query", "parameter": "key"}), &upstream.url), secret(SECRET))]);
    assert_eq!(session.get("svc", "/a?key=mine&b=1&k%65y=mine").await.status, 200);
    assert_eq!(upstream.last().target, "/a?b=1&key=hunter2%2Fhunter2%2Bhunter2");
    assert_eq!(session.get("svc", "/a").await.status, 200);
    assert_eq!(upstream.last().target, "/a?key=hunter2%2Fhunter2%2Bhunter2");
}

#[tokio::test]
async fn headers_that_frame_a_message_are_no_place_for_a_secret() {
    for name in ["content-length", "Transfer-Encoding", "host", "connection", "a b", ""] {
        let kind = json!({"type": "header", "name": name});
        let session = Session::with(&[(spec(&kind, "http://127.0.0.1:9"), secret(SECRET))]);
        session.get("svc", "/").await.problem(502, "binding_upstream");
    }
}

fn aws(service: &str, url: &str) -> Session {
    let kind = json!({"type": "aws_sigv4", "region": "eu-central-1", "service": service, "accessKeyId": "AKID"});
    let credential = Credential { session_token: Some(Secret::from("the-session-token".to_owned())), ..secret(SECRET) };
    Session::with(&[(spec(&kind, url), credential)])
}

#[tokio::test]
async fn what_the_workload_signed_is_signed_anew() {
    let upstream = Upstream::answering(|_| text("ok")).await;
    let session = aws("s3", &upstream.url);
    let request = Request::put("/bucket/a%20b?x-id=Put+It&X-Amz-Signature=mine&acl")
        .header("authorization", "AWS4-HMAC-SHA256 mine")
        .header("x-amz-date", "20000101T000000Z")
        .header("x-amz-security-token", "mine")
        .header("x-amz-meta-color", "red")
        .header("range", "bytes=0-3")
        .header("content-type", "text/plain")
        .body(Full::from("body"))
        .unwrap();
    assert_eq!(session.send("svc", request).await.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/bucket/a%20b?acl=&x-id=Put%20It");
    assert_eq!(seen.headers["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    assert_eq!(seen.headers["x-amz-security-token"], "the-session-token");
    assert_ne!(seen.headers["x-amz-date"], "20000101T000000Z");
    assert_eq!(seen.headers["range"], "bytes=0-3");
    let authorization = seen.headers["authorization"].to_str().unwrap();
    let day = &seen.headers["x-amz-date"].to_str().unwrap()[..8];
    let head = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/{day}/eu-central-1/s3/aws4_request, SignedHeaders=content-type;host;\
         x-amz-content-sha256;x-amz-date;x-amz-meta-color;x-amz-security-token, Signature="
    );
    assert!(authorization.starts_with(&head), "{authorization}");
}

#[tokio::test]
async fn bodies_for_other_aws_services_are_signed_whole_and_bounded() {
    let upstream = Upstream::answering(|_| text("ok")).await;
    let session = aws("dynamodb", &upstream.url);
    let post = |size: usize| Request::post("/").body(Full::from(vec![b'x'; size])).unwrap();
    assert_eq!(session.send("svc", post(1024 * 1024)).await.status, 200);
    assert_eq!(upstream.last().body.len(), 1024 * 1024);
    session.send("svc", post(1024 * 1024 + 1)).await.problem(413, "binding_denied");
    let chunked = Request::post("/")
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .body(Full::from("x"))
        .unwrap();
    let detail = session.send("svc", chunked).await.problem(403, "binding_denied");
    assert!(detail.contains("turn chunked signing off"), "{detail}");
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn git_reads_and_does_not_push() {
    let upstream = Upstream::answering(|_| text("ok")).await;
    let session = Session::with(&[(spec(&json!({"type": "git"}), &upstream.url), secret(SECRET))]);
    let post = |path: &str| Request::post(path).body(Full::default()).unwrap();
    assert_eq!(session.send("svc", post("/o/r.git/git-upload-pack")).await.status, 200);
    let detail = session.send("svc", post("/o/r.git/git-receive-pack")).await.problem(403, "binding_denied");
    assert!(detail.contains("git-upload-pack"), "{detail}");
    session.get("svc", "/o/r.git/info/refs?service=git-receive-pack").await.problem(403, "binding_denied");
    assert_eq!(upstream.seen().len(), 1);
}
