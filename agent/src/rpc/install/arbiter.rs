//! Another lock arbiter, while a node does not answer.

use safe_failover::lock::Lock;
use safe_proto::spec::ModuleSpec;
use tonic::Status;

use crate::module::lock_of;
use crate::rpc::Desk;
use crate::spec_store;

/// What a person must know who installs the version although these nodes miss it; none: the lock arbiter stays.
pub(super) async fn at_stake(
    desk: &Desk,
    name: &str,
    spec: &ModuleSpec,
    missing: &[String],
) -> Result<Option<String>, Status> {
    let (paths, name) = (desk.context.paths.clone(), name.to_owned());
    let held = crate::rpc::blocking(move || Ok(spec_store::files(&paths, &name).ok())).await?;
    let Some(before) = held.and_then(|held| ModuleSpec::parse(&held.spec).ok()) else { return Ok(None) };
    let (before, after) = (lock_of(&before).unwrap_or_default(), lock_of(spec).unwrap_or_default());
    Ok((before != after).then(|| stake(&before, &after, &missing.join(", "))))
}

fn stake(before: &Lock, after: &Lock, missing: &str) -> String {
    if before.is_none() {
        return format!(
            "until {missing} has this version it does not ask {after}: if the nodes are cut off, both may serve"
        );
    }
    let needed = if after.is_none() {
        format!("the record of {before}")
    } else {
        format!("the records of both {before} and {after}")
    };
    format!("until {missing} has this version, a node that is alone serves only with {needed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_stake_is_said() {
        let lock = |name: &str| Lock(name.to_owned());
        let (one, other, none) = (lock("witness w1:9403"), lock("witness w2:9403"), Lock::default());
        let said = |before: &Lock, after: &Lock| stake(before, after, "n2");
        assert!(said(&one, &other).contains("both witness w1:9403 and witness w2:9403"));
        assert!(said(&one, &none).ends_with("the record of witness w1:9403"));
        assert!(said(&none, &one).contains("both may serve"));
    }
}
