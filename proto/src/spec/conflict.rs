//! Two modules of one cluster, which may run on one node.

use std::path::Path;

use super::check::overlap;
use super::{Finding, ModuleSpec};

/// See [`ModuleSpec::conflicts`].
pub(super) fn conflicts(spec: &ModuleSpec, other: &ModuleSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    if spec.module.name == other.module.name {
        return findings;
    }
    let name = &other.module.name;
    for (index, directory) in spec.replicate.iter().enumerate() {
        let path = Path::new(&directory.path);
        if let Some(theirs) = other.replicate.iter().find(|theirs| overlap(path, Path::new(&theirs.path))) {
            let message =
                format!("{} overlaps {}, replicated by module \"{name}\"", directory.path, theirs.path);
            findings.push(spec.finding(true, &format!("replicate.{index}.path"), message));
        }
    }
    for (index, address) in spec.address.iter().enumerate() {
        if other.address.iter().any(|theirs| theirs.ip.ip() == address.ip.ip()) {
            let message = format!("address {} belongs to module \"{name}\"", address.ip.ip());
            findings.push(spec.finding(true, &format!("address.{index}.ip"), message));
        }
    }
    findings
}
