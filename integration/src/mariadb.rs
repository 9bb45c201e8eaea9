//! MariaDB as a mirror module, with its settings as Debian ships them, and clients that remember which commits were
//! acknowledged.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::committer::{self, AGAIN, Committers};
use crate::error::{Error, Result};
use crate::eventually::eventually;
use crate::host::Host;
use crate::module::Module;
use crate::node::Node;
use crate::program::Program;
use crate::tree;

/// Name of the module.
const MODULE: &str = "mariadb";

/// Its replicated directory.
const DIRECTORY: &str = "/srv/data/mariadb";

/// Its virtual address.
const ADDRESS: &str = "10.99.0.71";

/// The module. Nothing of the server's settings is changed but where it lives.
fn module() -> Module {
    Module::mirror(MODULE)
        .replicate(DIRECTORY)
        .address(&format!("{ADDRESS}/24"))
        .section(&format!("[env]\nDATA = \"{DIRECTORY}/data\""))
        .script("start_prim", START)
        .script("stop_prim", STOP)
}

/// Makes the database at the very first start.
const START: &str = r#"
set -e
cd /
install -d -o mysql -g mysql /run/mysqld
touch /srv/mariadb.log && chown mysql /srv/mariadb.log
if [ ! -e "$DATA/.made" ]; then
    rm -rf "$DATA"
    install -d -o mysql -g mysql -m 700 "$DATA"
    mariadb-install-db --user=mysql --datadir="$DATA" --skip-test-db --auth-root-authentication-method=normal >/dev/null
    touch "$DATA/.made"
fi
setsid mariadbd --user=mysql --datadir="$DATA" --bind-address=0.0.0.0 --pid-file=/run/mysqld/mariadbd.pid \
    --init-file=/srv/mariadb.init >>/srv/mariadb.log 2>&1 </dev/null &
server=$!
until mariadb -uroot --protocol=socket -e 'SELECT 1' >/dev/null 2>&1; do
    kill -0 $server
    sleep 0.1
done
"#;

/// In good order at first, at once when forced.
const STOP: &str = r#"
pid=$(cat /run/mysqld/mariadbd.pid 2>/dev/null) || exit 0
signal=TERM
[ "$SAFE_ACTION" = force ] || [ "${3:-}" = force ] && signal=KILL
kill -$signal "$pid" 2>/dev/null || exit 0
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
"#;

/// Who may come from outside: said at each start, so that nothing beside the replicated directory has to be equal.
const ALLOW: &str = "CREATE OR REPLACE USER root@'10.99.0.%';
GRANT ALL ON *.* TO root@'10.99.0.%';
CREATE DATABASE IF NOT EXISTS work;
";

/// A protected database: cluster, clients.
#[derive(Debug)]
pub struct Database {
    /// The cluster.
    pub cluster: Cluster,
    host: Host,
}

impl Database {
    /// Starts it; n1 is PRIM, the tables are made: two of InnoDB, one of Aria, one that compresses its pages.
    pub fn start(name: &str) -> Result<Self> {
        let cluster = Cluster::two_nodes(name)?;
        let host = cluster.client("client", 100)?;
        for node in cluster.nodes() {
            std::fs::write(node.outside("/srv/mariadb.init"), ALLOW)?;
        }
        cluster.start_module(&module())?;
        let database = Self { cluster, host };
        for table in TABLES {
            database.sql(table)?;
        }
        Ok(database)
    }

    fn client(&self, program: &str) -> Result<Program> {
        Ok(self.host.program(program)?.args(["--host", ADDRESS, "--user", "root"]))
    }

    fn shell(&self) -> Result<Program> {
        let options = ["--connect-timeout=2", "--skip-reconnect", "--batch", "--skip-column-names"];
        Ok(self.client("mariadb")?.args(options).args(["--unbuffered", "work"]))
    }

    /// What a statement answers, through the virtual address.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.shell()?.args(["-e", statement]).run()
    }

    /// Clients that insert and remember.
    pub fn committers(&self, workers: u32) -> Result<Committers> {
        // A dead server is noticed within seconds: by the kernel, as the client has no setting for it.
        self.host.shell(
            "cd /proc/sys/net/ipv4; echo 3 >tcp_retries2; echo 1 >tcp_keepalive_time; echo 1 >tcp_keepalive_intvl; \
             echo 3 >tcp_keepalive_probes",
        )?;
        Ok(Committers::start(&self.shell()?, &self.host.log("mariadb"), workers, insert))
    }

    /// Waits until the server answers.
    pub fn answers(&self) -> Result<()> {
        eventually(AGAIN, "the database answers", || self.sql("SELECT 1").map(Some)).map(drop)
    }

    /// Acknowledged commits that are not in each of the tables they wrote to.
    pub fn lost(&self, committers: &Committers) -> Result<usize> {
        let acknowledged = committers.acknowledged();
        let mut lost = 0;
        for table in ["commits", "packed"] {
            let text = self.sql(&format!("SELECT concat(worker, '|', serial) FROM {table}"))?;
            let present: BTreeSet<_> = text.lines().filter_map(committer::parse).collect();
            lost += acknowledged.iter().filter(|commit| !present.contains(*commit)).count();
        }
        Ok(lost)
    }

    /// An error unless the sums are right and every table of every database is sound, to the last page and index.
    pub fn check(&self) -> Result<()> {
        let sums = self.sql("SELECT count(*), (SELECT n FROM total) FROM commits")?;
        if sums.trim().split('\t').collect::<BTreeSet<_>>().len() != 1 {
            return Err(Error::new(format!(
                "rows and their count, kept by the same transactions, differ: {sums}"
            )));
        }
        let check =
            self.client("mariadb-check")?.args(["--check", "--extended", "--all-databases", "--silent"]);
        let said = check.deadline(AGAIN).output()?;
        if said.code != 0 || !said.out.trim().is_empty() {
            return Err(Error::new(format!("mariadb-check: {} {}", said.out.trim(), said.err.trim())));
        }
        Ok(())
    }

    /// Stops every process of the server where it is, compares both copies, and lets it go on.
    pub fn compare(&self, primary: &Node) -> Result<()> {
        tree::assert_equal_without(&self.cluster, DIRECTORY, (primary, "mariadbd"), Duration::from_secs(30))
    }

    /// Waits until this node is PRIM and the other SECOND.
    pub fn wait_pair(&self, primary: &Node) -> Result<()> {
        self.cluster.wait_pair(MODULE, &primary.name)
    }
}

const TABLES: [&str; 4] = [
    "CREATE TABLE commits (worker int, serial int, filler text, PRIMARY KEY (worker, serial), KEY (filler(20))) \
     ENGINE=InnoDB",
    "CREATE TABLE packed (worker int, serial int, filler text, PRIMARY KEY (worker, serial)) ENGINE=InnoDB \
     PAGE_COMPRESSED=1",
    "CREATE TABLE total (n int) ENGINE=InnoDB; INSERT INTO total VALUES (0)",
    "CREATE TABLE notes (worker int, serial int, filler text) ENGINE=Aria TRANSACTIONAL=1",
];

/// One transaction over three tables, and a row of Aria, which knows no transactions; then its key.
fn insert(worker: u32, serial: u32) -> String {
    let row = format!("({worker}, {serial}, repeat(md5({serial}), {}))", serial % 40);
    format!(
        "BEGIN; INSERT INTO commits VALUES {row}; INSERT INTO packed VALUES {row}; UPDATE total SET n = n + 1; COMMIT; \
         INSERT INTO notes VALUES {row}; SELECT '{worker}|{serial}';"
    )
}
