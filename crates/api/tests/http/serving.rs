//! The server over TCP, with a client that behaves.

use reqwest::Client;
use serde_json::{Value, json};

use crate::harness::{Api, Builder, Listening, PATIENCE, program, within};

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

async fn create(client: &Client, server: &Listening, key: &str, body: &Value) -> Value {
    let answer = client.post(server.url("/v1/sessions")).bearer_auth(key).json(body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn sessions_run_over_http1_and_http2() {
    let api = Api::start().await;
    let key = api.owner().await.text;
    let server = api.listen().await;
    let over_http2 = Client::builder().no_proxy().timeout(PATIENCE).http2_prior_knowledge().build().unwrap();
    for (client, version) in [(client(), reqwest::Version::HTTP_11), (over_http2, reqwest::Version::HTTP_2)] {
        let session = create(&client, &server, &key, &program(&["stdout hi", "exit 3"])).await;
        let path = format!("/v1/sessions/{}/result?waitMs=20000", session["id"].as_str().unwrap());
        let answer = client.get(server.url(&path)).bearer_auth(&key).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let result: Value = answer.json().await.unwrap();
        assert_eq!((&result["exitCode"], &result["stdoutTail"]), (&json!(3), &json!("hi")));
    }
}

#[tokio::test]
async fn the_dev_profile_works_over_tcp_without_a_key() {
    let api = Builder::dev().start().await;
    let server = api.listen().await;
    for client in [client(), Client::builder().no_proxy().http2_prior_knowledge().build().unwrap()] {
        let answer = client.post(server.url("/v1/sessions")).json(&json!({ "code": "1" })).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
}

#[tokio::test]
async fn a_body_of_100_mib_is_refused_in_words() {
    let api = Api::start().await;
    let key = api.owner().await.text;
    let server = api.listen().await;
    let body = vec![b' '; 100 * 1024 * 1024];
    let with_length = client().post(server.url("/v1/sessions")).body(body.clone());
    let pieces = futures::stream::iter((0..1600).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
    let chunked = client().post(server.url("/v1/sessions")).body(reqwest::Body::wrap_stream(pieces));
    for (name, asked) in [("with a length", with_length), ("chunked", chunked)] {
        let asked = asked.bearer_auth(&key).header("content-type", "application/json");
        let answer = asked.send().await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(answer.status(), 413, "{name}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "body_too_large", "{name}");
    }
    let stranger = client().post(server.url("/v1/sessions")).header("content-type", "application/json").body(body);
    assert_eq!(stranger.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_stream_is_delivered_as_it_happens() {
    let api = Api::start().await;
    let key = api.owner().await.text;
    let server = api.listen().await;
    let session = create(&client(), &server, &key, &program(&["stdout first", "sleep 1h"])).await;
    let path = format!("/v1/sessions/{}/stream", session["id"].as_str().unwrap());
    let mut answer = client().get(server.url(&path)).bearer_auth(&key).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("first") {
        seen.push_str(std::str::from_utf8(&answer.chunk().await.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn shutting_down_answers_long_polls_ends_streams_and_leaves_nothing() {
    let api = Api::start().await;
    let key = api.owner().await.text;
    let Listening { address, stop, task } = api.listen().await;
    let server = Listening { address, stop: stop.clone(), task: tokio::spawn(async {}) };
    let session = create(&client(), &server, &key, &program(&["stdout first", "sleep 1h"])).await;
    let id = session["id"].as_str().unwrap();
    let mut stream =
        client().get(server.url(&format!("/v1/sessions/{id}/stream"))).bearer_auth(&key).send().await.unwrap();
    within("the first frame", stream.chunk()).await.unwrap().unwrap();
    // One HTTP/2 connection takes its requests in order: when the second is answered, the first is under way.
    let one = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    one.get(server.url("/healthz")).send().await.unwrap();
    let poll = one.get(server.url(&format!("/v1/sessions/{id}/result?waitMs=60000"))).bearer_auth(&key).send();
    let stopping = async {
        one.get(server.url("/healthz")).send().await.unwrap();
        stop.cancel();
    };
    let (answer, ()) = within("an answer to the poll", async { tokio::join!(poll, stopping) }).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 409);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "not_finished");
    while within("the end of the stream", stream.chunk()).await.unwrap().is_some() {}
    within("the server's end", task).await.unwrap();
    assert!(client().get(server.url("/healthz")).send().await.is_err(), "nobody listens any more");
}
