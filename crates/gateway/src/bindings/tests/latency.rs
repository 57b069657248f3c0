//! What a bound call costs more than the same call made directly. Run by hand:
//! `cargo nextest run --release -p gateway --run-ignored only --no-capture latency`

use std::time::{Duration, Instant};

use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    upstream::{Upstream, text},
    *,
};

const CALLS: usize = 5000;

fn told(what: &str, mut took: Vec<Duration>) {
    took.sort();
    eprintln!("{what}: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn latency_of_a_bound_call() {
    let body =
        serde_json::to_vec(&vec![json!({"id": 1, "name": "an item", "url": "https://api.test/1"}); 100]).unwrap();
    let upstream = Upstream::answering(move |_| text(body.clone())).await;
    let session = Session::with(&[(bearer(&upstream.url), secret(SECRET))]);
    let direct: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let (mut without, mut within) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let began = Instant::now();
        let response = direct.request(get(&format!("{}/", upstream.url))).await.unwrap();
        response.into_body().collect().await.unwrap();
        without.push(began.elapsed());
        let began = Instant::now();
        assert_eq!(session.get("svc", "/").await.status, 200);
        within.push(began.elapsed());
    }
    told("direct", without);
    told("bound", within);

    let large = Upstream::answering(|_| text(vec![b'x'; 256 << 20])).await;
    let session = Session::with(&[(bearer(&large.url), secret(SECRET))]);
    let began = Instant::now();
    direct.request(get(&format!("{}/", large.url))).await.unwrap().into_body().collect().await.unwrap();
    eprintln!("256 MiB direct: {:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(session.get("svc", "/").await.body.len(), 256 << 20);
    eprintln!("256 MiB bound: {:?}", began.elapsed());
}
