//! The ledger as a mirror module: replicated directory, virtual address, scripts.

use std::net::SocketAddr;

use crate::error::{Context as _, Result};
use crate::module::Module;
use crate::place::binary;

/// Name of the module.
pub const MODULE: &str = "ledger";

/// Its replicated directory.
pub const DIRECTORY: &str = "/srv/data/ledger";

/// Its virtual address.
pub const ADDRESS: &str = "10.99.0.50";

/// Where clients find it.
pub fn endpoint() -> Result<SocketAddr> {
    format!("{ADDRESS}:8080").parse().context(|| ADDRESS.to_owned())
}

/// The module.
pub fn module() -> Result<Module> {
    let program = binary("ledger")?.display().to_string();
    let start = START.replace("PROGRAM", &program).replace("DIRECTORY", DIRECTORY);
    Ok(Module::mirror(MODULE)
        .replicate(DIRECTORY)
        .address(&format!("{ADDRESS}/24"))
        .script("start_prim", &start)
        .script("stop_prim", STOP))
}

/// Starts the ledger and waits until it listens, or has ended.
const START: &str = r#"
setsid PROGRAM --file DIRECTORY/ledger </dev/null >>/srv/ledger.log 2>&1 &
pid=$!
echo $pid >/run/ledger.pid
while kill -0 $pid 2>/dev/null; do
    ss -Hltn 'sport = :8080' | grep -q . && exit 0
    sleep 0.02
done
echo "the ledger ended at once; see /srv/ledger.log"
exit 1
"#;

/// Ends it; what still runs after 5 s is killed.
const STOP: &str = r#"
[ -f /run/ledger.pid ] || exit 0
pid=$(cat /run/ledger.pid)
kill "$pid" 2>/dev/null
for _ in $(seq 250); do
    state=$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) || state=Z
    [ "${state:-Z}" = Z ] && break
    sleep 0.02
done
kill -9 "$pid" 2>/dev/null
rm -f /run/ledger.pid
exit 0
"#;
