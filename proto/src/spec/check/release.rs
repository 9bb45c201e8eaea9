//! What the form allows and this release does not carry out. A protection that does not protect must not pass
//! silently: what safety depends on is refused, the rest is said.

use super::super::{Ack, BandwidthLimit, Kind, Sync};
use super::Report;

pub(super) fn check(report: &mut Report<'_>) {
    let spec = report.spec;
    if spec.module.kind != Kind::Mirror {
        let message = format!(
            "this release accepts {} modules but runs only mirror modules",
            spec.module.kind.as_str()
        );
        report.warning("module.kind", message);
    }
    for (index, arbiter) in spec.arbiter.iter().enumerate() {
        if arbiter.kind.is_lock() {
            let message = format!(
                "this release has no {} arbiter yet; without it the module would not be protected",
                arbiter.kind.as_str()
            );
            report.error(&format!("arbiter.{index}.kind"), message);
        }
    }
    let unused = [("process", spec.process.len()), ("check", spec.check.len()), ("rule", spec.rule.len())];
    for (key, _) in unused.iter().filter(|(_, len)| *len > 0) {
        report.warning(key, format!("this release reads [[{key}]] but does not act on it yet"));
    }
    for (index, directory) in spec.replicate.iter().enumerate() {
        if directory.sync == Sync::Fsync {
            report.warning(
                &format!("replicate.{index}.sync"),
                "this release replicates at every write, also with sync = \"fsync\"",
            );
        }
        if directory.ack == Ack::Disk {
            report.error(
                &format!("replicate.{index}.ack"),
                "this release has no ack = \"disk\" yet; fsync is durable on both nodes in any case",
            );
        }
    }
    if spec.replication.bandwidth_limit != BandwidthLimit::Auto {
        report.warning(
            "replication.bandwidth_limit",
            "this release does not limit the bandwidth of a resync yet",
        );
    }
}
