//! Reading requests for fleets, every fault of shape at once.
//!
//! A fleet's body may be large, and most of it is members or inputs: it is not read into one tree, which takes many times
//! its size, but taken apart as text, and read piece by piece.

use serde_json::{Map, Value, value::RawValue};

use super::{
    Completion, CreateFleet, FleetBudget, FleetMembers, FleetTemplate, MAX_FLEET_INPUT_BYTES, MAX_FLEET_MEMBERS,
};
use crate::{
    CreateSession, JsonText,
    json::{JsonError, MAX_JSON_DEPTH, Object, parse_strict, raw_fields, raw_items},
    problem::FieldError,
};

/// Faults of members and inputs after which no more are looked for: more than are told.
pub const ENOUGH_FAULTS: usize = 200;

impl CreateFleet {
    /// Reads a request body. What could be read comes back beside every fault of shape, so that faults of content can
    /// be reported together with them.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let Some(fields) = raw_fields(body)? else {
            return Ok((Self::default(), vec![FieldError::new("(body)", "must be an object")]));
        };
        let mut members = None;
        let mut others = Map::new();
        for (name, text) in fields {
            if name == "members" {
                members = Some(text);
            } else {
                others.insert(name, parse_strict(text.get().as_bytes())?);
            }
        }
        let mut object = Object::new("", Value::Object(others), &mut faults);
        let request = Self {
            name: object.required("name"),
            members: FleetMembers::default(),
            max_concurrency: object.optional("maxConcurrency"),
            budget: object.nested("budget", FleetBudget::read),
            completion: object.nested("completion", Completion::read).unwrap_or_default(),
            labels: object.text_map("labels"),
        };
        object.finish();
        let members = if let Some(text) = members.filter(|text| text.get() != "null") {
            FleetMembers::read(text, &mut faults)?
        } else {
            faults.push(FieldError::new("members", "is required"));
            FleetMembers::default()
        };
        Ok((Self { members, ..request }, faults))
    }
}

impl FleetMembers {
    fn read(text: &RawValue, faults: &mut Vec<FieldError>) -> Result<Self, JsonError> {
        if let Some((items, count)) = raw_items(text, MAX_FLEET_MEMBERS)? {
            too_many("members", count, faults);
            let mut members = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                if faults.len() > ENOUGH_FAULTS {
                    break;
                }
                let member = parse_strict(item.get().as_bytes())?;
                members.push(CreateSession::read_at(&format!("members[{index}]"), member, faults));
            }
            return Ok(Self::Listed(members));
        }
        let Some(fields) = raw_fields(text.get().as_bytes())? else {
            let message = "must be an array of sessions, or an object with template and inputs";
            faults.push(FieldError::new("members", message));
            return Ok(Self::default());
        };
        let (mut template, mut inputs) = (None, None);
        for (name, text) in fields.into_iter().filter(|(_, text)| text.get() != "null") {
            match name.as_str() {
                "template" => {
                    let value = parse_strict(text.get().as_bytes())?;
                    template = Some(CreateSession::read_at("members.template", value, faults));
                }
                "inputs" => inputs = Some(read_inputs(text, faults)?),
                _ => faults.push(FieldError::new(format!("members.{name}"), "is not a known field")),
            }
        }
        for (field, given) in [("members.template", template.is_some()), ("members.inputs", inputs.is_some())] {
            if !given {
                faults.push(FieldError::new(field, "is required"));
            }
        }
        let (template, inputs) = (template.unwrap_or_default(), inputs.unwrap_or_default());
        Ok(Self::Template(Box::new(FleetTemplate { template, inputs })))
    }
}

fn read_inputs(text: &RawValue, faults: &mut Vec<FieldError>) -> Result<Vec<JsonText>, JsonError> {
    let Some((items, count)) = raw_items(text, MAX_FLEET_MEMBERS)? else {
        faults.push(FieldError::new("members.inputs", "must be an array"));
        return Ok(Vec::new());
    };
    too_many("members.inputs", count, faults);
    let mut inputs = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let fault = |message: String| FieldError::new(format!("members.inputs[{index}]"), message);
        if item.get().len() > MAX_FLEET_INPUT_BYTES {
            faults.push(fault(format!("must be at most {MAX_FLEET_INPUT_BYTES} bytes")));
            continue;
        }
        // As a tree, once, for keys that come twice; kept as it was given.
        parse_strict(item.get().as_bytes())?;
        match JsonText::parse(item.get().as_bytes(), MAX_JSON_DEPTH) {
            Ok(input) => inputs.push(input),
            Err(error) => faults.push(fault(error.to_string())),
        }
        if faults.len() > ENOUGH_FAULTS {
            break;
        }
    }
    Ok(inputs)
}

fn too_many(field: &str, count: usize, faults: &mut Vec<FieldError>) {
    if count > MAX_FLEET_MEMBERS {
        faults.push(FieldError::new(field, format!("must be at most {MAX_FLEET_MEMBERS}, not {count}")));
    }
}

impl Completion {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        serde_json::from_value(value).unwrap_or_else(|_| {
            let message = "must be \"all\", \"first_success\" or {\"quorum\": n}";
            faults.push(FieldError::new(path, message));
            Self::default()
        })
    }
}

impl FleetBudget {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let budget = Self {
            cpu_ms: object.optional("cpuMs"),
            wall_ms: object.optional("wallMs"),
            egress_bytes: object.optional("egressBytes"),
            binding_calls: object.optional("bindingCalls"),
        };
        object.finish();
        budget
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: &Value) -> (CreateFleet, Vec<String>) {
        let (request, faults) = CreateFleet::parse(body.to_string().as_bytes()).unwrap();
        (request, faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn what_a_client_writes_is_what_the_server_reads() {
        let (request, faults) = parse(&json!({
            "name": "shards", "members": {"template": {"code": "1"}, "inputs": [{"a": [1.50]}, null, "x"]},
            "maxConcurrency": 8, "budget": {"cpuMs": 1, "wallMs": 2, "egressBytes": 3, "bindingCalls": 4},
            "completion": {"quorum": 2}, "labels": {"team": "a"}
        }));
        assert_eq!(faults, [""; 0]);
        assert_eq!(request.completion, Completion::Quorum(2));
        let written = serde_json::to_vec(&request).unwrap();
        assert_eq!(CreateFleet::parse(&written).unwrap(), (request, vec![]));

        let (request, faults) = parse(&json!({"name": "two", "members": [{"code": "1"}, {"code": "2"}]}));
        assert_eq!(faults, [""; 0]);
        let written = serde_json::to_vec(&request).unwrap();
        assert_eq!(CreateFleet::parse(&written).unwrap(), (request, vec![]));
    }

    #[test]
    fn an_input_is_kept_as_it_was_given() {
        let body = br#"{"name": "a", "members": {"template": {"code": "1"}, "inputs": [ {"b": 1.50, "a": 12345678901234567890123} ]}}"#;
        let (request, faults) = CreateFleet::parse(body).unwrap();
        assert_eq!(faults, []);
        let FleetMembers::Template(template) = request.members else { panic!("a template") };
        assert_eq!(template.inputs[0].as_str(), r#"{"b":1.50,"a":12345678901234567890123}"#);
    }

    #[test]
    fn every_fault_is_told_with_its_path() {
        let (_, faults) = parse(&json!({
            "members": [{"code": "1"}, {"code": 2, "limits": {"cpu": "fast"}}, 5], "budget": {"cpuMs": -1, "x": 1},
            "completion": "some", "labels": {"a": 1}, "surplus": true, "maxConcurrency": "all"
        }));
        for expected in [
            "name",
            "members[1].code",
            "members[1].limits.cpu",
            "members[2]",
            "budget.cpuMs",
            "budget.x",
            "completion",
            "labels.a",
            "surplus",
            "maxConcurrency",
        ] {
            assert!(faults.contains(&expected.to_owned()), "{expected} is missing in {faults:?}");
        }
        let (_, faults) = parse(&json!({"name": "a", "members": {"template": {"code": 1}, "input": []}}));
        assert_eq!(faults, ["members.input", "members.template.code", "members.inputs"]);
        assert_eq!(parse(&json!({"name": "a", "members": "x"})).1, ["members"]);
        assert_eq!(parse(&json!({"name": "a"})).1, ["members"]);
        assert_eq!(parse(&json!([])).1, ["(body)"]);
    }

    #[test]
    fn what_is_too_much_is_counted_and_not_kept() {
        let many = vec![0; MAX_FLEET_MEMBERS + 7];
        let (request, faults) = CreateFleet::parse(
            json!({"name": "a", "members": {"template": {"code": "1"}, "inputs": many}}).to_string().as_bytes(),
        )
        .unwrap();
        assert!(faults[0].message.contains("not 10007"), "{faults:?}");
        let FleetMembers::Template(template) = request.members else { panic!("a template") };
        assert_eq!(template.inputs.len(), MAX_FLEET_MEMBERS);
        let (_, faults) = parse(&json!({"name": "a", "members": vec![0; 5000]}));
        assert!(faults.len() <= ENOUGH_FAULTS + 20, "{}", faults.len());
        let long = "x".repeat(MAX_FLEET_INPUT_BYTES);
        let (_, faults) = parse(&json!({"name": "a", "members": {"template": {"code": "1"}, "inputs": [1, long]}}));
        assert_eq!(faults, ["members.inputs[1]"]);
    }

    #[test]
    fn duplicate_keys_and_depth_are_refused_wherever_they_are() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        for body in [
            r#"{"name": "a", "name": "b"}"#.to_owned(),
            r#"{"members": [{"code": "1", "code": "2"}]}"#.to_owned(),
            r#"{"members": {"inputs": [{"a": 1, "a": 2}]}}"#.to_owned(),
            r#"{"members": {"inputs": [], "inputs": []}}"#.to_owned(),
            format!(r#"{{"members": {{"inputs": [{deep}]}}}}"#),
            format!(r#"{{"members": [{deep}]}}"#),
            r#"{"members": [} "#.to_owned(),
            "{} {}".to_owned(),
            "[1,".to_owned(),
        ] {
            assert!(CreateFleet::parse(body.as_bytes()).is_err(), "{body}");
        }
        let endless = "[".repeat(1_000_000);
        assert!(CreateFleet::parse(format!(r#"{{"members": {endless}"#).as_bytes()).is_err());
        assert!(CreateFleet::parse(b"{\"name\": \"\xff\"}").is_err());
    }
}
