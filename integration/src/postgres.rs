//! PostgreSQL as a mirror module, with clients that remember which commits were acknowledged.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::committer::{self, AGAIN, Committers};
use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::host::Host;
use crate::module::Module;
use crate::node::Node;
use crate::program::Program;
use crate::tree;

mod bench;

pub use bench::Bench;

/// Name of the module.
pub const MODULE: &str = "postgres";

/// Its replicated directory.
pub const DIRECTORY: &str = "/srv/data/postgres";

/// Its virtual address.
pub const ADDRESS: &str = "10.99.0.70";

/// Where Debian has the newest server.
fn programs() -> Result<PathBuf> {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").context(|| "apt-get install postgresql".to_owned())?;
    let newest = versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.context(|| "no server in /usr/lib/postgresql".to_owned())?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

/// The module.
pub fn module() -> Result<Module> {
    let programs = programs()?.display().to_string();
    Ok(Module::mirror(MODULE)
        .replicate(DIRECTORY)
        .address(&format!("{ADDRESS}/24"))
        .section(&format!("[env]\nPGDATA = \"{DIRECTORY}/data\"\nPROGRAMS = \"{programs}\""))
        .script("start_prim", START)
        .script("stop_prim", STOP))
}

/// Makes the database at the very first start. `postmaster.pid` may be of the other host, where that number means
/// another process; safed has seen to it that no other server runs on this directory.
const START: &str = r#"
set -e
cd /
install -d -o postgres -g postgres /run/postgresql
touch /srv/postgres.log && chown postgres /srv/postgres.log
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    runuser -u postgres -- "$PROGRAMS/initdb" --pgdata "$PGDATA" --auth trust --no-locale --encoding UTF8 --data-checksums
    cat >>"$PGDATA/postgresql.conf" <<CONF
listen_addresses = '*'
unix_socket_directories = '/run/postgresql'
shared_buffers = 32MB
max_wal_size = 128MB
CONF
    echo 'host all all 10.99.0.0/24 trust' >>"$PGDATA/pg_hba.conf"
fi
rm -f "$PGDATA/postmaster.pid"
exec runuser -u postgres -- "$PROGRAMS/pg_ctl" --pgdata "$PGDATA" --wait --timeout 120 --log /srv/postgres.log start
"#;

/// Fast at first, immediate when forced.
const STOP: &str = r#"
cd /
mode=fast
[ "$SAFE_ACTION" = force ] || [ "${3:-}" = force ] && mode=immediate
runuser -u postgres -- "$PROGRAMS/pg_ctl" --pgdata "$PGDATA" status >/dev/null 2>&1 || exit 0
exec runuser -u postgres -- "$PROGRAMS/pg_ctl" --pgdata "$PGDATA" --mode "$mode" --wait --timeout 60 stop
"#;

/// The connection parameters of every client: a dead server is noticed within seconds.
fn connection() -> String {
    format!(
        "host={ADDRESS} user=postgres dbname=postgres connect_timeout=2 tcp_user_timeout=3000 keepalives_idle=1 \
         keepalives_interval=1 keepalives_count=3"
    )
}

/// A protected database: cluster, clients.
#[derive(Debug)]
pub struct Database {
    /// The cluster.
    pub cluster: Cluster,
    clients: Clients,
}

impl Deref for Database {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

impl Database {
    /// Starts it; n1 is PRIM, the tables are made.
    pub fn start(name: &str) -> Result<Self> {
        let cluster = Cluster::two_nodes(name)?;
        let outside = cluster.client("client", 100)?;
        cluster.start_module(&module()?)?;
        let database = Self { cluster, clients: Clients::on(outside) };
        database.fill(2)?;
        Ok(database)
    }

    /// The server on n1 without a daemon, on a directory that nothing protects: it shows what the checks see when
    /// something is lost.
    pub fn by_hand(name: &str) -> Result<Self> {
        let cluster = Cluster::bare(name)?;
        let outside = cluster.client("client", 100)?;
        let scripts = cluster.write_module(&module()?)?.join("scripts");
        let node = cluster.node(0);
        node.shell(&format!("mkdir -p {DIRECTORY}; ip address add {ADDRESS}/24 dev eth0"))?;
        let start = node.program(&scripts.join("start_prim").to_string_lossy())?;
        start.env("PGDATA", format!("{DIRECTORY}/data")).env("PROGRAMS", programs()?).run()?;
        let database = Self { cluster, clients: Clients::on(outside) };
        database.fill(2)?;
        Ok(database)
    }

    /// Stops every process of the server where it is, compares both copies, and lets it go on.
    pub fn compare(&self, primary: &Node) -> Result<()> {
        tree::assert_equal_without(&self.cluster, DIRECTORY, (primary, "postgres"), Duration::from_secs(10))
    }

    /// Waits until this node is PRIM and the other SECOND.
    pub fn wait_pair(&self, primary: &Node) -> Result<()> {
        self.cluster.wait_pair(MODULE, &primary.name)
    }
}

/// The clients of a database, on a host of theirs.
#[derive(Debug)]
pub struct Clients {
    host: Host,
}

impl Clients {
    /// Clients on this host, which is on the production network.
    pub fn on(host: Host) -> Self {
        Self { host }
    }

    /// Makes the tables; `scale` is that of pgbench: 100,000 rows each.
    pub fn fill(&self, scale: u32) -> Result<()> {
        self.sql("CREATE TABLE commits (worker int, serial int, filler text, PRIMARY KEY (worker, serial))")?;
        let fill = self.client("pgbench")?.args(["--initialize", "--quiet", "--scale", &scale.to_string()]);
        fill.arg(connection()).deadline(AGAIN).run()?;
        Ok(())
    }

    /// A program of PostgreSQL on the clients' host.
    fn client(&self, program: &str) -> Result<Program> {
        self.host.program(&programs()?.join(program).to_string_lossy())
    }

    /// What a statement answers, through the virtual address.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.client("psql")?.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, &connection()]).run()
    }

    /// Clients that insert and remember.
    pub fn committers(&self, workers: u32) -> Result<Committers> {
        let program = self.client("psql")?.args(["-qAtX", &connection()]);
        Ok(Committers::start(&program, &self.host.log("psql"), workers, insert))
    }

    /// The usual load of pgbench, restarted whenever it loses its server; without the cleaning by which pgbench empties
    /// one of its four books.
    pub fn bench(&self) -> Result<Bench> {
        let program =
            self.client("pgbench")?.args(["--client", "3", "--time", "3600", "--no-vacuum", &connection()]);
        Ok(Bench::start(&program, &self.host.log("pgbench")))
    }

    /// Waits until the server answers.
    pub fn answers(&self) -> Result<()> {
        eventually(AGAIN, "the database answers", || self.sql("SELECT 1").map(Some)).map(|_| ())
    }

    /// Acknowledged commits that are not in the database.
    pub fn lost(&self, committers: &Committers) -> Result<usize> {
        let acknowledged = committers.acknowledged();
        let text = self.sql("SELECT worker, serial FROM commits")?;
        let present: std::collections::BTreeSet<_> = text.lines().filter_map(committer::parse).collect();
        Ok(acknowledged.iter().filter(|commit| !present.contains(*commit)).count())
    }

    /// An error unless the books of pgbench balance and pg_amcheck finds nothing.
    pub fn check(&self) -> Result<()> {
        let sums = self.sql(BALANCE)?;
        let sums: Vec<_> = sums.split('|').collect();
        if sums.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Error::new(format!("the books do not balance: {sums:?}")));
        }
        let check =
            self.client("pg_amcheck")?.args(["--install-missing", "--heapallindexed", "--all", "--host"]);
        let said = check.args([ADDRESS, "--username", "postgres"]).deadline(AGAIN).output()?;
        if said.code != 0 || !said.out.trim().is_empty() {
            return Err(Error::new(format!("pg_amcheck: {} {}", said.out.trim(), said.err.trim())));
        }
        Ok(())
    }
}

fn insert(worker: u32, serial: u32) -> String {
    let length = serial % 500;
    format!(
        "INSERT INTO commits VALUES ({worker}, {serial}, repeat('x', {length})) RETURNING worker, serial;"
    )
}

/// In one snapshot: every transaction of pgbench adds the same to all four.
const BALANCE: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), \
    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches), \
    (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
