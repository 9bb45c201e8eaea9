//! Rules, resources and explanations of a module on this node.

use safe_failover::resource::{Resource as Known, Value, check_name};
use safe_failover::rule::Origin;
use safe_failover::{Explanation, Standing};
use safe_proto::module::{
    self, ExplainModuleResponse, FailoverRule, ListRulesResponse, Resource, ResourceValue, SetResourceRequest,
};
use safe_proto::spec::rules::BUILT_IN;
use tonic::Status;

use super::{Desk, refuse, validate};

/// Longest reason given with a value.
const MAX_REASON: usize = 256;

/// Rules as they stand, and the resources they may compare.
pub(super) async fn list(desk: &Desk, module: &str) -> Result<ListRulesResponse, Status> {
    validate::module(module)?;
    let inspection = desk.context.node.inspect(module).await.map_err(refuse)?;
    let own = inspection.own.iter().map(|(name, value)| Resource {
        name: (*name).to_owned(),
        value: value.to_string(),
        ..Resource::default()
    });
    let told = inspection.resources.iter().map(|(name, known)| resource(name, known));
    let mut resources: Vec<Resource> = own.chain(told).collect();
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    let rules = inspection.rules.iter().map(rule).chain(BUILT_IN.iter().map(|(label, what)| FailoverRule {
        label: (*label).to_owned(),
        condition: (*what).to_owned(),
        action: "wait".to_owned(),
        origin: "built-in".to_owned(),
        ..FailoverRule::default()
    }));
    Ok(ListRulesResponse { node: desk.own()?, rules: rules.collect(), resources })
}

/// Sets a resource as a checker would.
pub(super) async fn set(desk: &Desk, request: &SetResourceRequest) -> Result<(), Status> {
    validate::module(&request.module)?;
    check_name(&request.resource).map_err(Status::invalid_argument)?;
    if request.resource == "state" || request.resource.starts_with("data.") {
        return Err(Status::invalid_argument(format!(
            "{} follows from what the module does: it cannot be set",
            request.resource
        )));
    }
    if request.reason.len() > MAX_REASON || request.reason.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "a reason has at most {MAX_REASON} bytes, on one line"
        )));
    }
    let value = if request.up { Value::Up } else { Value::Down };
    let node = &desk.context.node;
    node.set_resource(&request.module, &request.resource, value, &request.reason).await.map_err(refuse)
}

/// Why the module is in its state, and what if.
pub(super) async fn explain(desk: &Desk, module: &str) -> Result<ExplainModuleResponse, Status> {
    validate::module(module)?;
    let inspection = desk.context.node.inspect(module).await.map_err(refuse)?;
    let lines = inspection.explanations.into_iter().map(explanation).collect();
    Ok(ExplainModuleResponse { node: desk.own()?, lines })
}

fn explanation(line: Explanation) -> module::Explanation {
    module::Explanation { question: line.question, answer: line.answer, hint: line.hint.unwrap_or_default() }
}

fn rule(standing: &Standing) -> FailoverRule {
    let rule = &standing.rule;
    let origin = match rule.origin {
        Origin::Default => "default",
        Origin::Module => "module",
    };
    FailoverRule {
        label: rule.label.clone(),
        condition: rule.text.clone(),
        action: rule.then.name().to_owned(),
        after_ms: u64::try_from(rule.after.as_millis()).unwrap_or(u64::MAX),
        origin: origin.to_owned(),
        holds: standing.holds,
        facts: standing.facts.iter().map(ToString::to_string).collect(),
    }
}

fn resource(name: &str, known: &Known) -> Resource {
    let seconds = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    Resource {
        name: name.to_owned(),
        value: known.value.to_string(),
        since: seconds(known.since),
        reason: known.reason.clone(),
        history: known
            .history
            .iter()
            .map(|(since, value)| ResourceValue { since: seconds(*since), value: value.to_string() })
            .collect(),
    }
}
