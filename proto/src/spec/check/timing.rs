//! Intervals and deadlines that fit together.

use std::time::Duration;

use super::super::quantity::format_duration;
use super::Report;

/// Heartbeats that may be lost before a node counts as lost, at the least.
const LOST_HEARTBEATS: u32 = 3;

pub(super) fn check(report: &mut Report<'_>) {
    heartbeat(report);
    replication(report);
    let scripts = &report.spec.scripts;
    let longest = Duration::from_secs(24 * 3600);
    range(report, "scripts.start_timeout", scripts.start_timeout, Duration::from_secs(1), longest);
    range(report, "scripts.stop_timeout", scripts.stop_timeout, Duration::from_secs(1), longest);
    range(report, "scripts.force_timeout", scripts.force_timeout, Duration::from_secs(1), longest);
    let module = &report.spec.module;
    range(report, "module.boot_delay", module.boot_delay, Duration::ZERO, longest);
    range(report, "module.loop_interval", module.loop_interval, Duration::from_secs(1), days(30));
    range(report, "module.retry_after", module.retry_after, Duration::ZERO, days(30));
    if module.max_loop > 1000 {
        report.error("module.max_loop", "max_loop is 0 to 1000");
    }
}

fn heartbeat(report: &mut Report<'_>) {
    let beat = &report.spec.heartbeat;
    range(report, "heartbeat.interval", beat.interval, Duration::from_millis(20), Duration::from_secs(10));
    range(report, "heartbeat.timeout", beat.timeout, Duration::from_millis(200), Duration::from_secs(300));
    range(
        report,
        "heartbeat.agent_timeout",
        beat.agent_timeout,
        Duration::from_secs(1),
        Duration::from_secs(600),
    );
    range(report, "heartbeat.start_wait", beat.start_wait, Duration::from_secs(1), Duration::from_secs(3600));
    let least = beat.interval * LOST_HEARTBEATS;
    if beat.timeout < least {
        let message = format!(
            "timeout {} is less than {LOST_HEARTBEATS} intervals of {}: one lost packet would be a failover; use {} or more",
            format_duration(beat.timeout),
            format_duration(beat.interval),
            format_duration(least),
        );
        report.error("heartbeat.timeout", message);
    }
    if beat.start_wait < beat.timeout {
        let message = format!(
            "start_wait {} is shorter than timeout {}: a node could start alone before it can hear the other; use {} or more",
            format_duration(beat.start_wait),
            format_duration(beat.timeout),
            format_duration(beat.timeout),
        );
        report.error("heartbeat.start_wait", message);
    }
}

fn replication(report: &mut Report<'_>) {
    let flow = &report.spec.replication;
    range(
        report,
        "replication.stall_timeout",
        flow.stall_timeout,
        Duration::from_millis(200),
        Duration::from_secs(300),
    );
    range(
        report,
        "replication.slow_timeout",
        flow.slow_timeout,
        Duration::from_secs(1),
        Duration::from_secs(3600),
    );
    range(
        report,
        "replication.local_timeout",
        flow.local_timeout,
        Duration::from_secs(1),
        Duration::from_secs(600),
    );
    range(report, "replication.sync_delta", flow.sync_delta, Duration::ZERO, days(30));
    if flow.slow_timeout < flow.stall_timeout {
        report.error("replication.slow_timeout", "slow_timeout must not be shorter than stall_timeout");
    }
}

fn range(report: &mut Report<'_>, key: &str, value: Duration, least: Duration, most: Duration) {
    if value < least || value > most {
        let name = key.rsplit('.').next().unwrap_or(key);
        let message = format!(
            "{name} is {} to {}, not {}",
            format_duration(least),
            format_duration(most),
            format_duration(value)
        );
        report.error(key, message);
    }
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 24 * 3600)
}
