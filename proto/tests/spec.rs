//! `module.toml`: what is read, and what is said about what is wrong.

use std::path::PathBuf;
use std::time::Duration;

use safe_proto::spec::{
    Boot, DefaultPrimary, Finding, Isolation, Kind, ModuleSpec, SplitBrainPolicy, Surroundings,
};

const SMALL: &str = r#"
[module]
name = "db"
kind = "mirror"
nodes = ["n1", "n2"]

[[replicate]]
path = "/srv/db"
exclude = ["tmp/**"]
"#;

fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

fn refused(text: &str) -> Vec<String> {
    shown(&ModuleSpec::parse(text).expect_err("should not parse"))
}

fn errors(spec: &ModuleSpec, around: Surroundings<'_>) -> Vec<String> {
    let findings = spec.validate(around);
    shown(&findings.into_iter().filter(|finding| finding.error).collect::<Vec<_>>())
}

fn parsed(text: &str) -> ModuleSpec {
    ModuleSpec::parse(text).unwrap_or_else(|findings| panic!("{:#?}", shown(&findings)))
}

/// SMALL with a line put in after `[module]`, so on line 3.
fn with(line: &str) -> ModuleSpec {
    parsed(&SMALL.replacen("[module]", &format!("[module]\n{line}"), 1))
}

#[test]
fn defaults_are_those_documented() {
    let spec = parsed(SMALL);
    assert_eq!(spec.module.kind, Kind::Mirror);
    assert_eq!(spec.module.boot, Boot::Auto);
    assert_eq!(spec.module.default_primary, DefaultPrimary::None);
    assert!(spec.module.failover);
    assert_eq!(spec.module.isolation, Isolation::Alone);
    assert_eq!(spec.module.max_loop, 3);
    assert_eq!(spec.module.loop_interval, Duration::from_secs(86_400));
    assert_eq!(spec.module.retry_after, Duration::from_secs(600));
    assert_eq!(spec.heartbeat.interval, Duration::from_millis(300));
    assert_eq!(spec.heartbeat.timeout, Duration::from_secs(3));
    assert_eq!(spec.replication.stall_timeout, Duration::from_secs(2));
    assert_eq!(spec.split_brain.policy, SplitBrainPolicy::Serving);
    assert_eq!(spec.split_brain.archive_limit, 10 << 30);
    assert_eq!(spec.scripts.force_timeout, Duration::from_secs(60));
    assert_eq!(errors(&spec, Surroundings::default()), Vec::<String>::new());
}

#[test]
fn the_whole_form_is_read_and_written_back() {
    let text = r#"
[module]
name = "db"
kind = "mirror"
nodes = ["n1", "n2"]
boot = "on"
boot_delay = "5s"
default_primary = "n1"
failover = "off"
isolation = "wait"
max_loop = 5
loop_interval = "12h"
retry_after = "0s"

[heartbeat]
interval = "200ms"
timeout = "1s"
lans = ["default", "repl"]
agent_timeout = "10s"
start_wait = "10s"

[replication]
lans = ["repl", "default"]
stall_timeout = "2s"
slow_timeout = "30s"
local_timeout = "10s"
sync_delta = "0s"
bandwidth_limit = "50MiB/s"
verify = "weekly"

[[replicate]]
path = "/srv/db"
exclude = ["tmp/**"]
sync = "write"
ack = "memory"

[split_brain]
policy = "manual"
archive_limit = "10GiB"

[[address]]
ip = "192.168.1.50/24"
interface = "auto"

[[arbiter]]
name = "gateway"
kind = "ping"
target = "192.168.1.1"

[[process]]
name = "postgres"
class = "prim"
action = "restart"

[[check]]
kind = "tcp"
name = "db"
target = "127.0.0.1:5432"
when = "prim"
action = "restart"

[[rule]]
label = "db_swap"
if = "check.tcp.db == down && remote.state == SECOND && remote.data.uptodate == up"
then = "swap"
after = "15s"

[scripts]
start_timeout = "300s"
stop_timeout = "300s"
force_timeout = "60s"

[env]
PGDATA = "/srv/db"
"#;
    let spec = parsed(text);
    assert_eq!(errors(&spec, Surroundings::default()), Vec::<String>::new());
    let again = toml::to_string(&spec).expect("serialises");
    assert_eq!(parsed(&again), spec);
}

#[test]
fn every_wrong_key_is_found_with_its_line_and_a_suggestion() {
    let text = "[module]\nname = \"db\"\nkind = \"miror\"\nmaxloop = 3\n\n[heartbaet]\n\n[heartbeat]\ntimeout = 3\n\n\
                [[replicate]]\npath = \"/srv\"\nexcludes = []\n\n[[address]]\nip = \"10.0.0.1\"\n";
    let messages = refused(text);
    let expect = [
        "module.toml:3: error: kind: unknown value \"miror\"; did you mean \"mirror\"?",
        "module.toml:4: error: unknown key \"maxloop\"; did you mean \"max_loop\"?",
        "module.toml:6: error: unknown key \"heartbaet\"; did you mean \"heartbeat\"?",
        "module.toml:9: error: timeout: invalid type: integer 3, expected a text in quotes",
        "module.toml:13: error: unknown key \"excludes\"; did you mean \"exclude\"?",
        "module.toml:16: error: ip: \"10.0.0.1\" has no prefix length; write it as in \"192.168.1.50/24\"",
    ];
    assert_eq!(messages.len(), expect.len(), "{messages:#?}");
    for (message, start) in messages.iter().zip(expect) {
        assert!(message.starts_with(start), "{message}\nshould start with\n{start}");
    }
}

#[test]
fn wrong_syntax_and_missing_keys_are_told() {
    let messages = refused("[module\nname = 3");
    assert!(messages[0].starts_with("module.toml:1: error: "), "{messages:?}");
    let messages = refused("[module]\nkind = \"mirror\"\n");
    assert_eq!(messages, ["module.toml:1: error: the key \"name\" is missing here"]);
    let messages = refused("");
    assert!(messages[0].contains("the key \"module\" is missing"), "{messages:?}");
    let huge = format!("# {}", "x".repeat(300 * 1024));
    assert!(refused(&huge)[0].contains("larger than 256 KiB"));
}

#[test]
fn nodes_and_lans_must_be_known() {
    let nodes = ["n1".to_owned(), "n3".to_owned()];
    let lans = ["default".to_owned()];
    let around = Surroundings { nodes: Some(&nodes), lans: Some(&lans), ..Surroundings::default() };
    let spec = parsed(&format!("{SMALL}\n[heartbeat]\nlans = [\"defualt\"]\n"));
    let messages = errors(&spec, around);
    assert_eq!(messages.len(), 2, "{messages:#?}");
    assert!(messages[0].contains("module.toml:5: error: the cluster has no node \"n2\""), "{messages:#?}");
    assert!(messages[1].contains("did you mean \"default\"?"), "{messages:#?}");
}

#[test]
fn a_key_given_twice_is_named() {
    let text = "[module]\nname = \"m\"\nkind = \"mirror\"\nname = \"n\"\n";
    let findings = ModuleSpec::parse(text).unwrap_err();
    let messages: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(messages, ["module.toml:4: error: the key \"name\" is given twice; remove one"]);
}

#[test]
fn a_mirror_has_two_nodes() {
    let spec = parsed(&SMALL.replace("[\"n1\", \"n2\"]", "[\"n1\", \"n2\", \"n3\"]"));
    assert!(errors(&spec, Surroundings::default())[0].contains("exactly 2 nodes; 3 are named"));
    let spec = parsed(&SMALL.replace("[\"n1\", \"n2\"]", "[\"n1\", \"n1\"]"));
    assert!(errors(&spec, Surroundings::default())[0].contains("named twice"));
    let spec = parsed(&SMALL.replace("nodes = [\"n1\", \"n2\"]\n", ""));
    let three = ["n1".to_owned(), "n2".to_owned(), "n3".to_owned()];
    let around = Surroundings { nodes: Some(&three), ..Surroundings::default() };
    assert!(errors(&spec, around)[0].contains("name the 2 of this mirror module"));
    let one = ["n1".to_owned()];
    let around = Surroundings { nodes: Some(&one), ..Surroundings::default() };
    assert!(errors(&spec, around)[0].contains("safectl cluster invite"));
}

#[test]
fn an_address_of_a_node_is_no_virtual_address() {
    let taken = [("n1".to_owned(), "10.99.0.1".parse().unwrap())];
    let around = Surroundings { addresses: &taken, ..Surroundings::default() };
    let spec = parsed(&format!("{SMALL}\n[[address]]\nip = \"10.99.0.1/24\"\n"));
    let messages = errors(&spec, around);
    assert!(messages[0].contains("10.99.0.1 is node n1's own address"), "{messages:?}");
    assert_eq!(errors(&spec, Surroundings::default()), Vec::<String>::new());
}

#[test]
fn directories_do_not_overlap() {
    let own = [PathBuf::from("/var/lib/safed")];
    let around = Surroundings { own_paths: &own, ..Surroundings::default() };
    for (path, part) in [
        ("/srv/db/wal", "overlaps /srv/db, also replicated by this module"),
        ("/srv", "overlaps /srv/db, also replicated by this module"),
        ("/var/lib/safed/modules", "belongs to safed itself"),
        ("srv", "not absolute"),
        ("/srv/x/../y", "write \"/srv/y\""),
        ("/etc", "belongs to the system"),
    ] {
        let spec = parsed(&format!("{SMALL}\n[[replicate]]\npath = \"{path}\"\n"));
        let messages = errors(&spec, around);
        assert_eq!(messages.len(), 1, "{path}: {messages:#?}");
        assert!(
            messages[0].starts_with("module.toml:12: error: ") && messages[0].contains(part),
            "{messages:?}"
        );
    }
    let many: String = (0..8).map(|n| format!("\n[[replicate]]\npath = \"/srv/x{n}\"\n")).collect();
    assert!(errors(&parsed(&format!("{SMALL}{many}")), around)[0].contains("at most 8"));
}

#[test]
fn globs_compile() {
    for (glob, part) in [("a[", "is not a glob"), ("/tmp/**", "must be relative"), ("**", "leaves nothing")] {
        let spec = parsed(&SMALL.replace("tmp/**", glob));
        let messages = errors(&spec, Surroundings::default());
        assert!(messages.len() == 1 && messages[0].contains(part), "{messages:?}");
    }
}

#[test]
fn times_fit_together() {
    for (text, part) in [
        ("[heartbeat]\ninterval = \"2s\"", "less than 3 intervals of 2s"),
        ("[heartbeat]\ntimeout = \"20s\"", "start_wait 10s is shorter than timeout 20s"),
        ("[heartbeat]\ninterval = \"1ms\"", "interval is 20ms to 10s"),
        ("[scripts]\nstart_timeout = \"0s\"", "start_timeout is 1s to 1d"),
        ("[replication]\nslow_timeout = \"1s\"", "must not be shorter"),
    ] {
        let messages = errors(&parsed(&format!("{SMALL}\n{text}\n")), Surroundings::default());
        assert!(messages.len() == 1 && messages[0].contains(part), "{text}: {messages:?}");
    }
}

#[test]
fn arbiters_and_environment() {
    for (text, part) in [
        ("[[arbiter]]\nkind = \"etcd\"\ntarget = \"http://e:2379\"", "would not be protected"),
        ("[[arbiter]]\nkind = \"tcp\"\ntarget = \"gw\"", "has no port"),
        ("[[arbiter]]\nkind = \"http\"\ntarget = \"gw\"", "not a URL"),
        ("[[arbiter]]\nkind = \"http\"\ntarget = \"https://10.0.0.1/\"", "no https"),
        ("[[arbiter]]\nkind = \"command\"\ntarget = \"true\"", "is not a command"),
        ("[[arbiter]]\nkind = \"ping\"\ntarget = \"::1\"", "no machine beside the nodes"),
        ("[env]\nSAFE_NODE = \"x\"", "reserved"),
        ("[env]\n\"A-B\" = \"x\"", "cannot be a variable"),
        ("[[check]]\nkind = \"tcp\"\nname = \"a\"\ntarget = \"b:1\"\nwhen = \"pre\"", "runs before"),
    ] {
        let messages = errors(&parsed(&format!("{SMALL}\n{text}\n")), Surroundings::default());
        assert!(messages.len() == 1 && messages[0].contains(part), "{text}: {messages:?}");
    }
    let two = "\n[[arbiter]]\nkind = \"ping\"\ntarget = \"gw\"\n";
    let spec = parsed(&format!("{SMALL}{two}{two}"));
    assert_eq!(spec.arbiter_name(1).as_deref(), Some("ping-2"));
}

#[test]
fn an_arbiter_is_a_third_machine() {
    let of_nodes = [("n1".to_owned(), [10, 0, 0, 1].into()), ("n3".to_owned(), [10, 0, 0, 3].into())];
    let witnesses = ["10.0.0.9:9403".to_owned()];
    let around =
        Surroundings { addresses: &of_nodes, witnesses: Some(&witnesses), ..Surroundings::default() };
    let judged = |kind: &str, target: &str| {
        let text = format!(
            "{SMALL}\n[[address]]\nip = \"10.0.0.50/24\"\n[[arbiter]]\nkind = \"{kind}\"\ntarget = \"{target}\"\n"
        );
        errors(&parsed(&text), around)
    };
    for (kind, target, part) in [
        ("ping", "10.0.0.1", "an address of node n1"),
        ("tcp", "10.0.0.1:22", "an address of node n1"),
        ("http", "http://10.0.0.1/x", "an address of node n1"),
        ("http", "http://10.0.0.50:80", "a virtual address of this module"),
        ("tcp", "[::1]:22", "no machine beside the nodes"),
        ("witness", "10.0.0.8:9403", "safectl witness add"),
    ] {
        let messages = judged(kind, target);
        assert!(messages.len() == 1 && messages[0].contains(part), "{kind} {target}: {messages:?}");
    }
    // A node of the cluster that is none of the module.
    for (kind, target) in [("ping", "10.0.0.3"), ("tcp", "[fd00::3]:22"), ("command", "check_gateway 1")] {
        assert_eq!(judged(kind, target), Vec::<String>::new(), "{kind} {target}");
    }
    let two = "\n[[arbiter]]\nkind = \"witness\"\ntarget = \"10.0.0.9:9403\"\n";
    let messages = errors(&parsed(&format!("{SMALL}{two}{two}")), around);
    assert!(messages.iter().any(|message| message.contains("each choose another node")), "{messages:?}");
}

#[test]
fn a_full_isolation_is_foretold() {
    let warnings = |spec: &ModuleSpec| shown(&spec.validate(Surroundings::default()));
    let alone = warnings(&with(""));
    assert!(alone.len() == 1 && alone[0].contains("both nodes serve"), "{alone:?}");
    let wait = warnings(&with("isolation = \"wait\""));
    assert!(wait.len() == 1 && wait[0].contains("nobody serves"), "{wait:?}");
    let pinged = warnings(&parsed(&format!("{SMALL}\n[[arbiter]]\nkind = \"ping\"\ntarget = \"gw\"\n")));
    assert!(pinged.iter().any(|warning| warning.contains("exclude nothing")), "{pinged:?}");
    assert!(pinged.iter().any(|warning| warning.contains("am I the isolated one")), "{pinged:?}");
}

#[test]
fn primaries_are_nodes_of_the_module() {
    let messages = errors(&with("default_primary = \"n3\""), Surroundings::default());
    assert_eq!(
        messages,
        ["module.toml:3: error: \"n3\" is not one of the module's nodes (n1, n2), nor none or last"]
    );
}

#[test]
fn two_modules_may_not_share() {
    let first = parsed(&format!("{SMALL}\n[[address]]\nip = \"10.0.0.9/24\"\n"));
    let text = "[module]\nname = \"web\"\nkind = \"mirror\"\n[[replicate]]\npath = \"/srv\"\n[[address]]\nip = \"10.0.0.9/16\"\n";
    let second = parsed(text);
    let messages = shown(&second.conflicts(&first));
    assert_eq!(
        messages,
        [
            "module.toml:5: error: /srv overlaps /srv/db, replicated by module \"db\"",
            "module.toml:7: error: address 10.0.0.9 belongs to module \"db\"",
        ]
    );
    assert_eq!(first.conflicts(&first), []);
}

#[test]
fn nodes_left_out_are_those_of_the_cluster() {
    let cluster = ["a".to_owned(), "b".to_owned()];
    assert_eq!(parsed(SMALL).nodes_in(&cluster, "a"), ["n1", "n2"]);
    assert_eq!(parsed("[module]\nname = \"m\"\nkind = \"mirror\"\n").nodes_in(&cluster, "a"), ["a", "b"]);
    assert_eq!(parsed("[module]\nname = \"m\"\nkind = \"light\"\n").nodes_in(&cluster, "b"), ["b"]);
}
