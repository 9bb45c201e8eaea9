//! The program itself, against a `safed` that says what the test tells it to.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use assert_cmd::Command;
use safe_proto::cluster::{GetClusterResponse, Lan, Node};
use safe_proto::module::{
    AddressStatus, Command as ModuleCommand, DataStatus, ExplainModuleResponse, Explanation, FailoverRule,
    LanStatus, ListEventsResponse, ListModulesResponse, ListRulesResponse, ModuleEvent, ModuleInfo,
    ModuleStatus, Outcome, Phase, Resource, ResyncStatus, State,
};

#[path = "cli/endpoint.rs"]
mod endpoint;
#[path = "cli/fake.rs"]
mod fake;

use fake::{Fake, Script};

/// What a run left.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn safectl(arguments: &[&str]) -> Said {
    let mut command = Command::cargo_bin("safectl").unwrap();
    command.env_clear().args(arguments).timeout(std::time::Duration::from_secs(60));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn on(fake: &Fake, arguments: &[&str]) -> Said {
    let mut all = vec!["--root", fake.root().to_str().unwrap()];
    all.extend(arguments);
    safectl(&all)
}

fn status(node: &str, state: State, phase: Phase) -> ModuleStatus {
    ModuleStatus {
        module: "db".to_owned(),
        kind: "mirror".to_owned(),
        node: node.to_owned(),
        state: state.into(),
        phase: phase.into(),
        since_ms: 1_795_358_520_000,
        as_of_ms: 1_795_358_523_456,
        data: Some(DataStatus { uptodate: true, consistent: true, ..DataStatus::default() }),
        addresses: vec![AddressStatus {
            ip: "10.99.0.50/24".to_owned(),
            present: matches!(state, State::Prim | State::Alone),
            interface: "eth0".to_owned(),
        }],
        lans: vec![LanStatus { name: "default".to_owned(), up: true }],
        boot: "auto".to_owned(),
        failover: "on".to_owned(),
        restarts_max: 3,
        version: "cd".repeat(32),
        ..ModuleStatus::default()
    }
}

fn later(status: ModuleStatus) -> ModuleStatus {
    ModuleStatus { since_ms: status.since_ms + 1000, ..status }
}

fn with(status: ModuleStatus, reason: &str, hint: &str) -> ModuleStatus {
    ModuleStatus { reason: reason.to_owned(), hint: hint.to_owned(), ..status }
}

fn pair() -> Vec<ModuleStatus> {
    vec![status("n1", State::Prim, Phase::Ready), status("n2", State::Second, Phase::Ready)]
}

fn stopped() -> Vec<ModuleStatus> {
    vec![status("n1", State::Stop, Phase::Ready), status("n2", State::Stop, Phase::Ready)]
}

fn resync() -> Vec<ModuleStatus> {
    let second = later(status("n2", State::Second, Phase::Transient));
    let resync = ResyncStatus {
        plan: "full".to_owned(),
        bytes_done: 1 << 30,
        bytes_total: 4 << 30,
        rate: 100 << 20,
        eta_s: Some(31),
        ..ResyncStatus::default()
    };
    let data = DataStatus { resync: Some(resync), ..DataStatus::default() };
    vec![later(status("n1", State::Alone, Phase::Ready)), ModuleStatus { data: Some(data), ..second }]
}

#[test]
fn status_of_a_healthy_pair() {
    let [first, second] = pair().try_into().unwrap();
    let status = vec![with(first, "n2 is in step", ""), with(second, "in step with n1", "")];
    let fake = Fake::start(Script { status, ..Script::default() });
    let said = on(&fake, &["status"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    insta::assert_snapshot!(said.out, @r"
    MODULE  NODE  STATE     PHASE  DATA        ADDRESS     REASON
    db      n1    ● PRIM    ready  up to date  10.99.0.50  n2 is in step
    db      n2    ● SECOND  ready  up to date  -           in step with n1
    ");
}

#[test]
fn status_says_what_to_type_within_80_columns() {
    let reason = "the copies on n1 and n2 have changes of their own and nothing in common, so that a person must say \
                  which one is to be kept";
    let waits = with(status("n1", State::Wait, Phase::Blocked), reason, "safectl prim db --on n1");
    let away =
        ModuleStatus { state: State::Unknown.into(), phase: 0, ..status("n2", State::Stop, Phase::Ready) };
    let fake = Fake::start(Script { status: vec![waits, away], ..Script::default() });
    let said = on(&fake, &["status", "db"]);
    insta::assert_snapshot!(said.out, @r"
    MODULE  NODE  STATE      PHASE    DATA        ADDRESS  REASON
    db      n1    ▲ WAIT     blocked  up to date  -
        the copies on n1 and n2 have changes of their own and nothing in common, so
        that a person must say which one is to be kept
        type: safectl prim db --on n1
    db      n2    ✖ UNKNOWN  -        -           -        the node does not answer
    ");
    assert!(said.out.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn status_of_a_resync_and_of_a_split_brain() {
    let fake = Fake::start(Script { status: resync(), ..Script::default() });
    insta::assert_snapshot!(on(&fake, &["status"]).out, @r"
    MODULE  NODE  STATE     PHASE      DATA        ADDRESS
    db      n1    ● ALONE   ready      up to date  10.99.0.50
    db      n2    ◐ SECOND  transient  resync 25%  -
        resync (full): 1.00 GiB of 4.00 GiB, 100.00 MiB/s, 31 seconds to go
    ");
    let both = vec![status("n1", State::Alone, Phase::Ready), status("n2", State::Alone, Phase::Ready)];
    fake.script().status = both;
    let said = on(&fake, &["status"]);
    assert!(said.out.contains("db: split brain: n1 and n2 both serve"), "{}", said.out);
}

#[test]
fn status_as_json_has_the_documented_names() {
    let fake = Fake::start(Script { status: resync(), ..Script::default() });
    let said = on(&fake, &["status", "-o", "json", "--on", "n2"]);
    insta::assert_snapshot!(said.out);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value[0]["state"], "SECOND");
    let yaml = on(&fake, &["status", "-o", "yaml", "--on", "n2"]);
    insta::assert_snapshot!(yaml.out);
}

#[test]
fn status_without_modules_or_of_an_unknown_one() {
    let modules =
        ListModulesResponse { modules: vec![ModuleInfo { name: "db".to_owned(), ..ModuleInfo::default() }] };
    let fake = Fake::start(Script { modules, ..Script::default() });
    assert_eq!(on(&fake, &["status"]).out, "No module is installed. Next: safectl module install DIR\n");
    assert_eq!(on(&fake, &["status", "-o", "json"]).out, "[]\n");
    let said = on(&fake, &["status", "web"]);
    assert_eq!(said.code, 2);
    insta::assert_snapshot!(said.err, @r#"
    error: there is no module "web"
      why: installed: db
      try: safectl module list
    "#);
}

#[test]
fn start_follows_the_module_until_it_runs() {
    let halfway =
        vec![later(status("n1", State::Alone, Phase::Ready)), status("n2", State::Wait, Phase::Transient)];
    let fake = Fake::start(Script { status: stopped(), after: vec![halfway, resync()], ..Script::default() });
    let said = on(&fake, &["start", "db"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    insta::assert_snapshot!(said.err, @r"
    14:42:03  n1 ALONE/ready
    14:42:03  n2 WAIT/transient
    14:42:03  n2 SECOND/transient
    db: n1 ALONE, n2 SECOND
    n2 is being brought in step; to wait for it: safectl wait db --on n2 --state SECOND/ready
    ");
    assert_eq!(fake.script().commands[0].command(), ModuleCommand::Start);
}

#[test]
fn start_synced_waits_for_the_resync_and_prints_the_status_for_programs() {
    let fake = Fake::start(Script {
        status: stopped(),
        after: vec![resync(), pair().into_iter().map(later).collect()],
        ..Script::default()
    });
    let said = on(&fake, &["start", "db", "--wait=synced", "-o", "json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value[1]["phase"], "ready");
}

#[test]
fn start_without_waiting_returns_at_once() {
    let fake = Fake::start(Script { status: stopped(), ..Script::default() });
    let said = on(&fake, &["start", "db", "--on", "n1", "--no-wait", "-o", "json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value[0]["node"], "n1");
    assert_eq!(value[0]["accepted"], true);
}

#[test]
fn a_person_awaited_is_exit_code_1_with_the_command() {
    let waits = |node| {
        let status = later(status(node, State::Wait, Phase::Blocked));
        with(status, "both copies have data and no common history", "safectl prim db --on n1")
    };
    let fake = Fake::start(Script {
        status: stopped(),
        after: vec![vec![waits("n1"), waits("n2")]],
        ..Script::default()
    });
    let said = on(&fake, &["start", "db"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let end = "waiting: n1 waits for a person: both copies have data and no common history\n  try: safectl prim db --on n1\n";
    assert!(said.err.ends_with(end), "{}", said.err);
}

#[test]
fn a_start_that_fails_is_exit_code_2_with_the_reason() {
    let failed = with(later(status("n1", State::Stop, Phase::Blocked)), "/srv/db is missing", "");
    let fake = Fake::start(Script {
        status: stopped(),
        after: vec![vec![failed, status("n2", State::Stop, Phase::Ready)]],
        ..Script::default()
    });
    let said = on(&fake, &["start", "db", "--on", "n1"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("error: n1 did not start: /srv/db is missing"), "{}", said.err);
    assert!(said.err.contains("safectl log db"), "{}", said.err);
}

#[test]
fn time_over_is_exit_code_1() {
    let fake = Fake::start(Script { status: stopped(), ..Script::default() });
    let said = on(&fake, &["start", "db", "--wait-timeout", "300ms"]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("db is not there after 300ms: n1 STOP/ready, n2 STOP/ready"), "{}", said.err);
}

#[test]
fn what_takes_a_node_away_says_who_will_serve() {
    let swapped = vec![
        later(status("n1", State::Second, Phase::Ready)),
        later(status("n2", State::Prim, Phase::Ready)),
    ];
    let fake = Fake::start(Script { status: pair(), after: vec![swapped], ..Script::default() });
    let said = on(&fake, &["swap", "db"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("db: n2 will serve, n1 will follow\n"), "{}", said.err);

    let alone =
        vec![later(status("n1", State::Stop, Phase::Ready)), later(status("n2", State::Alone, Phase::Ready))];
    fake.script().after = vec![alone];
    let said = on(&fake, &["stop", "db", "--on", "n1"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("db: n2 will serve\n"), "{}", said.err);

    fake.script().after = vec![stopped().into_iter().map(later).collect()];
    let said = on(&fake, &["shutdown", "db"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.starts_with("db: nobody will serve\n"), "{}", said.err);
}

#[test]
fn a_refusal_is_told_as_it_came() {
    let refusal = tonic::Status::failed_precondition("db is stopped on both nodes; type: safectl start db");
    let fake = Fake::start(Script { status: pair(), refusal: Some(refusal), ..Script::default() });
    let said = on(&fake, &["swap", "db"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.ends_with("error: db is stopped on both nodes; type: safectl start db\n"),
        "{}",
        said.err
    );
}

#[test]
fn a_node_that_does_not_take_the_command_is_exit_code_1() {
    let outcomes = vec![
        Outcome { node: "n1".to_owned(), accepted: true, message: String::new() },
        Outcome { node: "n2".to_owned(), accepted: false, message: "does not answer".to_owned() },
    ];
    let running = vec![
        later(status("n1", State::Alone, Phase::Ready)),
        status("n2", State::Unknown, Phase::Unspecified),
    ];
    let fake = Fake::start(Script { status: stopped(), outcomes, after: vec![running], ..Script::default() });
    let said = on(&fake, &["start", "db"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let end = "waiting: n2 did not take the command\n  why: does not answer\n  try: safectl status db\n";
    assert!(said.err.ends_with(end), "{}", said.err);
}

#[test]
fn force_says_what_is_lost_and_needs_yes() {
    let fake = Fake::start(Script { status: stopped(), ..Script::default() });
    let said = on(&fake, &["prim", "db", "--on", "n1", "--force"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("will be lost") && said.err.contains("add --yes"), "{}", said.err);
    assert!(fake.script().commands.is_empty());

    let alone =
        vec![later(status("n1", State::Alone, Phase::Ready)), status("n2", State::Stop, Phase::Ready)];
    fake.script().after = vec![alone];
    let said = on(&fake, &["prim", "db", "--on", "n1", "--force", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(fake.script().commands[0].force);

    let said = on(&fake, &["second", "db", "--on", "n2", "--force"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("What n2 acknowledged alone is kept apart first"), "{}", said.err);
    let said = on(&fake, &["second", "db", "--on", "n2", "--force", "--discard"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("nothing of it is kept"), "{}", said.err);
    assert_eq!(on(&fake, &["second", "db", "--on", "n2", "--discard"]).code, 64);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_threatened() {
    let both = vec![status("n1", State::Alone, Phase::Ready), status("n2", State::Alone, Phase::Ready)];
    let fake = Fake::start(Script { status: both, ..Script::default() });
    let said = on(&fake, &["second", "db", "--on", "n2", "--force", "--yes"]);
    assert_eq!(said.code, 1);
    insta::assert_snapshot!(said.err, @r"
    waiting: n2 serves db: it is ALONE/ready
      why: a node that serves cannot become SECOND; nothing was done
      try: to give up what only n2 has: safectl stop db --on n2 && safectl second db --on n2 --force
    ");
    fake.script().status = pair();
    for words in [&["prim", "db", "--on", "n2"][..], &["prim", "db", "--on", "n2", "--force"]] {
        let said = on(&fake, words);
        assert_eq!(said.code, 1);
        insta::allow_duplicates! {
            insta::assert_snapshot!(said.err, @r"
            waiting: n1 serves db and n2 is SECOND/ready
              why: at most one node serves; nothing was done
              try: safectl swap db
            ");
        }
    }
    assert!(fake.script().commands.is_empty());
    let said = on(&fake, &["prim", "db", "--on", "n1", "--force"]);
    assert_eq!(said.code, 0, "nothing is lost where it serves already: {}", said.err);
    assert!(!said.err.contains("lost"), "{}", said.err);
}

#[test]
fn a_stop_that_ends_the_service_for_want_of_a_copy_in_step_is_asked_for() {
    let fake = Fake::start(Script { status: resync(), ..Script::default() });
    let said = on(&fake, &["stop", "db", "--on", "n1"]);
    assert_eq!(said.code, 1);
    insta::assert_snapshot!(said.err, @r"
    db: nobody will serve: n2 is SECOND/transient
    The service of db ends: n2 is SECOND/transient and cannot take over yet.
    To keep it, wait first: safectl wait db --on n2 --state SECOND/ready
    It will serve again after: safectl start db --on n1
    waiting: nothing was done: there is no terminal to ask at
      try: if that loss is accepted, add --yes
    ");
    assert!(fake.script().commands.is_empty());
    let said = on(&fake, &["stop", "db", "--on", "n1", "--yes", "--no-wait"]);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn names_that_nobody_knows_are_the_same_failure_everywhere() {
    let modules =
        ListModulesResponse { modules: vec![ModuleInfo { name: "db".to_owned(), ..ModuleInfo::default() }] };
    let fake = Fake::start(Script { status: pair(), modules, ..Script::default() });
    for words in [&["start", "web"][..], &["events", "web"], &["start", "db", "--on", "n9"]] {
        let said = on(&fake, words);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{words:?}: {}", said.err);
        assert!(said.err.starts_with("error: "), "{words:?}: {}", said.err);
    }
    assert_eq!(on(&fake, &["events", "db"]).out, "No events yet.\n");
}

#[test]
fn what_is_not_known_is_null() {
    let away = ModuleStatus {
        module: "db".to_owned(),
        node: "n2".to_owned(),
        kind: "mirror".to_owned(),
        state: State::Unknown.into(),
        ..ModuleStatus::default()
    };
    let fresh = ModuleStatus { data: None, ..status("n1", State::Stop, Phase::Ready) };
    let fake = Fake::start(Script { status: vec![fresh, away], ..Script::default() });
    let said = on(&fake, &["status", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    for path in [
        "/1/data/uptodate",
        "/1/data/consistent",
        "/1/data/last_paired",
        "/1/replication/connected",
        "/1/replication/backlog",
        "/1/restarts/count",
        "/1/restarts/max",
        "/0/data/consistent",
    ] {
        assert!(value.pointer(path).unwrap().is_null(), "{path}");
    }
    assert_eq!(value[0]["data"]["uptodate"], false);
    assert!(on(&fake, &["status"]).out.contains("none yet"));
}

#[test]
fn copies_in_step_were_in_step_just_now() {
    let fake = Fake::start(Script { status: pair(), ..Script::default() });
    let said = on(&fake, &["status", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value[1]["data"]["last_paired"], value[1]["as_of"]);
}

#[test]
fn a_command_that_ends_badly_gives_programs_the_status_too() {
    let waits = |node| {
        let status = later(status(node, State::Wait, Phase::Blocked));
        with(status, "both copies have data", "safectl prim db --on n1")
    };
    let after = vec![vec![waits("n1"), waits("n2")]];
    let fake = Fake::start(Script { status: stopped(), after, ..Script::default() });
    let said = on(&fake, &["start", "db", "-o", "json"]);
    assert_eq!(said.code, 1, "{}", said.err);
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value[0]["state"], "WAIT");
}

#[test]
fn an_address_that_is_missing_is_said_with_where_to_look() {
    let mut alone = status("n1", State::Alone, Phase::Ready);
    alone.addresses[0].present = false;
    let fake = Fake::start(Script { status: vec![alone], ..Script::default() });
    let said = on(&fake, &["status"]).out;
    assert!(said.contains("✖ 10.99.0.50 missing") && said.contains("why: safectl events db"), "{said}");
}

#[test]
fn a_stopped_module_awaits_nobody() {
    let stop = with(status("n1", State::Stop, Phase::Ready), "stopped", "safectl start db --on n1");
    let fake = Fake::start(Script { status: vec![stop], ..Script::default() });
    assert!(!on(&fake, &["status"]).out.contains("type:"));
    let value: serde_json::Value = serde_json::from_str(&on(&fake, &["status", "-o", "json"]).out).unwrap();
    assert!(value[0]["hint"].is_null());
}

#[test]
fn the_better_way_stands_before_force() {
    let hint = "bring n2 back; only if it is lost for good: safectl prim db --on n1 --force";
    let waits = with(status("n1", State::Wait, Phase::Blocked), "n2 is not heard", hint);
    let fake = Fake::start(Script { status: vec![waits], ..Script::default() });
    let said = on(&fake, &["status"]);
    let end = "\n    bring n2 back\n    only if it is lost for good: safectl prim db --on n1 --force\n";
    assert!(said.out.ends_with(end), "{}", said.out);
}

#[test]
fn wait_ends_when_the_state_is_there_or_time_is_over() {
    let fake = Fake::start(Script { status: resync(), ..Script::default() });
    let said = on(&fake, &["wait", "db", "--state", "SECOND", "--on", "n2"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let args = ["wait", "db", "--state", "SECOND/ready", "--on", "n2", "--wait-timeout", "300ms"];
    assert_eq!(on(&fake, &args).code, 1);
    let args = ["wait", "db", "--state", "second", "--wait=synced", "--wait-timeout", "300ms"];
    assert_eq!(on(&fake, &args).code, 1);
}

#[test]
fn wrong_usage_is_exit_code_64() {
    let fake = Fake::start(Script { status: pair(), ..Script::default() });
    for arguments in [
        &["stop", "db"][..],
        &["prim", "db"],
        &["prim", "db", "--on", "*"],
        &["start", "db", "--wait", "--no-wait"],
        &["start", "db", "--timeout", "soon"],
        &["wait", "db", "--state", "PRIMARY"],
        &["cluster", "init", "--name", "Demo", "--node", "n1", "--address", "default=10.0.0.1"],
        &["cluster", "init", "--name", "demo", "--node", "n1", "--address", "10.0.0.1"],
        &["cluster", "invite", "--ttl", "8d"],
        &["cluster", "invite", "--ttl", "1s"],
        &["cluster", "join", "no token!", "--node", "n2", "--address", "default=10.0.0.2"],
        &["status", "--endpoint", "https://n1:9400"],
        &["status", "--cert", "x"],
        &["frobnicate"],
        &["help", "frobnicate"],
        &[],
    ] {
        let said = on(&fake, arguments);
        assert_eq!(said.code, 64, "{arguments:?}: {}", said.err);
        assert_eq!(said.out, "", "{arguments:?}");
        assert!(!said.err.is_empty(), "{arguments:?}");
    }
    assert!(fake.script().commands.is_empty());
}

#[test]
fn init_and_invite_print_the_token_alone() {
    let lan = |name: &str| Lan { name: name.to_owned(), ..Lan::default() };
    let node = Node { name: "n1".to_owned(), lans: vec![lan("default"), lan("repl")], ..Node::default() };
    let cluster = GetClusterResponse { nodes: vec![node], ..GetClusterResponse::default() };
    let fake = Fake::start(Script { cluster, ..Script::default() });
    let said =
        on(&fake, &["cluster", "init", "--name", "demo", "--node", "n1", "--address", "default=10.0.0.1"]);
    assert_eq!((said.code, said.out.as_str()), (0, "dG9rZW4\n"), "{}", said.err);
    assert!(
        said.err.contains("safectl cluster join TOKEN --node NAME --address default=ADDRESS"),
        "{}",
        said.err
    );
    let said = on(&fake, &["cluster", "invite", "--ttl", "2h"]);
    assert_eq!((said.code, said.out.as_str()), (0, "dG9rZW4\n"), "{}", said.err);
    assert!(said.err.contains("--address default=ADDRESS --address repl=ADDRESS"), "{}", said.err);
    assert!(said.err.contains("2026-11-22 16:42:00"), "{}", said.err);
}

#[test]
fn join_is_friendly_or_says_why_not() {
    let fake = Fake::start(Script::default());
    let join =
        |token| on(&fake, &["cluster", "join", token, "--node", "n2", "--address", "default=10.0.0.2"]);
    let said = join("dG9rZW4");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("n2 joined cluster demo; its nodes: n1, n2"), "{}", said.err);
    let said = join("used");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("the token was used already"), "{}", said.err);
}

#[test]
fn status_of_the_cluster() {
    let lan = |name: &str, address: &str, up, silent_ms| Lan {
        name: name.to_owned(),
        address: address.to_owned(),
        up,
        silent_ms,
    };
    let node =
        |name: &str, lans, reachable| Node { name: name.to_owned(), lans, reachable, version: String::new() };
    let cluster = GetClusterResponse {
        cluster: "demo".to_owned(),
        node: "n1".to_owned(),
        settings_version: 2,
        nodes: vec![
            node("n1", vec![lan("default", "10.0.0.1", true, 0)], true),
            node("n2", vec![lan("default", "10.0.0.2", false, 61_000)], false),
        ],
    };
    let fake = Fake::start(Script { cluster, ..Script::default() });
    insta::assert_snapshot!(on(&fake, &["cluster", "status"]).out, @r"
    NODE  LAN      ADDRESS   STATE              SAFED
    n1    default  10.0.0.1  ● this node        -
    n2    default  10.0.0.2  ✖ silent for 61 s  -
    n2 does not answer on any lan. On n2: safectl version
    (safed needs 9400/tcp, 9401/udp and 9402/tcp open between the nodes)
    ");
}

#[test]
fn events_log_and_version() {
    let event = |alarm, text: &str| ModuleEvent {
        at_ms: 1_795_358_520_000,
        node: "n1".to_owned(),
        module: "db".to_owned(),
        alarm,
        text: text.to_owned(),
    };
    let events = ListEventsResponse {
        events: vec![
            event(false, "starts"),
            event(true, "n2 has been silent for 3 s on every lan: serves alone"),
        ],
    };
    let fake = Fake::start(Script { events, log: vec!["a".to_owned(), "b".to_owned()], ..Script::default() });
    insta::assert_snapshot!(on(&fake, &["events"]).out, @r"
    TIME (UTC)           NODE  MODULE  EVENT
    2026-11-22 14:42:00  n1    db      starts
    2026-11-22 14:42:00  n1    db      ! n2 has been silent for 3 s on every lan:
                                       serves alone
    ");
    assert_eq!(on(&fake, &["log", "db"]).out, "a\nb\n");
    assert_eq!(on(&fake, &["log", "db", "-o", "json"]).out, "\"a\"\n\"b\"\n");
    assert_eq!(on(&fake, &["version"]).out, "safectl 0.1.0\nsafed   0.1.0, node n1 of cluster demo\n");
}

#[test]
fn rules_resources_and_explanations() {
    let rule = FailoverRule {
        label: "db_swap".to_owned(),
        condition: "check.tcp.db == down".to_owned(),
        action: "swap".to_owned(),
        after_ms: 15_000,
        origin: "module".to_owned(),
        holds: true,
        facts: vec!["check.tcp.db is down".to_owned()],
    };
    let built_in = FailoverRule {
        label: "implicit_wakeup".to_owned(),
        condition: "starts again".to_owned(),
        action: "wait".to_owned(),
        origin: "built-in".to_owned(),
        ..FailoverRule::default()
    };
    let db = Resource { name: "check.tcp.db".to_owned(), value: "down".to_owned(), ..Resource::default() };
    let rules = ListRulesResponse { node: "n1".to_owned(), rules: vec![rule, built_in], resources: vec![db] };
    let line = Explanation {
        question: "if n2 failed now".to_owned(),
        answer: "n1 goes on alone".to_owned(),
        hint: "safectl status".to_owned(),
    };
    let explanation = ExplainModuleResponse { node: "n1".to_owned(), lines: vec![line] };
    let fake = Fake::start(Script { rules, explanation, ..Script::default() });
    let said = on(&fake, &["rules", "db"]).out;
    assert!(
        said.contains("! db_swap") && said.contains("15 s") && said.contains("(now: check.tcp.db"),
        "{said}"
    );
    assert!(said.contains("Resources on n1: check.tcp.db down"), "{said}");
    let said = on(&fake, &["explain", "db"]).out;
    assert!(
        said.contains("n1 goes on alone; type: safectl status") && said.contains("As n1 sees it."),
        "{said}"
    );
    let said = on(&fake, &["rules", "db", "-o", "json"]).out;
    assert!(said.contains("\"after_ms\": 15000"), "{said}");
    assert_eq!(on(&fake, &["set", "db", "check.custom.x", "up"]).code, 0);
    assert_eq!(on(&fake, &["set", "db", "nothing", "up"]).code, 2);
    assert_eq!(on(&fake, &["set", "db", "check.custom.x", "sideways"]).code, 64);
}

#[test]
fn modules_are_checked_here_and_installed_there() {
    let fake = Fake::start(Script::default());
    let directory = fake.root().join("db");
    let shown = directory.to_str().unwrap();
    std::fs::create_dir_all(directory.join("scripts")).unwrap();
    assert_eq!(on(&fake, &["module", "install", shown]).code, 2);
    std::fs::write(directory.join("module.toml"), "[module]\nname = \"db\"\nkind = \"miror\"\n").unwrap();
    let said = on(&fake, &["module", "validate", shown]);
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with("module.toml:3: error: kind: unknown value \"miror\""), "{}", said.out);
    let said = on(&fake, &["module", "install", shown]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("nothing was installed"), "{}", said.err);
    assert!(fake.script().installed.is_empty());

    std::fs::write(directory.join("module.toml"), "[module]\nname = \"db\"\nkind = \"mirror\"\n").unwrap();
    std::fs::write(directory.join("scripts/lib.sh"), "x=1\n").unwrap();
    assert_eq!(on(&fake, &["module", "validate", shown]).code, 0);
    let said = on(&fake, &["module", "install", shown]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.err.ends_with("db (version abababababab) is installed on n1, n2\nnext: safectl start db\n"),
        "{}",
        said.err
    );
    let sent = fake.script().installed[0].module.clone().unwrap();
    assert_eq!(sent.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["scripts/lib.sh"]);
}

#[test]
fn without_a_daemon_it_says_what_to_start() {
    let root = tempfile::tempdir().unwrap();
    let shown = root.path().to_str().unwrap();
    let said = safectl(&["--root", shown, "status"]);
    assert_eq!(said.code, 2);
    assert!(
        said.err.starts_with("error: safed does not run on this machine\n  why: there is no "),
        "{}",
        said.err
    );
    assert!(said.err.ends_with(&format!("try: start it: safed --root {shown}\n")), "{}", said.err);
    std::fs::create_dir(root.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(root.path().join("run/safed.sock")).unwrap());
    let said = safectl(&["--root", shown, "version"]);
    assert_eq!((said.code, said.out.as_str()), (2, "safectl 0.1.0\n"));
    assert!(said.err.contains("is left over from one that ended"), "{}", said.err);
}

#[test]
fn a_silent_daemon_is_not_waited_for_for_ever() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("run")).unwrap();
    let _silent = std::os::unix::net::UnixListener::bind(root.path().join("run/safed.sock")).unwrap();
    let said = safectl(&["--root", root.path().to_str().unwrap(), "--timeout", "200ms", "status"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("did not answer in time"), "{}", said.err);
}

#[test]
fn what_was_kept_is_listed_shown_restored_and_discarded() {
    let fake = Fake::start(Script::default());
    let said = on(&fake, &["conflicts", "list", "db"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    insta::assert_snapshot!(said.out, @r"
    ID            NODE  REPLACED BY  AT (UTC)             FILES  BYTES  REMOVED
    0123456789ab  n2    n1           2026-11-22 14:42:00  3      12345  1
    0123ffffffff  n2    n1           2026-11-22 17:28:40  3      12345  1
    ");
    let json = on(&fake, &["conflicts", "list", "db", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list[0]["replaced_by"], "n1");
    assert_eq!(list[0]["bytes"], 12_345);
    let said = on(&fake, &["conflicts", "show", "db", "01234"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    insta::assert_snapshot!(said.out, @r"
    PATH             KEPT     SIZE  MODIFIED (UTC)
    /srv/data/a      content  4096  2026-11-22 14:42:00
    /srv/data/image  ranges   4096  2026-11-22 14:42:00
    /srv/data/gone   removed  4096  2026-11-22 14:42:00
    ");
    let json = on(&fake, &["conflicts", "show", "db", "01234", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(list[1]["ranges"], serde_json::json!([[0, 4096], [65_536, 131_072]]));
    let said = on(&fake, &["conflicts", "restore", "db", "01234", "--to", "/back"]);
    assert_eq!((said.code, said.out.as_str()), (0, "3 files restored to /back on n2\n"), "{}", said.err);
    let said = on(&fake, &["conflicts", "restore", "db", "01234", "--to", "/exists"]);
    assert_eq!(said.code, 2);
    let said = on(&fake, &["conflicts", "discard", "db", "0123ff"]);
    assert_eq!(said.code, 1, "it asks");
    assert!(said.err.contains("lost for good"), "{}", said.err);
    let said = on(&fake, &["conflicts", "discard", "db", "0123ff", "--yes"]);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn an_archive_is_named_by_a_beginning_that_no_other_has() {
    let fake = Fake::start(Script::default());
    let said = on(&fake, &["conflicts", "show", "db", "0123"]);
    assert_eq!(said.code, 64);
    assert!(said.err.contains("several archives"), "{}", said.err);
    let said = on(&fake, &["conflicts", "show", "db", "9999"]);
    assert_eq!(said.code, 2);
    assert!(said.err.contains("safectl conflicts list db"), "{}", said.err);
}

#[test]
fn the_help_is_the_manual() {
    let mut manual = String::new();
    for command in [
        "",
        "cluster",
        "cluster init",
        "cluster invite",
        "cluster join",
        "cluster status",
        "module",
        "module validate",
        "module install",
        "module list",
        "module remove",
        "witness",
        "witness init",
        "witness invite",
        "witness expel",
        "witness add",
        "witness remove",
        "witness status",
        "start",
        "shutdown",
        "stop",
        "stopstart",
        "restart",
        "swap",
        "prim",
        "second",
        "conflicts",
        "conflicts list",
        "conflicts show",
        "conflicts restore",
        "conflicts discard",
        "status",
        "events",
        "explain",
        "rules",
        "set",
        "log",
        "wait",
        "version",
        "help",
    ] {
        let mut words: Vec<&str> = command.split_whitespace().collect();
        words.push("-h");
        let said = safectl(&words);
        assert_eq!(said.code, 0, "{command}");
        // The global options are the same everywhere: shown once.
        let own = said.out.split("\nGlobal options:").next().unwrap();
        manual.push_str(&format!(
            "## safectl {command}\n\n{}\n",
            if command.is_empty() { &said.out } else { own }
        ));
    }
    insta::assert_snapshot!(manual);
}

#[test]
fn the_guide_names_every_key_of_a_module() {
    let text = "[module]\nname = \"m\"\nkind = \"mirror\"\n[[replicate]]\npath = \"/srv/m\"\n\
                [[address]]\nip = \"10.0.0.5/24\"\n";
    let spec = safe_proto::spec::ModuleSpec::parse(text).unwrap();
    let value = toml::Value::try_from(&spec).unwrap();
    let page: String = serde_json::from_str(&safectl(&["help", "module", "-o", "json"]).out).unwrap();
    for (section, content) in value.as_table().unwrap() {
        let content = content.as_array().map_or(content, |items| items.first().unwrap_or(content));
        assert!(page.contains(&format!("[{section}]")), "[{section}]");
        for (key, default) in content.as_table().into_iter().flatten() {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
            assert!(row.is_some(), "{section}.{key}");
            let given =
                matches!(key.as_str(), "name" | "kind" | "path" | "ip" | "nodes" | "lans" | "failover");
            let told = given || row.is_some_and(|row| row.contains(&default.to_string()));
            // A duration may be told in another unit than it is written in.
            assert!(
                told || default.as_str() == Some("1d")
                    || default.as_str() == Some("5m")
                    || default.as_str() == Some("1m"),
                "{section}.{key} = {default}"
            );
        }
    }
}

#[test]
fn every_page_of_the_guide_is_built_in() {
    let list = safectl(&["help"]).out;
    for topic in ["start", "concepts", "module", "operate", "isolation", "arbiters", "json", "security"] {
        let said = safectl(&["help", topic]);
        assert_eq!(said.code, 0, "{topic}");
        assert!(!said.out.contains("| --- |"), "{topic}: a raw table");
        for line in said.out.lines().filter(|line| !line.starts_with("    ")) {
            assert!(line.chars().count() <= 80, "{topic}: {line}");
        }
        assert!(list.contains(&format!("\n  {topic} ")), "{topic}");
    }
    assert!(safectl(&["help", "module", "install"]).out.contains("--allow-missing"));
}

/// A story is played without any safed.
#[test]
fn a_story_is_played() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("story");
    let name = file.to_str().unwrap();
    let begin = "set arbiter lock\nstart n1 n2\nexpect n2 SECOND/ready within 5s\n";
    std::fs::write(
        &file,
        format!("{begin}cut all\nexpect n1 ALONE/ready within 4s\nexpect n2 WAIT within 10s\n"),
    )
    .unwrap();
    let said = safectl(&["simulate", name]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("n1: serves alone: the arbiter holds its lineage"), "{}", said.out);
    assert!(said.out.contains("n1 ALONE ready [mounted, address, application]"), "{}", said.out);

    let said = safectl(&["simulate", name, "-o", "json"]);
    let story: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let steps = story["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &story["failure"]), (6, &serde_json::Value::Null));
    assert_eq!((steps[3]["line"].as_u64(), steps[3]["text"].as_str()), (Some(4), Some("cut all")));
    let alone = &steps[4]["states"][0];
    assert_eq!((alone["node"].as_str(), alone["state"].as_str()), (Some("n1"), Some("ALONE")));
}

#[test]
fn a_story_that_goes_otherwise_and_one_that_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("story");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "start n1 n2\ncrash n1\nexpect n2 ALONE within 5s\n").unwrap();
    let said = safectl(&["simulate", name]);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(
        said.err.contains("line 3: expect n2 ALONE within 5s") && said.err.contains("found: n2"),
        "{}",
        said.err
    );

    for (text, words) in [
        ("start n1 n3\n", "no such node: n3"),
        ("set lans 900\n", "lans: 1 to 8"),
        ("set tiemout 3s\n", "no such setting"),
        ("set interval 0s\n", "at least"),
        ("start n1\nset lans 1\n", "settings stand before"),
        ("start n1\ncut lan7\n", "no such lan"),
        ("start n1\nadvance 900000h\n", "longer than a story lasts"),
        ("start n1\ndance\n", "unknown verb"),
    ] {
        std::fs::write(&file, text).unwrap();
        let said = safectl(&["simulate", name]);
        assert_eq!(said.code, 2, "{text}: {}", said.err);
        assert!(
            said.err.contains(words) && said.err.contains("safectl help simulate"),
            "{text}: {}",
            said.err
        );
    }
    let missing = directory.path().join("missing");
    assert_eq!(safectl(&["simulate", missing.to_str().unwrap()]).code, 2);
}
