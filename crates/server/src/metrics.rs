//! Prometheus metrics: what each means, and the listener that gives them out.
//!
//! The listener answers `GET /metrics` and nothing else, one request per connection, and shares nothing with the API's.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Scrapes at the same time.
const CONNECTIONS: usize = 8;
/// What a scrape may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rest after a failed accept.
const REST: Duration = Duration::from_millis(100);
/// How often what histograms have collected is folded.
const UPKEEP: Duration = Duration::from_secs(5);
/// From a warm answer to a session at its wall clock, in seconds.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric that any part of the program writes.
const METRICS: &[(Kind, &str, Unit, &str)] = &[
    (Kind::Gauge, "enclave_build_info", Unit::Count, "Always 1; the labels are the facts."),
    (Kind::Counter, "enclave_sessions_created_total", Unit::Count, "Sessions accepted, by backend."),
    (
        Kind::Counter,
        "enclave_sessions_finished_total",
        Unit::Count,
        "Sessions whose outcome was decided, by outcome and by the limit that ended them.",
    ),
    (Kind::Gauge, "enclave_sessions_held", Unit::Count, "Sessions that wait or hold a sandbox."),
    (
        Kind::Histogram,
        "enclave_sandbox_boot_seconds",
        Unit::Seconds,
        "From the order for a sandbox to limits in force, by backend.",
    ),
    (
        Kind::Histogram,
        "enclave_sandbox_reclaim_seconds",
        Unit::Seconds,
        "From the first try to remove a sandbox to nothing left of it, by backend.",
    ),
    (
        Kind::Counter,
        "enclave_artifacts_removed_total",
        Unit::Count,
        "Sessions whose artifacts were removed for their age or for the org's quota.",
    ),
    (
        Kind::Counter,
        "enclave_webhook_attempts_total",
        Unit::Count,
        "Tries to deliver a message, by what became of them.",
    ),
    (Kind::Gauge, "http_connections", Unit::Count, "Connections to the API that are open."),
    (Kind::Counter, "http_requests_total", Unit::Count, "Requests answered, by operation and status."),
    (
        Kind::Histogram,
        "http_request_duration_seconds",
        Unit::Seconds,
        "From a request's head to the beginning of its answer, by operation.",
    ),
];

/// Starts collecting. Without this call, what the program counts goes nowhere and costs nothing.
pub(crate) fn collect(backend: &str, profile: &str) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)?
        .install_recorder()?;
    for (kind, name, unit, help) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *help),
            Kind::Gauge => describe_gauge!(*name, *unit, *help),
            Kind::Histogram => describe_histogram!(*name, *unit, *help),
        }
    }
    gauge!(
        "enclave_build_info",
        "version" => env!("CARGO_PKG_VERSION"), "backend" => backend.to_owned(), "profile" => profile.to_owned()
    )
    .set(1.0);
    Ok(handle)
}

/// Answers scrapes for as long as the process lives.
pub(crate) async fn serve(listener: TcpListener, handle: PrometheusHandle) {
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let handle = handle.clone();
        tokio::spawn(async move {
            // A scraper that is too slow comes again by itself.
            let _ = timeout(PATIENCE, answer(stream, handle)).await;
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, handle: PrometheusHandle) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &handle);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(8192);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scrape broke off");
    }
}

fn respond(method: &Method, path: &str, handle: &PrometheusHandle) -> Response<Full<Bytes>> {
    let (status, body) = match (path, method) {
        ("/metrics", &Method::GET) => (StatusCode::OK, handle.render()),
        ("/metrics", _) => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Names in `counter!("…"`, `gauge!("…"`, `histogram!("…"` of every crate.
    fn written(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "tests") {
                written(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for mark in ["counter!(", "gauge!(", "histogram!("] {
                    for (at, _) in text.match_indices(mark) {
                        let rest = text[at + mark.len()..].trim_start();
                        names.extend(rest.strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned));
                    }
                }
            }
        }
    }

    #[test]
    fn every_metric_that_is_written_is_described_and_the_other_way_round() {
        let mut names = BTreeSet::new();
        for crate_dir in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap() {
            written(&crate_dir.unwrap().path().join("src"), &mut names);
        }
        names.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && name.contains('_'));
        assert!(names.len() > 5, "the search finds nothing: {names:?}");
        let described: BTreeSet<String> = METRICS.iter().map(|(_, name, _, _)| (*name).to_owned()).collect();
        assert_eq!(names, described);
    }

    #[test]
    fn only_get_metrics_is_answered() {
        let handle = PrometheusBuilder::new().build_recorder().handle();
        for (method, path, status) in [
            (Method::GET, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/", 404),
            (Method::GET, "/v1/sessions", 404),
        ] {
            assert_eq!(respond(&method, path, &handle).status().as_u16(), status, "{method} {path}");
        }
    }
}
