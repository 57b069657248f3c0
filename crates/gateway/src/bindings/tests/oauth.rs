//! Tokens from an endpoint.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use tokio::time::{Duration, advance, pause, resume};

use super::{
    upstream::{Seen, Upstream, text},
    *,
};

fn client_credentials(endpoint: &Upstream, service: &Upstream) -> Session {
    let kind = json!({
        "type": "oauth2_client_credentials", "tokenUrl": format!("{}/token?tenant=1", endpoint.url), "clientId": "me:1",
        "scopes": ["read", "write"],
    });
    Session::with(&[(spec(&kind, &service.url), secret(SECRET))])
}

/// Gives `token-1-…`, `token-2-…`, and so on.
async fn counting(expires_in: u64) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::answering(move |_| {
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        text(
            json!({"access_token": format!("token-{count}-for-you"), "expires_in": expires_in, "token_type": "Bearer"})
                .to_string(),
        )
    })
    .await
}

async fn accepting() -> Upstream {
    Upstream::answering(|_| text("ok")).await
}

fn bearer_of(seen: &Seen) -> &str {
    seen.headers["authorization"].to_str().unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_once_for_many_and_kept_until_it_is_about_to_end() {
    let (endpoint, service) = (counting(3600).await, accepting().await);
    let session = client_credentials(&endpoint, &service);
    let answers = join_all((0..20).map(|_| session.get("svc", "/"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(service.seen().iter().all(|seen| bearer_of(seen) == "Bearer token-1-for-you"));
    let asked = endpoint.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("POST", "/token?tenant=1"));
    assert_eq!(&asked[0].body[..], b"grant_type=client_credentials&scope=read+write");
    // base64("me%3A1:hunter2%2Fhunter2%2Bhunter2")
    assert_eq!(bearer_of(&asked[0]), "Basic bWUlM0ExOmh1bnRlcjIlMkZodW50ZXIyJTJCaHVudGVyMg==");

    pause();
    advance(Duration::from_secs(3600 - 61)).await;
    resume();
    assert_eq!(session.get("svc", "/").await.status, 200);
    assert_eq!(bearer_of(&service.last()), "Bearer token-1-for-you");
    pause();
    advance(Duration::from_secs(2)).await;
    resume();
    assert_eq!(session.get("svc", "/").await.status, 200);
    assert_eq!(bearer_of(&service.last()), "Bearer token-2-for-you");
}

#[tokio::test]
async fn a_token_is_guarded_like_the_secret() {
    let endpoint = counting(3600).await;
    let service = Upstream::answering(|seen| text(bearer_of(seen).to_owned())).await;
    let session = client_credentials(&endpoint, &service);
    session.get("svc", "/").await.problem(502, "secret_reflected");
}

#[tokio::test]
async fn an_endpoint_that_wants_the_secret_in_the_form_gets_it() {
    let endpoint = Upstream::answering(|seen| {
        if seen.headers.contains_key("authorization") {
            let mut response = text(r#"{"error":"invalid_client"}"#);
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
        text(r#"{"access_token":"token-of-the-form","expires_in":"3600"}"#)
    })
    .await;
    let service = accepting().await;
    let session = client_credentials(&endpoint, &service);
    assert_eq!(session.get("svc", "/").await.status, 200);
    assert_eq!(bearer_of(&service.last()), "Bearer token-of-the-form");
    assert!(endpoint.last().body.ends_with(b"&client_id=me%3A1&client_secret=hunter2%2Fhunter2%2Bhunter2"));
}

#[tokio::test]
async fn refresh_tokens_are_replaced_as_the_endpoint_says_and_forgotten_with_a_rotation() {
    let count = AtomicUsize::new(0);
    let endpoint = Upstream::answering(move |_| {
        let count = count.fetch_add(1, Ordering::Relaxed) + 1;
        let (access, refresh) = (format!("access-{count}-token"), format!("refresh-{count}-token"));
        text(json!({"access_token": access, "expires_in": 10, "refresh_token": refresh}).to_string())
    })
    .await;
    let service = accepting().await;
    let kind = json!({"type": "oauth2_refresh", "tokenUrl": endpoint.url, "clientId": "me"});
    let session = Session::with(&[(spec(&kind, &service.url), secret("the-first-refresh"))]);
    for (body, access) in [
        ("grant_type=refresh_token&refresh_token=the-first-refresh&client_id=me", "Bearer access-1-token"),
        ("grant_type=refresh_token&refresh_token=refresh-1-token&client_id=me", "Bearer access-2-token"),
    ] {
        assert_eq!(session.get("svc", "/").await.status, 200);
        assert_eq!(&endpoint.last().body[..], body.as_bytes());
        assert_eq!(bearer_of(&service.last()), access);
        // Half of its life: it is too short for more.
        pause();
        advance(Duration::from_secs(6)).await;
        resume();
    }
    let credential =
        Credential { client_secret: Some(Secret::from("of-the-client".to_owned())), ..secret("another-refresh") };
    session.bindings.rotate(session.ids[0], credential);
    assert_eq!(session.get("svc", "/").await.status, 200);
    assert_eq!(&endpoint.last().body[..], b"grant_type=refresh_token&refresh_token=another-refresh");
    assert_eq!(bearer_of(&endpoint.last()), "Basic bWU6b2YtdGhlLWNsaWVudA==");
}

#[tokio::test]
async fn a_failing_endpoint_is_told_without_its_words_and_not_asked_at_once_again() {
    let endpoint = Upstream::answering(|seen| {
        let mut response = text(format!("wrong: {:?}", seen.headers));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let service = accepting().await;
    let session = client_credentials(&endpoint, &service);
    for _ in 0..5 {
        let detail = session.get("svc", "/").await.problem(502, "binding_upstream");
        assert_eq!(detail, "the service of binding svc: its token endpoint answered with 503 Service Unavailable");
    }
    assert_eq!((endpoint.seen().len(), service.seen().len()), (1, 0));
}

#[tokio::test]
async fn a_token_that_is_refused_is_fetched_anew_unless_it_is_young() {
    let endpoint = counting(3600).await;
    let service = Upstream::answering(|_| {
        let mut response = text("");
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
    })
    .await;
    let session = client_credentials(&endpoint, &service);
    for _ in 0..3 {
        assert_eq!(session.get("svc", "/").await.status, 401);
    }
    assert_eq!(endpoint.seen().len(), 1);
    pause();
    advance(Duration::from_secs(31)).await;
    resume();
    for _ in 0..3 {
        session.get("svc", "/").await;
    }
    assert_eq!(bearer_of(&service.last()), "Bearer token-2-for-you");
}
