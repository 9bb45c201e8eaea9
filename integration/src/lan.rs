//! Networks between hosts: bridges in a network namespace of their own, so that names and addresses are this
//! cluster's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::guardian::{Charge, Guardian};

/// A network: name, first three octets of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan {
    /// Name, as in the cluster settings.
    pub name: &'static str,
    /// Network part of its /24.
    pub network: &'static str,
    /// Interface of each host on it.
    pub interface: &'static str,
}

/// Production network; the clients are here.
pub const DEFAULT: Lan = Lan { name: "default", network: "10.99.0", interface: "eth0" };

/// Replication network.
pub const REPL: Lan = Lan { name: "repl", network: "10.98.0", interface: "eth1" };

/// Both, in the order of the cluster settings.
pub const LANS: [Lan; 2] = [DEFAULT, REPL];

impl Lan {
    /// Address of the host with this number, without prefix length.
    pub fn address(&self, host: u8) -> String {
        format!("{}.{host}", self.network)
    }

    fn bridge(&self) -> String {
        format!("br-{}", self.name)
    }

    fn port(&self, host: &str) -> String {
        format!("{host}.{}", self.interface)
    }

    /// The same after each restart of the host, so that a reboot does not look like a new machine.
    fn hardware_address(&self, host: u8) -> String {
        let lan = self.network.rsplit('.').nth(1).unwrap_or("0");
        format!("02:53:41:46:{lan}:{host:02x}")
    }
}

/// The switches and cables of a cluster.
#[derive(Debug)]
pub struct Network {
    place: Guardian,
    /// Who is isolated on which lan: a host that returns finds its cable as it left it.
    isolated: Mutex<BTreeSet<(String, &'static str)>>,
}

impl Network {
    /// Makes the bridges. `charge` says what is removed when all is over.
    pub fn new(charge: &Charge) -> Result<Self> {
        let place = Guardian::start(charge)?;
        let mut lines = vec!["link set dev lo up".to_owned()];
        for lan in LANS {
            let bridge = lan.bridge();
            lines.push(format!("link add {bridge} type bridge stp_state 0 forward_delay 0"));
            lines.push(format!("link set dev {bridge} up"));
        }
        let network = Self { place, isolated: Mutex::default() };
        network.ip(network.place.init(), &lines)?;
        Ok(network)
    }

    /// Connects a host that just came up to these lans.
    pub fn connect(&self, host: &str, number: u8, init: u32, lans: &[Lan]) -> Result<()> {
        let mut outside = Vec::new();
        let mut inside = vec!["link set dev lo up".to_owned()];
        for lan in lans {
            let (port, interface) = (lan.port(host), lan.interface);
            let hardware = lan.hardware_address(number);
            outside.push(format!(
                "link add {port} type veth peer name {interface} address {hardware} netns {init}"
            ));
            outside.push(format!("link set dev {port} master {} up", lan.bridge()));
            inside.push(format!("address add {}/24 dev {interface}", lan.address(number)));
            inside.push(format!("link set dev {interface} up"));
        }
        self.ip(self.place.init(), &outside)?;
        for lan in lans {
            if self.isolated().contains(&(host.to_owned(), lan.name)) {
                self.ports(host, &[*lan], "isolated on")?;
            }
        }
        self.ip(init, &inside)
    }

    /// Nothing gets in or out of the host's cables any more; the host sees no change of carrier.
    pub fn mute(&self, host: &str, lans: &[Lan]) -> Result<()> {
        self.ports(host, lans, "state 0")
    }

    /// Takes the host's cables away.
    pub fn disconnect(&self, host: &str, lans: &[Lan]) -> Result<()> {
        lans.iter().try_for_each(|lan| {
            let gone = self.ip(self.place.init(), &[format!("link del dev {}", lan.port(host))]);
            // The kernel takes a cable away by itself, some time after the other end's namespace is gone.
            gone.or_else(ignore_missing)
        })
    }

    /// Lets these hosts hear each other on the lan no more (or again); all other hosts still hear them, and no carrier
    /// changes. A host that is off will find it so.
    pub fn isolate(&self, hosts: &[&str], lan: Lan, isolated: bool) -> Result<()> {
        for host in hosts {
            let key = ((*host).to_owned(), lan.name);
            if isolated {
                self.isolated().insert(key);
            } else {
                self.isolated().remove(&key);
            }
            let setting = if isolated { "isolated on" } else { "isolated off" };
            self.ports(host, &[lan], setting).or_else(ignore_missing)?;
        }
        Ok(())
    }

    fn isolated(&self) -> MutexGuard<'_, BTreeSet<(String, &'static str)>> {
        self.isolated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pulls the host's cable (the carrier goes), or plugs it in.
    pub fn plug(&self, host: &str, lan: Lan, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.ip(self.place.init(), &[format!("link set dev {} {state}", lan.port(host))])
    }

    fn ports(&self, host: &str, lans: &[Lan], setting: &str) -> Result<()> {
        let lines: Vec<_> = lines_for(lans, |lan| format!("link set dev {} {setting}", lan.port(host)));
        batch("bridge", self.place.init(), &lines)
    }

    fn ip(&self, init: u32, lines: &[String]) -> Result<()> {
        batch("ip", init, lines)
    }
}

/// A cable that is not there, its host being off.
fn ignore_missing(error: Error) -> Result<()> {
    if error.to_string().contains("Cannot find") { Ok(()) } else { Err(error) }
}

fn lines_for(lans: &[Lan], line: impl Fn(&Lan) -> String) -> Vec<String> {
    lans.iter().map(line).collect()
}

/// All lines in one go: a power failure is quick. It is the machine's program in the host's network only, so that
/// process numbers are those seen from here.
fn batch(program: &str, init: u32, lines: &[String]) -> Result<()> {
    let mut command = std::process::Command::new("nsenter");
    command.args(["--target", &init.to_string(), "--net", "--", program, "-batch", "-"]);
    let said = feed(command, &lines.join("\n"))?;
    if said.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    Err(Error::new(format!("{program}: {} in {}", error.trim(), lines.join("; "))))
}

fn feed(mut command: std::process::Command, text: &str) -> Result<std::process::Output> {
    use std::io::Write as _;
    use std::process::Stdio;

    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    Ok(child.wait_with_output()?)
}

/// Addresses of a host by name of the lan, as `safectl` wants them.
pub fn addresses(number: u8) -> BTreeMap<&'static str, String> {
    LANS.iter().map(|lan| (lan.name, lan.address(number))).collect()
}
