use serde_json::{Value, json};
use wire::{BindingKind, BindingSecret, BindingSpec, CreateBinding, UpdateBinding};

use super::{Upstream, create, rotate, same_destination, update};
use crate::{egress::Host, gateway::Credential};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIU\nQUJD+/==\n-----END CERTIFICATE-----\n";

fn body() -> Value {
    json!({
        "name": "github", "kind": {"type": "bearer"}, "upstream": {"url": "https://api.example.com/v1"},
        "secret": {"value": "canary-0123456789"},
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut body = body();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[field] = value;
    body
}

fn decide(body: &Value) -> Result<(BindingSpec, Credential), Vec<String>> {
    let (request, shape) = CreateBinding::parse(body.to_string().as_bytes()).unwrap();
    create(request, shape).map_err(|faults| {
        assert!(faults.iter().all(|fault| !fault.message.contains("canary")), "{faults:?}");
        faults.into_iter().map(|fault| fault.field).collect()
    })
}

#[track_caller]
fn good(body: &Value) -> BindingSpec {
    decide(body).unwrap_or_else(|faults| panic!("{body}: {faults:?}")).0
}

#[track_caller]
fn bad(body: &Value, field: &str) {
    assert_eq!(decide(body).expect_err(&body.to_string()), [field], "{body}");
}

#[test]
fn names_are_labels_of_dns() {
    for name in ["a", "github", "s3-eu", "a--b", "x9", &"a".repeat(40)] {
        good(&with("/name", json!(name)));
    }
    for name in ["", "-a", "a-", "9a", "A", "a_b", "a.b", "a b", "ä", "a\n", &"a".repeat(41)] {
        bad(&with("/name", json!(name)), "name");
    }
}

#[test]
fn an_upstream_is_one_place_in_one_spelling() {
    let parse = |text: &str| text.parse::<Upstream>();
    let name = |name: &str| Host::Name(name.to_owned());
    let upstream = |tls, host, port, base: &str| Upstream { tls, host, port, base: base.to_owned() };
    for (text, expected) in [
        ("https://api.example.com", upstream(true, name("api.example.com"), 443, "")),
        ("http://API.example.com.:8080/", upstream(false, name("api.example.com"), 8080, "")),
        ("https://a.test/v1/x%20y/", upstream(true, name("a.test"), 443, "/v1/x%20y")),
        ("https://127.0.0.1:8443/a", upstream(true, Host::Address("127.0.0.1".parse().unwrap()), 8443, "/a")),
        ("http://[2001:db8::1]:81", upstream(false, Host::Address("2001:db8::1".parse().unwrap()), 81, "")),
        ("http://10.0.0.5", upstream(false, Host::Address("10.0.0.5".parse().unwrap()), 80, "")),
    ] {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "api.example.com",
        "ftp://a.test",
        "HTTPS://a.test",
        "https://",
        "https:///a",
        "https://a.test?x=1",
        "https://a.test/#a",
        "https://user:pw@a.test",
        "https://user@a.test",
        "https://a.test:0",
        "https://a.test:65536",
        "https://a.test:",
        "https://a.test:80:80",
        "https://::1",
        "https://[::1",
        "https://[::1]x",
        "https://a b.test",
        "https://a.test/a b",
        "https://a.test\\b",
        "https://a.test/\u{e4}",
        "https://a.test/a/../b",
        "https://a.test/%2e%2E/b",
        "https://a.test/.",
        "https://a.test/a//b",
        "https://a.test/%zz",
        "https://a.test/%2",
        "https://a.test\r\nHost: b",
        "https://github.enclave.internal",
        "https://enclave.internal",
    ] {
        assert!(parse(text).is_err(), "{text}");
        bad(&with("/upstream/url", json!(text)), "upstream.url");
        assert_eq!(
            decide(&with("/kind", json!({"type": "oauth2_refresh", "tokenUrl": text, "clientId": "c"}))).unwrap_err(),
            ["kind.tokenUrl"],
            "{text}"
        );
    }
    let long = format!("https://a.test/{}", "a".repeat(2048));
    bad(&with("/upstream/url", json!(long)), "upstream.url");
    parse("https://notenclave.internal").unwrap();
}

#[test]
fn no_binding_leads_to_an_address_that_is_always_refused_in_any_spelling() {
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "169.254.1.1",
        "[fe80::1]",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "[::]",
        "[ff02::1]",
        "100.100.100.200",
    ] {
        bad(&with("/upstream/url", json!(format!("http://{host}/latest"))), "upstream.url");
    }
}

#[test]
fn only_certificates_are_taken_as_certificates() {
    let ca = |pem: &str| with("/upstream", json!({"url": "https://a.test", "caPem": pem}));
    good(&ca(PEM));
    good(&ca(&format!("{PEM}\r\n{PEM}")));
    let key = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    for pem in [
        "",
        "MIIB",
        key,
        &format!("{PEM}{key}"),
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN CERTIFICATE-----\nMI<B\n-----END CERTIFICATE-----\n",
        &PEM.repeat(1000),
    ] {
        bad(&ca(pem), "upstream.caPem");
    }
    bad(&with("/upstream", json!({"url": "http://a.test", "caPem": PEM})), "upstream.caPem");
}

#[test]
fn each_kind_takes_what_it_can_send_and_nothing_else() {
    let oauth = |scopes: Value| json!({"type": "oauth2_client_credentials", "tokenUrl": "https://a.test/t", "clientId": "c", "scopes": scopes});
    for kind in [
        json!({"type": "header", "name": "X-Api-Key"}),
        json!({"type": "header", "name": "authorization", "template": "Token token={secret}, v=1"}),
        json!({"type": "basic", "username": ""}),
        json!({"type": "query", "parameter": "key"}),
        oauth(json!(["repo", "https://a.test/scope"])),
        json!({"type": "aws_sigv4", "region": "eu-central-1", "service": "s3", "accessKeyId": "AKIAEXAMPLE"}),
        json!({"type": "git"}),
    ] {
        good(&with("/kind", kind));
    }
    for (kind, field) in [
        (json!({"type": "header", "name": "Host"}), "kind.name"),
        (json!({"type": "header", "name": "transfer-encoding"}), "kind.name"),
        (json!({"type": "header", "name": "Content-Length"}), "kind.name"),
        (json!({"type": "header", "name": "Proxy-Authorization"}), "kind.name"),
        (json!({"type": "header", "name": "a:b"}), "kind.name"),
        (json!({"type": "header", "name": "a\r\nb"}), "kind.name"),
        (json!({"type": "header", "name": ""}), "kind.name"),
        (json!({"type": "header", "name": "x", "template": "Token"}), "kind.template"),
        (json!({"type": "header", "name": "x", "template": "{secret}{secret}"}), "kind.template"),
        (json!({"type": "header", "name": "x", "template": "a\r\nx: {secret}"}), "kind.template"),
        (json!({"type": "header", "name": "x", "template": "{secret} "}), "kind.template"),
        (json!({"type": "basic", "username": "a:b"}), "kind.username"),
        (json!({"type": "git", "username": "a\nb"}), "kind.username"),
        (json!({"type": "query", "parameter": ""}), "kind.parameter"),
        (oauth(json!(["a b"])), "kind.scopes[0]"),
        (oauth(json!(vec!["a"; 33])), "kind.scopes"),
        (json!({"type": "aws_sigv4", "region": "a/b", "service": "s3", "accessKeyId": "A"}), "kind.region"),
        (json!({"type": "aws_sigv4", "region": "a", "service": "", "accessKeyId": "A"}), "kind.service"),
    ] {
        bad(&with("/kind", kind), field);
    }
}

#[test]
fn what_may_be_asked_is_methods_and_paths() {
    good(&with("/allow", json!([{"methods": ["GET", "M-SEARCH"], "paths": ["/", "/a/*/b", "/**", "/a/**/c*"]}, {}])));
    for (entry, field) in [
        (json!({"methods": ["get"]}), "allow[0].methods[0]"),
        (json!({"methods": [""]}), "allow[0].methods[0]"),
        (json!({"methods": ["GET", "TRACE"]}), "allow[0].methods[1]"),
        (json!({"methods": ["CONNECT"]}), "allow[0].methods[0]"),
        (json!({"methods": vec!["GET"; 17]}), "allow[0].methods"),
        (json!({"paths": ["a"]}), "allow[0].paths[0]"),
        (json!({"paths": ["/a?b"]}), "allow[0].paths[0]"),
        (json!({"paths": ["/a/../b"]}), "allow[0].paths[0]"),
        (json!({"paths": ["/a**"]}), "allow[0].paths[0]"),
        (json!({"paths": ["/a\n"]}), "allow[0].paths[0]"),
        (json!({"paths": [format!("/{}", "a".repeat(1024))]}), "allow[0].paths[0]"),
        (json!({"paths": vec!["/"; 65]}), "allow[0].paths"),
    ] {
        bad(&with("/allow", json!([entry])), field);
    }
    bad(&with("/allow", json!(vec![json!({}); 33])), "allow");
}

#[test]
fn a_budget_bounds_something() {
    good(&with("/budget", json!({"calls": 1, "windowMs": 1000})));
    assert_eq!(good(&with("/budget", json!({}))).budget, None);
    bad(&with("/budget", json!({"calls": 0})), "budget.calls");
    bad(&with("/budget", json!({"bytes": 0})), "budget.bytes");
    bad(&with("/budget", json!({"windowMs": 1000})), "budget.windowMs");
}

#[test]
fn a_secret_can_be_sent_and_is_never_told() {
    for value in
        ["canary", "", "canary-\u{0}-canary", "canary\r\nHost: canary", "canary-\u{e4}-canary", " canary-canary"]
    {
        bad(&with("/secret/value", json!(value)), "secret.value");
    }
    bad(&with("/secret/value", json!("x".repeat(16385))), "secret.value");
    // A password may have letters of any language; it is encoded before it is sent.
    let mut basic = with("/kind", json!({"type": "basic", "username": "me"}));
    basic["secret"]["value"] = json!("canary-p\u{e4}ssword ");
    good(&basic);
    bad(&with("/secret/clientSecret", json!("canary-0123")), "secret.clientSecret");
    bad(&with("/secret/sessionToken", json!("canary-0123")), "secret.sessionToken");
    let refresh: BindingKind =
        serde_json::from_value(json!({"type": "oauth2_refresh", "tokenUrl": "https://a.test", "clientId": "c"}))
            .unwrap();
    let secret =
        BindingSecret { value: "canary-0123".into(), client_secret: Some("canary-4567".into()), session_token: None };
    let credential = rotate(&refresh, secret.clone(), vec![]).unwrap();
    assert_eq!(credential.client_secret.unwrap().expose(), "canary-4567");
    let faults = rotate(&BindingKind::Bearer, secret, vec![]).unwrap_err();
    assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["clientSecret"]);
}

#[test]
fn shape_and_content_are_told_together_and_a_misread_field_once() {
    let mut faulty = body();
    faulty["name"] = json!("A");
    faulty["kind"] = json!({"type": "telepathy"});
    faulty["upstream"] = json!(5);
    faulty["allow"] = json!([{"methods": ["get"]}]);
    faulty["budget"] = json!({"calls": 0, "surplus": 1});
    faulty["secret"] = json!({"value": "canary"});
    assert_eq!(
        decide(&faulty).unwrap_err(),
        [
            "kind.type",
            "upstream",
            "upstream.url",
            "budget.surplus",
            "name",
            "allow[0].methods[0]",
            "budget.calls",
            "secret.value"
        ]
    );
    assert_eq!(decide(&json!({})).unwrap_err(), ["name", "kind", "upstream", "secret"]);
}

fn change(now: &BindingSpec, body: &Value) -> Result<(BindingSpec, Option<Credential>), Vec<String>> {
    let (change, shape) = UpdateBinding::parse(body.to_string().as_bytes()).unwrap();
    update(now, change, shape).map_err(|faults| faults.into_iter().map(|fault| fault.field).collect())
}

#[test]
fn what_leads_a_secret_elsewhere_needs_the_secret() {
    let now = good(&with("/kind", json!({"type": "oauth2_refresh", "tokenUrl": "https://a.test/t", "clientId": "c"})));
    let secret = json!({"value": "canary-0123456789"});
    for elsewhere in [
        json!({"upstream": {"url": "https://evil.test/v1"}}),
        json!({"upstream": {"url": "http://api.example.com/v1"}}),
        json!({"upstream": {"url": "https://api.example.com/v2"}}),
        json!({"upstream": {"url": "https://api.example.com/v1", "caPem": PEM}}),
        json!({"kind": {"type": "bearer"}}),
        json!({"kind": {"type": "oauth2_refresh", "tokenUrl": "https://evil.test/t", "clientId": "c"}}),
    ] {
        assert_eq!(change(&now, &elsewhere).unwrap_err(), ["secret"], "{elsewhere}");
        let mut given = elsewhere;
        given["secret"] = secret.clone();
        let (spec, credential) = change(&now, &given).unwrap();
        assert!(credential.is_some() && !same_destination(&now, &spec));
    }
    for same in [
        json!({}),
        json!({"allow": [{"methods": ["GET"]}]}),
        json!({"budget": {"calls": 5}}),
        json!({"upstream": {"url": "https://api.example.com/v1"}}),
        json!({"kind": {"type": "oauth2_refresh", "tokenUrl": "https://a.test/t", "clientId": "other"}}),
    ] {
        let (spec, credential) = change(&now, &same).unwrap();
        assert!(credential.is_none() && same_destination(&now, &spec), "{same}");
    }
}

#[test]
fn a_change_changes_what_it_names_and_nothing_else() {
    let mut all = with("/budget", json!({"calls": 5}));
    all["allow"] = json!([{"methods": ["GET"]}]);
    let now = good(&all);
    assert_eq!(change(&now, &json!({})).unwrap(), (now.clone(), None));
    let (spec, _) = change(&now, &json!({"allow": [], "budget": {}})).unwrap();
    assert_eq!(spec, BindingSpec { allow: vec![], budget: None, ..now.clone() });
    assert_eq!(
        change(&now, &json!({"name": "x", "allow": [{"paths": ["x"]}]})).unwrap_err(),
        ["name", "allow[0].paths[0]"]
    );
}
