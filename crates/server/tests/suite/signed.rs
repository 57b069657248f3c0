//! Requests that the gateway signs (AWS Signature Version 4), to a store that checks signatures.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use wire::{BindingSecret, Outcome, SessionResult};

use crate::{
    server::{Server, backends},
    store::{self, ACCESS_KEY_ID, REGION, SECRET_KEY},
};

/// Puts, lists and gets as a program does that knows the store's API and no key.
const PROGRAM: &str = r#"
import os, urllib.error, urllib.parse, urllib.request
base = os.environ["ENCLAVE_SVC_STORE"]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def ask(method, path, body=None):
    request = urllib.request.Request(base + path, data=body, method=method)
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
name = "/kept/" + urllib.parse.quote("reports/a b+ü~(1).txt")
told = {
    "put": ask("PUT", name, b"what the program wrote"),
    "get": ask("GET", name),
    "list": ask("GET", "/kept?list-type=2&prefix=" + urllib.parse.quote("reports/a b", safe="")),
    "elsewhere": ask("GET", "/other/secret.txt"),
}
enclave.result(told)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_checks_signatures_takes_what_the_gateway_signs_and_nothing_else() {
    let test = "a_store_that_checks_signatures_takes_what_the_gateway_signs_and_nothing_else";
    if !backends(test).contains(&"gvisor") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("kept")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = folder.path().to_owned();
    let serving = tokio::spawn(async move { store::serve(listener, &path).await });
    let server = Server::start("gvisor", &[&format!("--egress-permit=127.0.0.1/32:{port}")]).await;
    let client = server.client();
    let binding = json!({
        "name": "store", "secret": {"value": SECRET_KEY},
        "kind": {"type": "aws_sigv4", "region": REGION, "service": "s3", "accessKeyId": ACCESS_KEY_ID},
        "upstream": {"url": format!("http://127.0.0.1:{port}")},
        "allow": [{"methods": ["GET", "PUT"], "paths": ["/kept", "/kept/**"]}],
    });
    let binding = client.create_binding(&serde_json::from_value(binding).unwrap()).await.unwrap();
    let run = async || -> SessionResult {
        let request = json!({"code": PROGRAM, "serviceBindings": ["store"]});
        let id = client.create(&serde_json::from_value(request).unwrap()).await.unwrap().id;
        client.result(id, Duration::from_mins(2)).await.unwrap()
    };

    let result = run().await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:#?}");
    let told = result.value().unwrap();
    assert_eq!(told["put"][0], 200, "{told:#}");
    assert_eq!(told["get"], json!([200, "what the program wrote"]), "{told:#}");
    assert_eq!(told["list"][0], 200, "{told:#}");
    assert!(told["list"][1].as_str().unwrap().contains("<Key>reports/a b+ü~(1).txt</Key>"), "{told:#}");
    assert_eq!(told["elsewhere"][0], 403, "{told:#}");
    let kept = std::fs::read_to_string(folder.path().join("kept/reports/a b+ü~(1).txt")).unwrap();
    assert_eq!(kept, "what the program wrote");

    let wrong = BindingSecret { value: "another key".into(), ..BindingSecret::default() };
    client.rotate_binding(binding.id, &wrong).await.unwrap();
    let told = run().await.value().unwrap();
    for request in ["put", "get", "list"] {
        assert_eq!(told[request][0], 403, "{told:#}");
        assert!(told[request][1].as_str().unwrap().contains("SignatureDoesNotMatch"), "{told:#}");
    }
    serving.abort();
    server.audit_verifies().unwrap();
}
