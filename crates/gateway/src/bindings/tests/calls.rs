//! Which calls go through, what goes with them, and what is told.

use http::header::RETRY_AFTER;
use wire::AuditSource;

use super::{
    upstream::{Upstream, text},
    *,
};

#[tokio::test]
async fn a_name_is_that_of_a_binding_only_directly_below_the_domain() {
    assert_eq!(Bindings::name_of("github.enclave.internal"), Some("github"));
    for other in
        ["enclave.internal", ".enclave.internal", "a.b.enclave.internal", "github.enclave.internal.test", "github"]
    {
        assert_eq!(Bindings::name_of(other), None, "{other}");
    }
}

#[tokio::test]
async fn a_call_goes_to_the_upstream_with_the_secret_and_is_told_first() {
    let told_before = Arc::new(Mutex::new(None::<Arc<Mutex<Vec<GatewayEvent>>>>));
    let peek = told_before.clone();
    let upstream = Upstream::answering(move |_| {
        let told = peek.lock().unwrap().clone().unwrap();
        text(format!("{:?}", told.lock().unwrap().iter().map(|event| event.kind).collect::<Vec<_>>()))
    })
    .await;
    let session = Session::with(&[(bearer(&format!("{}/v1", upstream.url)), secret(SECRET))]);
    *told_before.lock().unwrap() = Some(session.told.clone());

    let request = Request::put("http://svc.enclave.internal/a%2eb/?q=1&r=%2F")
        .header("authorization", "Bearer mine")
        .header("proxy-authorization", "Basic mine")
        .header("x-forwarded-for", "10.0.0.1")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-kept", "2")
        .header("content-length", "4")
        .header("range", "bytes=0-3")
        .body(Full::from("body"))
        .unwrap();
    let answer = session.send("svc", request).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"[BindingInvoked]"[..]));

    let seen = upstream.last();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str(), &seen.body[..]),
        ("PUT", "/v1/a%2eb/?q=1&r=%2F", &b"body"[..])
    );
    assert_eq!(seen.headers["authorization"], format!("Bearer {SECRET}"));
    assert_eq!(seen.headers["host"], upstream.url.strip_prefix("http://").unwrap());
    let mut names: Vec<&str> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept-encoding", "authorization", "content-length", "host", "x-kept"]);

    let invoked = session.told(AuditType::BindingInvoked).await;
    let id = session.ids[0].to_string();
    assert_eq!(invoked[0].data, json!({"binding": id, "name": "svc", "method": "PUT", "path": "/a%2eb/"}));
    assert_eq!((invoked[0].source, invoked.len()), (AuditSource::Gateway, 1));
}

#[tokio::test]
async fn an_unknown_name_is_not_found_and_told() {
    let session = Session::with(&[(bearer("http://127.0.0.1:1"), secret(SECRET))]);
    let answer = session.get("other", "/").await;
    let detail = answer.problem(404, "binding_unknown");
    assert_eq!(detail, "this session has no binding named other; it has svc");
    let denied = session.told(AuditType::BindingDenied).await;
    assert_eq!(denied[0].data["name"], "other");
}

#[tokio::test]
async fn what_is_not_allowed_never_leaves_and_says_what_is() {
    let upstream = Upstream::answering(|_| text("")).await;
    let allow = json!({"allow": [{"methods": ["GET"], "paths": ["/repos/**"]}]});
    let session = Session::with(&[(with(bearer(&upstream.url), &allow), secret(SECRET))]);
    assert_eq!(session.get("svc", "/repos/a").await.status, 200);
    let answer = session.send("svc", Request::delete("/repos/x?y=z").body(Full::default()).unwrap()).await;
    let detail = answer.problem(403, "binding_denied");
    assert_eq!(detail, "binding svc does not allow this: it allows only GET on /repos/**");
    assert_eq!(answer.json()["reason"], "binding");
    session.get("svc", "/repos/%2e%2e/user").await.problem(403, "binding_denied");
    let upgrade = Request::get("/repos/a").header("upgrade", "websocket").body(Full::default()).unwrap();
    session.send("svc", upgrade).await.problem(403, "binding_denied");

    assert_eq!(upstream.seen().len(), 1);
    let denied = session.told(AuditType::BindingDenied).await;
    assert_eq!(denied.len(), 3);
    assert_eq!(denied[0].data["reason"], "binding");
    assert_eq!(denied[0].data["path"], "/repos/x");
    assert_eq!(denied[0].data["detail"], detail);
    let denial = denied[0].denial.as_ref().unwrap();
    assert_eq!((denial.attempted.as_str(), &denial.reason), ("binding svc: DELETE /repos/x", &detail));
    assert_eq!(denial.allowed_by, None);
    assert_eq!(session.told(AuditType::BindingInvoked).await.len(), 1);
}

#[tokio::test]
async fn a_budget_ends_calls_and_says_when_there_will_be_more() {
    let upstream = Upstream::answering(|_| text("12345678")).await;
    let budget = json!({"budget": {"calls": 2, "windowMs": 60000}});
    let bytes = with(bearer(&upstream.url), &json!({"name": "bytes", "budget": {"bytes": 20}}));
    let session = Session::with(&[(with(bearer(&upstream.url), &budget), secret(SECRET)), (bytes, secret(SECRET))]);
    for _ in 0..2 {
        assert_eq!(session.get("svc", "/").await.status, 200);
    }
    let answer = session.get("svc", "/").await;
    answer.problem(429, "binding_budget");
    let wait: u64 = answer.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");

    let post = |size| Request::post("/").body(Full::from(vec![b'x'; size])).unwrap();
    assert_eq!(session.send("bytes", post(5)).await.status, 200);
    // What came before it is used up counts: this one is cut on its way, the next is not begun.
    session.send("bytes", post(9)).await.problem(429, "binding_budget");
    let answer = session.get("bytes", "/").await;
    assert!(answer.problem(429, "binding_budget").contains("20 bytes"));
    assert_eq!(answer.headers.get(RETRY_AFTER), None);
    assert_eq!(session.told(AuditType::BindingDenied).await.len(), 3);
    assert_eq!(session.bindings.teller.bytes(), 8 * 2 + 5 + 8 + 9);
}

#[tokio::test]
async fn where_a_binding_leads_is_decided_by_address() {
    let upstream = Upstream::answering(|_| text("")).await;
    let session = Session::in_deployment(&[(bearer(&upstream.url), secret(SECRET))], vec![]);
    let answer = session.get("svc", "/").await;
    let detail = answer.problem(403, "binding_denied");
    assert!(detail.starts_with("binding svc leads where it must not: 127.0.0.1 is "), "{detail}");
    assert_eq!(upstream.connections(), 0);
    let denied = session.told(AuditType::BindingDenied).await;
    assert_eq!(denied[0].data["reason"], answer.json()["reason"]);
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_or_used_is_told_without_the_secret() {
    let specs = [
        ("nobody", "http://127.0.0.1:9", SECRET, "it cannot be connected to"),
        ("none", "ftp://127.0.0.1", SECRET, "its URL is not one of a service"),
        ("split", "http://127.0.0.1:9", "hunter2\r\nX-Other: hunter2", "its secret does not fit into a header"),
        ("empty", "http://127.0.0.1:9", "", "its secret is empty"),
    ];
    let bound: Vec<_> =
        specs.iter().map(|(name, url, value, _)| (with(bearer(url), &json!({"name": name})), secret(value))).collect();
    let session = Session::with(&bound);
    for (name, _, _, why) in specs {
        let detail = session.get(name, "/").await.problem(502, "binding_upstream");
        assert!(detail.contains(why) && !detail.contains("hunter2"), "{detail}");
    }
}

#[tokio::test]
async fn redirects_stay_inside_or_are_handed_back() {
    let upstream = Upstream::answering(|seen| {
        let mut response = text("");
        *response.status_mut() = StatusCode::FOUND;
        let to = seen.target.split_once("to=").unwrap().1.split('&').next().unwrap().to_owned();
        response.headers_mut().insert("location", to.parse().unwrap());
        response
    })
    .await;
    let url = format!("{}/v1", upstream.url);
    let query = with(spec(&json!({"type": "query", "parameter": "key"}), &url), &json!({"name": "query"}));
    let session = Session::with(&[(bearer(&url), secret(SECRET)), (query, secret(SECRET))]);
    for (to, location) in [
        (format!("{}/v1/next", upstream.url), "http://svc.enclave.internal/next".to_owned()),
        ("/v1/next".to_owned(), "http://svc.enclave.internal/next".to_owned()),
        ("/other".to_owned(), format!("{}/other", upstream.url)),
        ("https://elsewhere.test/v1".to_owned(), "https://elsewhere.test/v1".to_owned()),
    ] {
        let answer = session.get("svc", &format!("/a?to={to}")).await;
        assert_eq!((answer.status.as_u16(), answer.headers["location"].to_str().unwrap()), (302, location.as_str()));
    }
    // A copied query comes back without the secret.
    let to = format!(
        "https://elsewhere.test/?key={}",
        percent_encoding::utf8_percent_encode(SECRET, percent_encoding::NON_ALPHANUMERIC)
    );
    let answer = session.get("query", &format!("/a?to={to}")).await;
    assert_eq!(answer.headers["location"], "https://elsewhere.test/");
    assert_eq!(upstream.seen().len(), 5);
}
