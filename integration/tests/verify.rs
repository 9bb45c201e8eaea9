//! `safectl verify`: a byte that changed on the other disk by itself is found, named, and resent.

use std::os::unix::fs::FileExt as _;

use safe_integration::error::{Error, Result};
use safe_integration::{Cluster, Module, tree};

/// Changes one byte on the other node's disk, as a bad disk does: size and times stay.
fn flip(cluster: &Cluster, path: &str, offset: u64) -> std::io::Result<()> {
    let path = cluster.node(1).outside(path);
    let time = std::fs::metadata(&path)?.modified()?;
    let file = std::fs::File::options().read(true).write(true).open(&path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[!byte[0]], offset)?;
    file.set_modified(time)
}

#[test]
fn a_flipped_byte_is_found_named_and_resent() -> Result<()> {
    let c = Cluster::two_nodes("verify")?;
    c.start_module(&Module::mirror("files").replicate("/srv/data/files"))?;
    c.node(0).shell(
        "cd /srv/data/files && mkdir dir && head -c 3000000 /dev/urandom >dir/large && echo small >small \
         && cp -r /usr/share/doc/bash . 2>/dev/null || true",
    )?;
    let equal = c.node(0).safectl("verify files")?;
    assert!(equal.contains("both copies are equal"), "{equal}");
    flip(&c, "/srv/data/files/dir/large", 2_000_000)
        .map_err(|error| Error::new(format!("the file on the other disk: {error}")))?;
    // Asked on the node that does not serve: it is passed on.
    let found = c.node(1).try_safectl("verify files")?;
    assert_eq!(found.code, 1, "{found:?}");
    let (table, hint) = (&found.out, &found.err);
    assert!(
        table.contains("dir/large") && table.contains("content") && table.contains("from 1966080"),
        "{table}"
    );
    assert!(hint.contains("safectl verify files --repair"), "{hint}");
    let events = c.node(0).safectl("events files")?;
    assert!(events.contains("THE COPIES DIFFER"), "{events}");
    let status = c.node(0).safectl("status files -o json")?;
    assert!(status.contains("\"differences\": 1"), "{status}");
    let repaired = c.node(0).try_safectl("verify files --repair")?;
    assert_eq!(repaired.code, 1, "{repaired:?}");
    c.wait_pair("files", "n1")?;
    tree::assert_equal(&c, "/srv/data/files")?;
    let equal = c.node(0).safectl("verify files")?;
    assert!(equal.contains("both copies are equal"), "{equal}");
    c.finish()
}
