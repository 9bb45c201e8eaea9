//! Bad input: a clear error that says what to do, and nothing changed.

use safe_integration::cluster::Cluster;
use safe_integration::error::Result;
use safe_integration::eventually::{eventually, eventually_true, throughout};
use safe_integration::host::Host;
use safe_integration::lan::LANS;
use safe_integration::module::Module;
use safe_integration::node::{Node, ROOT};
use safe_integration::status::State;
use std::time::Duration;

/// Refused by validate and by install, both of which say all of these words.
fn refused(c: &Cluster, module: &Module, words: &[&str]) -> Result<()> {
    let directory = c.write_module(module)?;
    for verb in ["validate", "install"] {
        let said = c.node(0).try_safectl(&format!("module {verb} {}", directory.display()))?;
        let text = format!("{}{}", said.out, said.err);
        assert_ne!(said.code, 0, "{verb} must refuse: {text}");
        for word in words {
            assert!(text.contains(word), "{verb} does not say {word:?}: {text}");
        }
    }
    let listed = c.node(0).safectl("module list -o json")?;
    assert!(!listed.contains(&format!("\"{}\"", module.name())), "{listed}");
    Ok(())
}

#[test]
fn module_with_an_unknown_key_is_refused_with_a_suggestion() -> Result<()> {
    let c = Cluster::two_nodes("bad-key")?;
    let module = Module::mirror("m").key("max_lop", "3");
    refused(&c, &module, &["module.toml:5", "max_lop", "max_loop"])?;
    c.finish()
}

#[test]
fn module_with_a_wrong_type_is_refused() -> Result<()> {
    let c = Cluster::two_nodes("bad-type")?;
    refused(&c, &Module::mirror("m").key("max_loop", "\"three\""), &["module.toml:5", "max_loop"])?;
    c.finish()
}

#[test]
fn directory_within_another_modules_is_refused() -> Result<()> {
    let c = Cluster::two_nodes("bad-overlap")?;
    c.install_module(&Module::mirror("first").replicate("/srv/data/x"))?;
    refused(
        &c,
        &Module::mirror("m").replicate("/srv/data/x/below"),
        &["module.toml:", "first", "/srv/data/x"],
    )?;
    refused(&c, &Module::mirror("m").replicate("/srv/data"), &["module.toml:", "first"])?;
    c.finish()
}

#[test]
fn directory_of_safed_itself_is_refused() -> Result<()> {
    let c = Cluster::two_nodes("bad-own")?;
    refused(&c, &Module::mirror("m").replicate(&format!("{ROOT}/lib")), &["module.toml:", ROOT])?;
    refused(&c, &Module::mirror("m").replicate("/srv"), &["module.toml:", ROOT])?;
    c.finish()
}

#[test]
fn address_of_another_module_is_refused() -> Result<()> {
    let c = Cluster::two_nodes("bad-address")?;
    c.install_module(&Module::mirror("first").address("10.99.0.60/24"))?;
    refused(&c, &Module::mirror("m").address("10.99.0.60/24"), &["module.toml:", "10.99.0.60", "first"])?;
    c.finish()
}

/// A cluster of one node, and a daemon beside it that wants to join.
fn one_and_a_joiner(name: &str) -> Result<(Cluster, String)> {
    let c = Cluster::bare(name)?;
    c.nodes().iter().try_for_each(Node::start_agent)?;
    let token = init(c.node(0), name)?;
    Ok((c, token))
}

fn init(node: &Node, name: &str) -> Result<String> {
    node.safectl(&format!("cluster init --name {name} --node {} {}", node.name, node.address_options()))
}

/// The join is refused with this word, and nothing was written but the line in the audit log that says so.
fn join_refused(node: &Node, token: &str, word: &str) -> Result<()> {
    let files = || node.shell(&format!("find {ROOT}/lib -type f ! -name 'audit.log*' | sort"));
    let before = files()?;
    let said = node.try_safectl(&format!("cluster join {token} --node n2 {}", node.address_options()))?;
    assert_ne!(said.code, 0, "{}", said.out);
    assert!(said.err.to_lowercase().contains(word), "does not say {word:?}: {}", said.err);
    assert_eq!(files()?, before, "nothing is written on the joining node");
    Ok(())
}

#[test]
fn altered_token_is_refused_and_the_right_one_works_afterwards() -> Result<()> {
    let (c, token) = one_and_a_joiner("token-altered")?;
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let altered = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    join_refused(c.node(1), &altered, "token")?;
    join_refused(c.node(1), &token[..token.len() - 4], "token")?;
    let join = format!("cluster join {token} --node n2 {}", c.node(1).address_options());
    c.node(1).safectl(&join)?;
    c.finish()
}

#[test]
#[ignore = "long: make proof"]
fn expired_token_is_refused() -> Result<()> {
    let (c, _) = one_and_a_joiner("token-expired")?;
    // The shortest time there is.
    let token = c.node(0).safectl("cluster invite --ttl 60s")?;
    throughout(Duration::from_secs(62), "time passes", || Ok(true))?;
    join_refused(c.node(1), &token, "expired")?;
    c.finish()
}

#[test]
fn used_token_is_refused() -> Result<()> {
    let (c, token) = one_and_a_joiner("token-used")?;
    c.node(1).safectl(&format!("cluster join {token} --node n2 {}", c.node(1).address_options()))?;
    let third = Node::new(c.host("n3", 3, &LANS)?);
    third.start_agent()?;
    join_refused(&third, &token, "used")?;
    c.finish()
}

#[test]
fn token_of_another_cluster_is_refused() -> Result<()> {
    let (c, token) = one_and_a_joiner("token-foreign")?;
    // The node of the token's cluster is set up anew.
    c.node(0).stop_agent()?;
    c.node(0).shell(&format!("rm -r {ROOT}"))?;
    c.node(0).start_agent()?;
    init(c.node(0), "another")?;
    join_refused(c.node(1), &token, "another cluster")?;
    c.finish()
}

/// Two clusters of one node each; the second talks to the first.
#[test]
fn certificate_of_another_authority_is_refused() -> Result<()> {
    let c = Cluster::bare("foreign-certificate")?;
    c.nodes().iter().try_for_each(Node::start_agent)?;
    init(c.node(0), "one")?;
    init(c.node(1), "two")?;
    let own = format!("{ROOT}/lib/cluster");
    let theirs = c.directory().join("ca.pem");
    std::fs::copy(c.node(0).outside(&format!("{own}/ca.pem")), &theirs)?;
    let lines = |host: &Host| host.shell(&format!("cat {ROOT}/lib/audit* 2>/dev/null | wc -l"));
    let before: u32 = lines(c.node(0))?.parse().unwrap_or(0);
    let call = format!(
        "--endpoint https://10.99.0.1:9400 --ca {} --cert {own}/node.pem --key {own}/node.key cluster status",
        theirs.display()
    );
    let said = c.node(1).try_safectl(&call)?;
    assert_ne!(said.code, 0, "{}", said.out);
    // One line for each connection: safectl tries twice.
    let audited = || lines(c.node(0)).is_ok_and(|count| count.parse().is_ok_and(|count: u32| count > before));
    eventually_true(Duration::from_secs(5), "an audit line", audited)?;
    let status = c.node(0).safectl("cluster status -o json")?;
    assert!(status.contains("n1") && !status.contains("n2"), "{status}");
    c.finish()
}

#[test]
fn call_without_a_certificate_is_refused() -> Result<()> {
    let c = Cluster::two_nodes("no-certificate")?;
    let outside = c.client("client", 100)?;
    // gRPC over TLS without a certificate: the handshake or the call is refused, never answered.
    let line = "printf 'x' | timeout 5 openssl s_client -connect 10.99.0.1:PORT -alpn h2 -quiet 2>&1 || true";
    for port in ["9400", "9402"] {
        let said = outside.shell(&line.replace("PORT", port))?;
        assert!(!said.contains("grpc-status"), "{said}");
    }
    c.start_module(&Module::mirror("m"))?;
    assert_eq!(c.node(0).status("m")?.state, State::Prim);
    c.finish()
}

/// The daemon says in one line what is wrong and how to mend it, and ends with 2.
fn will_not_start(node: &Node, words: &[&str]) -> Result<()> {
    let log = node.log("safed");
    let before = std::fs::read_to_string(&log).unwrap_or_default().len();
    node.launch_agent()?;
    let code = eventually(Duration::from_secs(20), "safed ends", || node.agent_ended())?;
    let text = std::fs::read_to_string(&log)?;
    let said = &text[before..];
    assert_eq!(code, 2, "{said}");
    for word in words {
        assert!(said.contains(word), "does not say {word:?}: {said}");
    }
    Ok(())
}

#[test]
fn port_in_use_is_named() -> Result<()> {
    let c = Cluster::two_nodes("port-in-use")?;
    for port in ["9400", "9402"] {
        let node = c.node(0);
        node.stop_agent()?;
        let ledger = safe_integration::place::binary("ledger")?;
        let program = node.program(&ledger.to_string_lossy())?;
        let listen = format!("0.0.0.0:{port}");
        let _other = program.args(["--file", "/srv/other", "--listen", &listen]).spawn(&node.log("other"))?;
        node.shell(&format!("until ss -Hltn 'sport = :{port}' | grep -q .; do sleep 0.02; done"))?;
        will_not_start(node, &[port, "in use"])?;
        node.kill("ledger")?;
        node.start_agent()?;
    }
    c.finish()
}

#[test]
fn machine_without_fuse_is_told_what_to_load() -> Result<()> {
    let c = Cluster::bare("no-fuse")?;
    c.node(0).shell(
        "mkdir /srv/dev; for d in null zero random urandom; do cp -a /dev/$d /srv/dev/; done; mount --bind /srv/dev /dev",
    )?;
    will_not_start(c.node(0), &["/dev/fuse", "modprobe fuse"])?;
    c.finish()
}

#[test]
fn daemon_without_root_says_so() -> Result<()> {
    let c = Cluster::bare("not-root")?;
    let safed = safe_integration::place::binary("safed")?;
    c.node(0).shell("mkdir -m 777 /srv/open")?;
    let program =
        c.node(0).program("setpriv")?.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let said = program.arg(safed).args(["--root", "/srv/open/root"]).output()?;
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("root"), "{}", said.err);
    assert_eq!(said.err.trim().lines().count(), 1, "one line: {}", said.err);
    c.finish()
}
