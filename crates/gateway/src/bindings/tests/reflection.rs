//! No answer carries the secret.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::*};
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    upstream::{Upstream, text},
    *,
};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn brotli(body: &[u8]) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    encoder.write_all(body).unwrap();
    encoder.into_inner()
}

/// Shows what it was given, as the path says.
async fn echo() -> Upstream {
    Upstream::answering(|seen| {
        let given = seen.headers["authorization"].to_str().unwrap().to_owned();
        let mut response = match seen.target.as_str() {
            "/plain" => text(format!("<p>{given}</p>")),
            "/json" => text(serde_json::to_string(&given).unwrap().replace('/', "\\/")),
            "/base64" => text(STANDARD.encode(format!("xy{given}"))),
            "/base64url" => text(URL_SAFE.encode(&given)),
            "/hex" => text(hex::encode_upper(&given)),
            "/percent" => text(utf8_percent_encode(&given, NON_ALPHANUMERIC).to_string()),
            "/gzip" => text(gzip(given.as_bytes())),
            "/br" => text(brotli(given.as_bytes())),
            "/liar" => text(given.clone()),
            _ => text("nothing"),
        };
        let headers = response.headers_mut();
        match seen.target.as_str() {
            "/gzip" => headers.insert("content-encoding", "gzip".parse().unwrap()),
            "/br" => headers.insert("content-encoding", "br".parse().unwrap()),
            "/liar" => headers.insert("content-encoding", "zstd".parse().unwrap()),
            "/header" => headers.insert("x-echo", given.parse().unwrap()),
            "/header-base64" => headers.insert("x-echo", STANDARD.encode(&given).parse().unwrap()),
            "/header-name" => headers
                .insert(http::HeaderName::from_bytes(hex::encode(&given).as_bytes()).unwrap(), "1".parse().unwrap()),
            "/cookie" => headers
                .insert("set-cookie", format!("a={}", utf8_percent_encode(&given, NON_ALPHANUMERIC)).parse().unwrap()),
            "/location" => headers.insert("location", format!("https://elsewhere.test/?{given}").parse().unwrap()),
            _ => None,
        };
        response
    })
    .await
}

#[tokio::test]
async fn no_form_of_the_secret_comes_back() {
    let upstream = echo().await;
    let session = Session::with(&[(bearer(&upstream.url), secret(SECRET))]);
    assert_eq!(session.get("svc", "/nothing").await.body, "nothing");
    let forms = [
        "/plain",
        "/json",
        "/base64",
        "/base64url",
        "/hex",
        "/percent",
        "/gzip",
        "/br",
        "/header",
        "/header-base64",
        "/header-name",
        "/cookie",
        "/location",
    ];
    for form in forms {
        let answer = session.get("svc", form).await;
        let detail = answer.problem(502, "secret_reflected");
        assert!(detail.starts_with("the answer of the service of binding svc carried the secret"), "{form}: {detail}");
    }
    session.get("svc", "/liar").await.problem(502, "binding_upstream");
    let denied = session.told(AuditType::BindingDenied).await;
    assert_eq!(denied.len(), forms.len());
    assert_eq!(denied[0].data["reason"], "secret_reflected");
    assert_eq!(denied[0].denial.as_ref().unwrap().attempted, "binding svc: GET /plain");
}

#[tokio::test]
async fn a_basic_pair_does_not_come_back_in_base64() {
    let upstream = echo().await;
    let kind = json!({"type": "basic", "username": "me"});
    let session = Session::with(&[(spec(&kind, &upstream.url), secret(SECRET))]);
    for form in ["/plain", "/base64", "/hex", "/header"] {
        session.get("svc", form).await.problem(502, "secret_reflected");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_cut_before_the_first_byte_of_the_secret() {
    // The rest comes when the client has the beginning.
    let (go, gone) = mpsc::channel::<&'static str>(4);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let upstream = Upstream::at_once(move |_| {
        let gone = gone.clone();
        Box::pin(async move {
            let chunks = stream::unfold((), move |()| {
                let gone = gone.clone();
                async move { gone.lock().await.recv().await.map(|text| (Ok(Frame::data(Bytes::from(text))), ())) }
            });
            Response::new(StreamBody::new(chunks).boxed())
        })
    })
    .await;
    let session = Session::with(&[(bearer(&upstream.url), secret("hunter2hunter2"))]);
    go.send("first ").await.unwrap();
    let response = session.bindings.serve("svc", get("/")).await;
    assert_eq!(response.status(), 200);
    for text in ["then hunter2", "hunt", "er2 and more"] {
        go.send(text).await.unwrap();
    }
    let answer = read(response).await;
    assert_eq!((&answer.body[..], answer.is_whole), (&b"first then "[..], false));
    let denied = session.told(AuditType::BindingDenied).await;
    assert_eq!(denied[0].data["reason"], "secret_reflected");
}

#[tokio::test]
async fn the_next_call_after_a_rotation_has_the_new_secret_and_both_are_guarded() {
    let (go, gone) = mpsc::channel::<String>(4);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let upstream = Upstream::at_once(move |request| {
        let gone = gone.clone();
        Box::pin(async move {
            if request.uri().path() == "/now" {
                let given = request.headers()["authorization"].to_str().unwrap();
                return text(given.replace("Bearer ", "").chars().rev().collect::<String>());
            }
            let chunks = stream::unfold((), move |()| {
                let gone = gone.clone();
                async move { gone.lock().await.recv().await.map(|text| (Ok(Frame::data(Bytes::from(text))), ())) }
            });
            let mut response = Response::new(StreamBody::new(chunks).boxed());
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        })
    })
    .await;
    for reflected in ["the-old-secret", "the-new-secret"] {
        let session = Session::with(&[(bearer(&upstream.url), secret("the-old-secret"))]);
        assert_eq!(session.get("svc", "/now").await.body, "terces-dlo-eht");
        let mut running = session.bindings.serve("svc", get("/later")).await;
        go.send("data: 1\n\n".to_owned()).await.unwrap();
        let first = running.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "data: 1\n\n");

        session.bindings.rotate(session.ids[0], secret("the-new-secret"));
        assert_eq!(session.get("svc", "/now").await.body, "terces-wen-eht");
        go.send(format!("data: {reflected}\n\n")).await.unwrap();
        let answer = read(running).await;
        assert_eq!((&answer.body[..], answer.is_whole), (&b""[..], false), "{reflected}");
    }
}
