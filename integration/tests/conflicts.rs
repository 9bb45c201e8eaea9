//! A split brain: what the loser alone wrote is kept before its copy is replaced, and can be had back.

use std::time::Duration;

use safe_integration::error::{Context as _, Result};
use safe_integration::eventually::eventually;
use safe_integration::lan::LANS;
use safe_integration::{Cluster, Module, State, tree};
use serde::Deserialize;

const DIRECTORY: &str = "/srv/data/files";
/// Longer than two heartbeat timeouts.
const A_WHILE: Duration = Duration::from_secs(20);

/// A line of `safectl conflicts list -o json`.
#[derive(Debug, Deserialize)]
struct Conflict {
    id: String,
    node: String,
    replaced_by: String,
    files: u64,
    removed: u64,
}

fn conflicts(cluster: &Cluster) -> Result<Vec<Conflict>> {
    Ok(serde_json::from_str(&cluster.node(0).safectl("conflicts list files -o json")?)?)
}

/// Both serve; every lan is cut.
fn part(name: &str, section: &str) -> Result<Cluster> {
    let c = Cluster::two_nodes(name)?;
    c.start_module(&Module::mirror("files").replicate(DIRECTORY).section(section))?;
    c.node(0).shell(&format!(
        "cd {DIRECTORY}; mkdir common; echo before >common/changed; echo before >common/removed; \
         echo before >moved; head -c 200000 /dev/urandom >big"
    ))?;
    for lan in LANS {
        c.cut(lan)?;
    }
    for node in c.nodes() {
        c.wait_state("files", &node.name, State::Alone)?;
    }
    Ok(c)
}

fn heal(c: &Cluster) -> Result<()> {
    LANS.into_iter().try_for_each(|lan| c.heal(lan))
}

/// What each node writes for itself; answers what n2 then has.
fn write_apart(c: &Cluster) -> Result<String> {
    c.node(0).shell(&format!("cd {DIRECTORY}; echo one >common/changed; echo one >one"))?;
    c.node(1).shell(&format!(
        "cd {DIRECTORY}; echo two >common/changed; rm common/removed; mv moved 'mo\\ved \u{fc}'; mkdir -p own/deep; \
         echo two >own/deep/file; ln own/deep/file own/link; ln -s nowhere own/symlink; chmod 2750 own; \
         setfattr -n user.note -v two own/deep/file; chown 7:8 own/deep/file; touch -d 1969-12-31T23:59:58Z own/deep/file; \
         printf XX | dd of=big bs=1 seek=100000 conv=notrunc status=none"
    ))?;
    list(c, DIRECTORY, "common/changed own mo*ved* big")
}

/// Everything about some files.
fn list(c: &Cluster, below: &str, names: &str) -> Result<String> {
    c.node(1).shell(&format!(
        "cd {below}; find {names} -printf '%p %y %m %U %G %T@ %l\\n' | sort; find {names} -type f -exec sha256sum {{}} + | \
         sort -k2; getfattr -R -d {names} 2>/dev/null | grep note"
    ))
}

#[test]
fn what_the_loser_wrote_is_kept_and_comes_back() -> Result<()> {
    let c = part("conflicts", "")?;
    let had = write_apart(&c)?;
    heal(&c)?;
    c.wait_pair("files", "n1")?;
    tree::assert_equal(&c, DIRECTORY)?;
    assert_eq!(c.node(0).shell(&format!("cat {DIRECTORY}/common/changed"))?, "one");
    let kept = conflicts(&c)?;
    let [kept] = kept.as_slice() else { panic!("one archive is kept: {kept:?}") };
    assert_eq!((kept.node.as_str(), kept.replaced_by.as_str()), ("n2", "n1"));
    assert!(kept.files >= 4 && kept.removed >= 2, "{kept:?}");
    let shown = c.node(0).safectl(&format!("conflicts show files {}", &kept.id[..8]))?;
    for path in ["common/changed", "common/removed", "own/deep/file", "big"] {
        assert!(shown.contains(&format!("{DIRECTORY}/{path}")), "{path} is shown:\n{shown}");
    }
    // From the other node: its files come back on the node that keeps them.
    c.node(0).safectl(&format!("conflicts restore files {} --to /srv/back", &kept.id[..8]))?;
    assert_eq!(list(&c, &format!("/srv/back{DIRECTORY}"), "common/changed own mo*ved* big")?, had);
    let again = c.node(0).try_safectl(&format!("conflicts restore files {} --to /srv/back", kept.id))?;
    assert_ne!(again.code, 0, "nothing is written over: {}", again.out);
    // It outlives the daemon.
    c.node(1).kill_agent()?;
    c.node(1).start_agent()?;
    assert_eq!(conflicts(&c)?.len(), 1);
    let unasked = c.node(0).try_safectl(&format!("conflicts discard files {}", kept.id))?;
    assert_eq!(unasked.code, 1, "it asks before something is lost");
    c.node(0).safectl("shutdown files")?;
    let removed = c.node(0).try_safectl("module remove files")?;
    assert!(removed.code != 0 && removed.err.contains("conflicts list files"), "{}", removed.err);
    c.node(0).safectl(&format!("conflicts discard files {} --yes", kept.id))?;
    assert!(conflicts(&c)?.is_empty());
    c.node(0).safectl("module remove files")?;
    c.finish()
}

/// Without room nothing is given up: the loser waits, and says what to do.
#[test]
fn without_room_the_loser_waits() -> Result<()> {
    let c = part("conflicts-full", "[split_brain]\narchive_limit = \"8KiB\"")?;
    write_apart(&c)?;
    heal(&c)?;
    let blocked = c.wait_blocked("files", "n2", State::Wait)?;
    let hint = blocked.hint.clone().context(|| "a hint".to_owned())?;
    assert!(blocked.reason.as_ref().is_some_and(|why| why.contains("archive_limit")), "{}", blocked.line());
    assert!(hint.ends_with("safectl second files --on n2 --force --discard"), "{hint}");
    assert_eq!(c.node(0).status("files")?.state, State::Alone);
    assert_eq!(
        c.node(1).shell(&format!("cat {}/common/changed", c.node(1).outside(DIRECTORY).display()))?,
        "two"
    );
    c.node(0).safectl("second files --on n2 --force --discard --yes")?;
    c.wait_pair("files", "n1")?;
    assert!(conflicts(&c)?.is_empty());
    tree::assert_equal(&c, DIRECTORY)?;
    c.finish()
}

/// The node that keeps the archive loses power while it writes it: it is made again, whole.
#[test]
fn an_archive_that_was_broken_off_is_made_again() -> Result<()> {
    let c = part("conflicts-power", "")?;
    write_apart(&c)?;
    c.node(1).shell(&format!("head -c 64M /dev/urandom >{DIRECTORY}/large"))?;
    let sum = c.node(1).shell(&format!("sha256sum <{DIRECTORY}/large"))?;
    heal(&c)?;
    let place = c.node(1).outside("/srv/safed");
    eventually(A_WHILE, "the archive is being written", || {
        let found = std::process::Command::new("find").arg(&place).args(["-name", "*.new"]).output()?;
        Ok((!found.stdout.is_empty() || !conflicts(&c)?.is_empty()).then_some(()))
    })?;
    c.node(1).kill_host()?;
    c.node(1).restart_host()?;
    c.wait_pair("files", "n1")?;
    tree::assert_equal(&c, DIRECTORY)?;
    let kept = conflicts(&c)?;
    let [kept] = kept.as_slice() else { panic!("one archive is kept: {kept:?}") };
    c.node(0).safectl(&format!("conflicts restore files {} --to /srv/back", kept.id))?;
    assert_eq!(c.node(1).shell(&format!("sha256sum </srv/back{DIRECTORY}/large"))?, sum);
    c.finish()
}
