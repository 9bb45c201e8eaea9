//! Names, nodes and lans.

use super::super::{DefaultPrimary, Kind, Surroundings, label, suggest};
use super::{Report, repeated};

/// Most nodes of a farm.
const MAX_NODES: usize = 64;
/// Most variables in `[env]`.
const MAX_ENV: usize = 256;
/// Longest value in `[env]`.
const MAX_ENV_VALUE: usize = 32 * 1024;

pub(super) fn check(report: &mut Report<'_>, around: Surroundings<'_>) {
    let spec = report.spec;
    if let Err(message) = label::check("the module name", &spec.module.name) {
        report.error("module.name", message);
    }
    nodes(report, around);
    names(report, "heartbeat.lans", "lan", &spec.heartbeat.lans, around.lans);
    names(report, "replication.lans", "lan", &spec.replication.lans, around.lans);
    default_primary(report);
    environment(report);
}

fn nodes(report: &mut Report<'_>, around: Surroundings<'_>) {
    let spec = report.spec;
    let named = &spec.module.nodes;
    names(report, "module.nodes", "node", named, around.nodes);
    report.at_most("module.nodes", named.len(), MAX_NODES);
    match spec.module.kind {
        Kind::Mirror if !named.is_empty() && named.len() != 2 => {
            report.error(
                "module.nodes",
                format!("a mirror module has exactly 2 nodes; {} are named", named.len()),
            );
        }
        Kind::Mirror if named.is_empty() && around.nodes.is_some_and(|nodes| nodes.len() > 2) => {
            let message = "the cluster has more than 2 nodes: name the 2 of this mirror module, as in \
                           nodes = [\"n1\", \"n2\"]";
            report.error("module.kind", message);
        }
        Kind::Mirror if around.nodes.is_some_and(|nodes| nodes.len() < 2) => {
            let message = "a mirror module needs 2 nodes and the cluster has 1; join the other one first: \
                           safectl cluster invite";
            report.error("module.kind", message);
        }
        Kind::Light if named.len() > 1 => {
            report.error("module.nodes", format!("a light module has 1 node; {} are named", named.len()));
        }
        Kind::Mirror | Kind::Farm | Kind::Light => {}
    }
}

/// Checks a list of names: labels, no repetition, known.
fn names(report: &mut Report<'_>, key: &str, what: &str, names: &[String], known: Option<&[String]>) {
    for (index, name) in names.iter().enumerate() {
        let at = format!("{key}.{index}");
        if let Err(message) = label::check(what, name) {
            report.error(&at, message);
        } else if let Some(known) = known.filter(|known| !known.contains(name)) {
            let near = suggest::nearest(name, known.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            report.error(
                &at,
                format!("the cluster has no {what} \"{name}\"{hint} (it has: {})", known.join(", ")),
            );
        }
    }
    if let Some(index) = repeated(names) {
        report.error(&format!("{key}.{index}"), format!("{what} \"{}\" is named twice", names[index]));
    }
}

fn default_primary(report: &mut Report<'_>) {
    let spec = report.spec;
    let DefaultPrimary::Node(node) = &spec.module.default_primary else { return };
    let nodes = &spec.module.nodes;
    if spec.module.kind != Kind::Mirror {
        report.error("module.default_primary", "only a mirror module has a primary");
    } else if let Err(message) = label::check("default_primary", node) {
        report.error("module.default_primary", message);
    } else if !nodes.is_empty() && !nodes.contains(node) {
        let message =
            format!("\"{node}\" is not one of the module's nodes ({}), nor none or last", nodes.join(", "));
        report.error("module.default_primary", message);
    }
}

fn environment(report: &mut Report<'_>) {
    let spec = report.spec;
    report.at_most("env", spec.env.len(), MAX_ENV);
    for (name, value) in &spec.env {
        let key = format!("env.{name}");
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            report.error(&key, format!("{name:?} cannot be a variable: use letters, digits and _"));
        } else if name.starts_with("SAFE_") {
            report.error(&key, format!("{name} is reserved: SAFE_* is set by safed"));
        }
        if value.contains('\0') || value.len() > MAX_ENV_VALUE {
            report.error(&key, format!("the value of {name} is too long or holds a zero byte"));
        }
    }
}
