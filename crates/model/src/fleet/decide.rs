//! From a request to a fleet that may be admitted: every fault of every member at once.

use std::collections::BTreeMap;

use wire::{
    Completion, CreateFleet, CreateSession, ENOUGH_FAULTS, FieldError, File, FleetBudget, FleetMembers, JsonText,
};

use crate::{
    interactive,
    limits::{FLOOR, Limits},
    session::{Misread, Refusal, SessionSpec, check_labels},
};

/// Where a member finds its input, below its working directory.
pub const INPUT_PATH: &str = "input.json";

const MAX_NAME_CHARS: usize = 128;

/// A fleet as the platform understands it.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetSpec {
    /// What to call it.
    pub name: String,
    /// What runs, as it was asked for: each member is decided on again when its turn comes.
    pub members: FleetMembers,
    /// What that is now.
    pub specs: MemberSpecs,
    /// Members at the same time.
    pub max_concurrency: Option<u32>,
    /// What all may use.
    pub budget: Option<FleetBudget>,
    /// When it has succeeded.
    pub completion: Completion,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
}

/// The different members of a fleet, each with where it stands in the request.
pub type MemberSpecs = Vec<(String, SessionSpec)>;

impl FleetSpec {
    /// Decides on a request that was read with `shape_faults`; those and the faults of its content are told together.
    pub fn decide(
        request: CreateFleet,
        mut shape_faults: Vec<FieldError>,
        maxima: &Limits,
        backends: &[&str],
    ) -> Result<Self, Refusal> {
        let misread = Misread::of(&shape_faults);
        let mut faults = Vec::new();
        check_name(&request.name, &mut faults);
        check_labels(&request.labels, &mut faults);
        let total = match &request.members {
            FleetMembers::Listed(members) => ("members", members.len()),
            FleetMembers::Template(template) => ("members.inputs", template.inputs.len()),
        };
        if total.1 == 0 {
            faults.push(FieldError::new(total.0, "must have at least one entry"));
        }
        if request.max_concurrency == Some(0) {
            faults.push(FieldError::new("maxConcurrency", "must be at least 1"));
        }
        check_completion(request.completion, total.1, &mut faults);
        check_budget(request.budget.as_ref(), &mut faults);
        let mut specs = Vec::new();
        let mut judge = |path: String, session: CreateSession, within: &dyn Fn(FieldError) -> FieldError| {
            // What could not be read of it is told already.
            let asked = budgeted(session, request.budget.as_ref());
            let decided = SessionSpec::decide(asked, &[], Vec::new(), maxima, &interactive::CEILING, backends);
            match decided {
                Ok(spec) if spec.interactive.is_some() => {
                    let message = "must be oneshot in a fleet, which ends when its members' programs have";
                    faults.push(within(FieldError::new("execMode", message)));
                }
                Ok(spec) => specs.push((path, spec)),
                Err(Refusal(own)) => faults.extend(own.into_iter().map(within)),
            }
            faults.len() <= ENOUGH_FAULTS
        };
        match &request.members {
            FleetMembers::Listed(members) => {
                for (index, member) in members.iter().enumerate() {
                    let path = format!("members[{index}]");
                    if !judge(path.clone(), member.clone(), &|fault| fault.under(&path)) {
                        break;
                    }
                }
            }
            FleetMembers::Template(template) => {
                let largest = template.inputs.iter().max_by_key(|input| input.as_str().len());
                let path = "members.template";
                let given = template.template.files.len();
                let within = |fault: FieldError| of_template(fault, given).under(path);
                judge(path.to_owned(), member_request(&template.template, largest), &within);
            }
        }
        shape_faults.extend(faults.into_iter().filter(|fault| !misread.covers(&fault.field)));
        if !shape_faults.is_empty() {
            return Err(Refusal(shape_faults));
        }
        Ok(Self {
            name: request.name,
            members: request.members,
            specs,
            max_concurrency: request.max_concurrency,
            budget: request.budget,
            completion: request.completion,
            labels: request.labels,
        })
    }

    /// How many members it has.
    pub fn total(&self) -> usize {
        match &self.members {
            FleetMembers::Listed(members) => members.len(),
            FleetMembers::Template(template) => template.inputs.len(),
        }
    }
}

/// A member of a template: the request of a session that has its input.
pub fn member_request(template: &CreateSession, input: Option<&JsonText>) -> CreateSession {
    let mut request = template.clone();
    if let Some(input) = input {
        let content = Some(input.as_str().to_owned());
        request.files.push(File { path: INPUT_PATH.to_owned(), content, ..File::default() });
    }
    request
}

/// With a limit on CPU time if the fleet has one: a backend that cannot enforce it is not asked to run such a fleet.
fn budgeted(mut session: CreateSession, budget: Option<&FleetBudget>) -> CreateSession {
    if let Some(left) = budget.and_then(|budget| budget.cpu_ms) {
        let least = FLOOR.cpu_time_ms.unwrap_or(0);
        session.limits.cpu_time_ms.get_or_insert(left.max(least));
    }
    session
}

/// A fault of a template's input is told as what it is: the template has a file of that name itself.
fn of_template(fault: FieldError, given: usize) -> FieldError {
    if fault.field.starts_with(&format!("files[{given}]")) {
        let message = format!("must not have {INPUT_PATH}: that is where each member finds its input");
        return FieldError::new("files", message);
    }
    fault
}

fn check_name(name: &str, faults: &mut Vec<FieldError>) {
    let chars = name.chars().count();
    if chars == 0 || chars > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        let message = format!("must be 1 to {MAX_NAME_CHARS} characters without control characters");
        faults.push(FieldError::new("name", message));
    }
}

fn check_completion(completion: Completion, total: usize, faults: &mut Vec<FieldError>) {
    match completion {
        Completion::All | Completion::FirstSuccess => {}
        Completion::Quorum(quorum) => {
            if quorum == 0 || quorum as usize > total {
                faults.push(FieldError::new("completion.quorum", format!("must be from 1 to {total}, the members")));
            }
        }
    }
}

fn check_budget(budget: Option<&FleetBudget>, faults: &mut Vec<FieldError>) {
    let Some(budget) = budget else { return };
    for (field, bound) in [
        ("cpuMs", budget.cpu_ms),
        ("wallMs", budget.wall_ms),
        ("egressBytes", budget.egress_bytes),
        ("bindingCalls", budget.binding_calls),
    ] {
        if bound == Some(0) {
            faults.push(FieldError::new(format!("budget.{field}"), "must be at least 1"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::limits::CEILING;

    fn decide(body: &Value) -> Result<FleetSpec, Refusal> {
        let (request, faults) = CreateFleet::parse(body.to_string().as_bytes()).unwrap();
        FleetSpec::decide(request, faults, &CEILING, &["gvisor"])
    }

    fn faults(body: &Value) -> Vec<String> {
        match decide(body) {
            Err(Refusal(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
            other => panic!("not invalid: {other:?}"),
        }
    }

    #[test]
    fn every_fault_of_every_member_is_told_where_it_stands() {
        let told = faults(&json!({
            "name": "", "members": [{"code": "1"}, {"code": "", "backend": "moon"}, {"code": "1", "limits": {"pids": 1}}, {"code": 7}],
            "maxConcurrency": 0, "completion": {"quorum": 5}, "budget": {"wallMs": 0}, "labels": {"": "x"}
        }));
        assert_eq!(
            told,
            [
                "members[3].code",
                "name",
                "labels.",
                "maxConcurrency",
                "completion.quorum",
                "budget.wallMs",
                "members[1].code",
                "members[1].backend",
                "members[2].limits.pids",
            ]
        );
        assert_eq!(faults(&json!({"name": "a", "members": []})), ["members"]);
        let none = json!({"name": "a", "members": {"template": {"code": "1"}, "inputs": []}});
        assert_eq!(faults(&none), ["members.inputs"]);
        let refused = decide(&json!({"name": "a", "members": [{"code": "1"}, {"code": "1", "webhookUrl": "x"}]}));
        let Err(Refusal(fields)) = refused else { panic!("{refused:?}") };
        assert_eq!(fields[0].field, "members[1].webhookUrl");
    }

    #[test]
    fn a_conversation_is_no_member() {
        let told = faults(&json!({"name": "a", "members": [{"code": "1"}, {"execMode": "interactive"}]}));
        assert_eq!(told, ["members[1].execMode"]);
    }

    #[test]
    fn a_template_is_decided_on_with_its_largest_input() {
        let fleet = |files: Value, inputs: Value| {
            let limits = json!({"diskBytes": 1 << 20});
            json!({"name": "a", "members": {"template": {"code": "1", "files": files, "limits": limits}, "inputs": inputs}})
        };
        let spec = decide(&fleet(json!([{"path": "a", "content": "b"}]), json!([1, {"b": 2}, null]))).unwrap();
        assert_eq!((spec.total(), spec.specs.len()), (3, 1));
        assert_eq!(spec.specs[0].1.files[1].content, br#"{"b":2}"#);
        let own = json!([{"path": "input.json", "content": ""}]);
        assert_eq!(faults(&fleet(own, json!([1]))), ["members.template.files"]);
        let below = json!([{"path": "input.json/x", "content": ""}]);
        assert_eq!(faults(&fleet(below, json!([1]))), ["members.template.files"]);
        let full = json!([{"path": "a", "content": "x".repeat(1 << 20)}]);
        assert_eq!(faults(&fleet(full, json!(["", "x"]))), ["members.template.files"]);
    }

    #[test]
    fn a_budget_of_cpu_time_is_a_limit_of_every_member() {
        let spec = decide(&json!({"name": "a", "budget": {"cpuMs": 500}, "members": [
            {"code": "1"}, {"code": "1", "limits": {"cpuTimeMs": 100}}
        ]}))
        .unwrap();
        let limits: Vec<_> = spec.specs.iter().map(|(_, spec)| spec.limits.cpu_time_ms).collect();
        assert_eq!(limits, [Some(500), Some(100)]);
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_of_fleets_panic(
            start in prop_oneof![Just(""), Just("{\"members\":"), Just("{\"members\":{\"inputs\":[")],
            rest in ".{0,200}",
            extra in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for bytes in [[start.as_bytes(), rest.as_bytes()].concat(), [start.as_bytes(), &extra].concat()] {
                if let Ok((request, faults)) = CreateFleet::parse(&bytes) {
                    let _ = FleetSpec::decide(request, faults, &CEILING, &[]);
                }
            }
        }
    }

    #[test]
    fn a_flood_of_faults_ends_the_look() {
        let members: Vec<_> = (0..5000).map(|_| json!({"code": ""})).collect();
        assert!(faults(&json!({"name": "a", "members": members})).len() < ENOUGH_FAULTS + 10);
    }
}
