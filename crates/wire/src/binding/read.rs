//! Reading requests for bindings, every fault of shape at once. What is read here may be a secret: no message repeats a
//! value.

use serde_json::Value;

use super::{
    BindingAllow, BindingBudget, BindingKind, BindingSecret, BindingSpec, BindingUpstream, CreateBinding,
    UpdateBinding, git_user, just_the_secret,
};
use crate::{
    json::{JsonError, Object, parse_strict},
    problem::FieldError,
    request::read_text,
};

/// The words for the types of kinds, for people.
const KINDS: &str = "header, bearer, basic, query, oauth2_client_credentials, oauth2_refresh, aws_sigv4 or git";

impl CreateBinding {
    /// Reads a request body. What could be read comes back beside every fault of shape, so that faults of content can
    /// be reported together with them.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let mut object = Object::new("", parse_strict(body)?, &mut faults);
        let request = Self {
            spec: BindingSpec {
                name: text(&mut object, "name"),
                kind: object.required_nested("kind", BindingKind::read).unwrap_or_default(),
                upstream: object.required_nested("upstream", BindingUpstream::read).unwrap_or_default(),
                allow: object.list("allow", |path, value, faults| Some(BindingAllow::read(path, value, faults))),
                budget: object.nested("budget", BindingBudget::read),
            },
            secret: object.required_nested("secret", BindingSecret::read).unwrap_or_default(),
        };
        object.finish();
        Ok((request, faults))
    }
}

impl UpdateBinding {
    /// Reads a request body, as [`CreateBinding::parse`] does.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let mut object = Object::new("", parse_strict(body)?, &mut faults);
        if object.raw("name").is_some() {
            object.fault("name", "cannot be changed: sessions know the binding by it");
        }
        let given = object.has("allow");
        let allow = object.list("allow", |path, value, faults| Some(BindingAllow::read(path, value, faults)));
        let request = Self {
            kind: object.nested("kind", BindingKind::read),
            upstream: object.nested("upstream", BindingUpstream::read),
            allow: given.then_some(allow),
            budget: object.nested("budget", BindingBudget::read),
            secret: object.nested("secret", BindingSecret::read),
        };
        object.finish();
        Ok((request, faults))
    }
}

impl BindingSecret {
    /// Reads a request body that is a secret and nothing else.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let secret = Self::read("", parse_strict(body)?, &mut faults);
        Ok((secret, faults))
    }

    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let secret = Self {
            value: text(&mut object, "value"),
            client_secret: optional_text(&mut object, "clientSecret"),
            session_token: optional_text(&mut object, "sessionToken"),
        };
        object.finish();
        secret
    }
}

impl BindingKind {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let kind = text(&mut object, "type");
        let read = match kind.as_str() {
            "header" => Self::Header {
                name: text(&mut object, "name"),
                template: optional_text(&mut object, "template").unwrap_or_else(just_the_secret),
            },
            "bearer" => Self::Bearer,
            "basic" => Self::Basic { username: text(&mut object, "username") },
            "query" => Self::Query { parameter: text(&mut object, "parameter") },
            "oauth2_client_credentials" => Self::OAuth2ClientCredentials {
                token_url: text(&mut object, "tokenUrl"),
                client_id: text(&mut object, "clientId"),
                scopes: object.list("scopes", read_text),
            },
            "oauth2_refresh" => Self::OAuth2Refresh {
                token_url: text(&mut object, "tokenUrl"),
                client_id: text(&mut object, "clientId"),
            },
            "aws_sigv4" => Self::AwsSigV4 {
                region: text(&mut object, "region"),
                service: text(&mut object, "service"),
                access_key_id: text(&mut object, "accessKeyId"),
            },
            "git" => Self::Git { username: optional_text(&mut object, "username").unwrap_or_else(git_user) },
            // What else it has belongs to a kind that nobody knows.
            "" => return Self::default(),
            _ => {
                object.fault("type", format!("must be {KINDS}"));
                return Self::default();
            }
        };
        object.finish();
        read
    }
}

impl BindingUpstream {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let upstream = Self { url: text(&mut object, "url"), ca_pem: optional_text(&mut object, "caPem") };
        object.finish();
        upstream
    }
}

impl BindingAllow {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let allow = Self { methods: object.list("methods", read_text), paths: object.list("paths", read_text) };
        object.finish();
        allow
    }
}

impl BindingBudget {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let budget = Self {
            calls: object.optional("calls"),
            bytes: object.optional("bytes"),
            window_ms: object.optional("windowMs"),
        };
        object.finish();
        budget
    }
}

/// A text that must be there. The messages of serde would repeat a number that stands in its place.
fn text(object: &mut Object<'_>, field: &str) -> String {
    object.required_nested(field, read_text).flatten().unwrap_or_default()
}

fn optional_text(object: &mut Object<'_>, field: &str) -> Option<String> {
    object.nested(field, read_text).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kinds() -> Vec<Value> {
        vec![
            json!({"type": "header", "name": "x-api-key", "template": "Token {secret}"}),
            json!({"type": "header", "name": "x-api-key"}),
            json!({"type": "bearer"}),
            json!({"type": "basic", "username": "me"}),
            json!({"type": "query", "parameter": "key"}),
            json!({"type": "oauth2_client_credentials", "tokenUrl": "https://a.test/t", "clientId": "c", "scopes": ["a", "b"]}),
            json!({"type": "oauth2_refresh", "tokenUrl": "https://a.test/t", "clientId": "c"}),
            json!({"type": "aws_sigv4", "region": "eu-central-1", "service": "s3", "accessKeyId": "AKIA"}),
            json!({"type": "git"}),
            json!({"type": "git", "username": "me"}),
        ]
    }

    #[test]
    fn a_whole_request_is_read_as_serde_would() {
        for kind in kinds() {
            let body = json!({
                "name": "github", "kind": kind, "upstream": {"url": "https://api.example.com/v1", "caPem": "x"},
                "allow": [{"methods": ["GET"], "paths": ["/a/**"]}, {}], "budget": {"calls": 1, "bytes": 2, "windowMs": 3},
                "secret": {"value": "s3cret-s3cret", "clientSecret": "c", "sessionToken": "t"},
            });
            let (request, faults) = CreateBinding::parse(body.to_string().as_bytes()).unwrap();
            assert_eq!(faults, []);
            assert_eq!(request, serde_json::from_value(body.clone()).unwrap(), "{body}");
            assert_eq!(request.spec.kind.as_str(), kind["type"]);
            // What a client writes is what the server reads.
            let written = serde_json::to_vec(&request).unwrap();
            assert_eq!(CreateBinding::parse(&written).unwrap(), (request, vec![]));
        }
    }

    #[test]
    fn a_change_is_read_as_serde_would_and_what_is_absent_stays_absent() {
        let body = json!({"kind": {"type": "bearer"}, "upstream": {"url": "http://a.test"}, "allow": [], "budget": {}});
        let (change, faults) = UpdateBinding::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(faults, []);
        assert_eq!(change, serde_json::from_value(body).unwrap());
        assert_eq!(change.allow, Some(vec![]));
        assert_eq!(UpdateBinding::parse(b"{\"allow\": null}").unwrap(), (UpdateBinding::default(), vec![]));
        let (_, faults) = UpdateBinding::parse(b"{\"name\": \"other\", \"allow\": {}}").unwrap();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["name", "allow"]);
    }

    #[test]
    fn all_faults_come_at_once_by_name_and_without_what_was_given() {
        let body = br#"{"name": 424242, "kind": {"type": "canary-a"}, "upstream": {"url": ["canary-b"], "proxy": 1},
            "allow": [{"methods": "GET"}, 5], "budget": {"calls": -1, "windowMs": "canary-c"}, "colour": "canary-d",
            "secret": {"value": 987654321, "clientSecret": ["canary-e"], "sessionToken": {}, "canary": "canary-f"}}"#;
        let (_, faults) = CreateBinding::parse(body).unwrap();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        for expected in [
            "name",
            "kind.type",
            "upstream.url",
            "upstream.proxy",
            "allow[0].methods",
            "allow[1]",
            "budget.calls",
            "budget.windowMs",
            "colour",
            "secret.value",
            "secret.clientSecret",
            "secret.sessionToken",
            "secret.canary",
        ] {
            assert!(fields.contains(&expected), "{expected} is missing in {faults:#?}");
        }
        let told = faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>().join("\n");
        assert!(!told.contains("canary") && !told.contains("4242") && !told.contains("9876"), "{told}");
    }

    #[test]
    fn what_is_missing_is_told_once() {
        let told = |body: &[u8]| -> Vec<String> {
            CreateBinding::parse(body).unwrap().1.into_iter().map(|fault| fault.field).collect()
        };
        assert_eq!(told(b"{}"), ["name", "kind", "upstream", "secret"]);
        assert_eq!(told(b"[]"), ["(body)", "name", "kind", "upstream", "secret"]);
        let (_, faults) = BindingSecret::parse(b"\"hunter2hunter2\"").unwrap();
        assert!(faults.iter().all(|fault| !fault.message.contains("hunter2")), "{faults:?}");
    }

    #[test]
    fn a_body_that_is_no_json_is_refused_without_being_repeated() {
        for body in
            [&b"{\"value\": \"hunter2"[..], b"{\"value\": hunter2}", b"hunter2", b"{\"value\": \"hunter2\x01\"}"]
        {
            let error = BindingSecret::parse(body).unwrap_err();
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_secret_cannot_be_printed() {
        let (request, _) = CreateBinding::parse(br#"{"secret": {"value": "hunter2"}}"#).unwrap();
        assert_eq!(request.secret.value, "hunter2");
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
