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

    // Text with lines, of which some bytes begin forms.
    let large_body = Bytes::from(
        b"2026-01-01 12:00:00 GET /an/item?of=some&length=17 200 OK hello world, said h\n".repeat(4 << 20)[..256 << 20]
            .to_vec(),
    );
    let large = Upstream::answering(move |_| text(large_body.clone())).await;
    let session = Session::with(&[(bearer(&large.url), secret(SECRET))]);
    for _ in 0..3 {
        let began = Instant::now();
        let response = direct.request(get(&format!("{}/", large.url))).await.unwrap();
        drain(response.into_body()).await;
        eprintln!("256 MiB direct: {:?}", began.elapsed());
        let began = Instant::now();
        drain(session.bindings.serve("svc", get("/")).await.into_body()).await;
        eprintln!("256 MiB bound: {:?}", began.elapsed());
    }
}

async fn drain<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let mut size = 0;
    while let Some(Ok(frame)) = body.frame().await {
        size += frame.into_data().map_or(0, |data| data.len());
    }
    assert_eq!(size, 256 << 20);
}

#[test]
#[ignore = "a measurement"]
fn latency_of_the_guard_alone() {
    let line = b"2026-01-01 12:00:00 GET /an/item?of=some&length=17 200 OK \"hello\\nworld\" %41, said h\n";
    let text = Bytes::from(line.repeat(1 << 20));
    let forms = Arc::new(guard::Forms::of([SECRET.as_bytes()]).unwrap());
    let mut guard = guard::Guard::new(&forms, None).unwrap();
    let began = Instant::now();
    for chunk in text.chunks(64 * 1024) {
        guard.push(text.slice_ref(chunk)).unwrap();
        while guard.pop().is_some() {}
    }
    eprintln!("{} MiB guarded: {:?}", text.len() >> 20, began.elapsed());
}
