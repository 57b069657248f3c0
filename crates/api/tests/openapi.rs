//! The committed OpenAPI document: fresh, complete, and the same every time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::Value;

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../openapi/v1.json")
}

fn document() -> Value {
    serde_json::from_str(&api::openapi_json()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = committed();
    let now = api::openapi_json();
    if std::env::var_os("ENCLAVE_UPDATE").is_some_and(|update| update == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &now).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(held == now, "openapi/v1.json is stale: run this test with ENCLAVE_UPDATE=1, or `enclave openapi`");
}

#[test]
fn the_document_is_the_same_every_time() {
    assert_eq!(api::openapi().to_json().unwrap(), api::openapi().to_json().unwrap());
    assert!(api::openapi_json().starts_with("{\n  \"x-generated\": \"@generated"));
    assert!(api::openapi_json().ends_with("}\n"));
}

#[test]
fn the_document_and_the_table_name_the_same_operations() {
    let document = document();
    let documented: BTreeSet<_> = operations(&document)
        .iter()
        .map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    let table: BTreeSet<_> = api::Operation::ALL.iter().map(|operation| operation.id().to_owned()).collect();
    assert_eq!(documented, table);
}

#[test]
fn every_operation_says_who_may_call_it_and_how_it_fails() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    for (name, operation) in operations(&document) {
        for text in ["summary", "description"] {
            assert!(operation[text].as_str().is_some_and(|text| !text.is_empty()), "{name} has no {text}");
        }
        let id = operation["operationId"].as_str().unwrap();
        let entry = api::Operation::ALL.iter().find(|operation| operation.id() == id).unwrap();
        match entry.access() {
            api::Access::Public | api::Access::Signature => {
                assert_eq!(operation["security"], serde_json::json!([]), "{name}");
            }
            api::Access::Scope(scope) => {
                assert_eq!(operation["security"], serde_json::json!([{ "apiKey": [scope.as_str()] }]), "{name}");
            }
        }
        let responses = operation["responses"].as_object().unwrap();
        for code in entry.problems() {
            let mut response = &responses[&code.status().to_string()];
            if let Some(reference) = response["$ref"].as_str() {
                response = document.pointer(&reference[1..]).unwrap();
            }
            let listed = response["description"].as_str().unwrap();
            assert!(
                listed.contains(&format!("`{}`", serde_json::to_value(code).unwrap().as_str().unwrap())),
                "{name} {code:?}"
            );
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {code:?}");
        }
        for (status, response) in responses.iter().filter(|(_, response)| response.get("$ref").is_none()) {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
        }
        for parameter in operation["parameters"].as_array().unwrap_or(&vec![]) {
            assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {parameter}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// The derive of schemas does not know everything that the derive of JSON does.
#[test]
fn every_property_is_in_camel_case() {
    let document = document();
    let mut names = BTreeSet::new();
    properties(&document["components"]["schemas"], &mut names);
    assert!(names.contains("tokenUrl") && names.contains("windowMs"), "{names:?}");
    let odd: Vec<_> = names.iter().filter(|name| name.contains(['_', '-'])).collect();
    assert_eq!(odd, Vec::<&String>::new());
}

fn properties(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(named)) = fields.get("properties") {
                into.extend(named.keys().cloned());
            }
            fields.values().for_each(|value| properties(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| properties(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                into.insert(reference.clone());
            }
            fields.values().for_each(|value| collect(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
