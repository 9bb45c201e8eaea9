//! Comparing the two copies of a replicated directory where they are: one machine reads what the other sends.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::eventually::eventually;
use crate::tree::OPTIONS;
use crate::vm::machine::UNDER;
use crate::vm::{Machine, Pair};

/// Both read everything.
const READ: Duration = Duration::from_secs(300);

/// The sender's settings: root, no other directory, nothing is written.
const SENDER: &str = "cat >/run/compare.conf <<CONF
uid = 0
gid = 0
use chroot = no
log file = /dev/null
[under]
path = /under
read only = yes
CONF
exec rsync --daemon --no-detach --config /run/compare.conf --port 8730";

/// Lines in which the copies below `path` (in `/srv`) differ; none if they are equal. Nobody may be writing.
pub fn differences(pair: &Pair, path: &str) -> Result<Vec<String>> {
    let [reader, sender] = [pair.machine(0), pair.machine(1)];
    let below = path.trim_start_matches("/srv/");
    let mut daemon = sender.program("sh").args(["-euc", SENDER]).spawn(&sender.log("rsync"))?;
    wait_for(reader)?;
    let from = format!("rsync://10.98.0.{}:8730/under/{below}/", sender.number);
    let program =
        reader.program("rsync").args(OPTIONS).args([from, format!("{UNDER}/{below}/")]).deadline(READ);
    let said = program.output()?;
    if said.code != 0 || daemon.ended()?.is_some() {
        return Err(Error::new(format!("rsync: {} {}", said.code, said.err.trim())));
    }
    Ok(said.out.lines().map(str::to_owned).collect())
}

fn wait_for(reader: &Machine) -> Result<()> {
    eventually(Duration::from_secs(60), "the other copy is sent", || {
        reader.program("rsync").arg("rsync://10.98.0.2:8730/").run().map(|_| Some(()))
    })
}
