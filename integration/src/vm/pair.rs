//! Two machines that are a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::guardian::Charge;
use crate::host::Host;
use crate::lan::{DEFAULT, LANS, Lan, Network, addresses};
use crate::module::Module;
use crate::status::{Phase, State, Status};
use crate::vm::{Machine, disk, image::Image};
use crate::{interrupt, place, prerequisites, report};

/// A state is reached within this time: no accelerator, and other work on this machine.
pub const SOON: Duration = Duration::from_secs(240);

/// A first start may make what a database consists of, on an emulated processor.
const FIRST: Duration = Duration::from_secs(1200);

/// Two machines, the networks between them, and a directory with all they have.
#[derive(Debug)]
pub struct Pair {
    name: String,
    machines: Vec<Machine>,
    directory: PathBuf,
    network: Arc<Network>,
    finished: bool,
}

impl Pair {
    /// Two machines, up; their daemons are no cluster yet.
    pub fn boot(name: &str) -> Result<Self> {
        prerequisites::check()?;
        let image = Image::find()?;
        let directory = place::for_cluster(name)?;
        let charge = Charge {
            name: name.to_owned(),
            lock: Some(place::lock_of(&directory)),
            remove: Some(directory.clone()),
            ..Charge::default()
        };
        let network = Arc::new(Network::new(&charge)?);
        let mut pair =
            Self { name: name.to_owned(), machines: Vec::new(), directory, network, finished: false };
        let programs = disk::programs(&pair.directory)?;
        for (name, number) in [("n1", 1), ("n2", 2)] {
            let network = Arc::clone(&pair.network);
            pair.machines.push(Machine::boot(network, &pair.directory, name, number, &image, &programs)?);
        }
        pair.machines.iter().try_for_each(Machine::wait_up)?;
        Ok(pair)
    }

    /// Two nodes that are a cluster.
    pub fn cluster(name: &str) -> Result<Self> {
        let pair = Self::boot(name)?;
        pair.machines.iter().try_for_each(Machine::wait_agent)?;
        let [first, second] = [pair.machine(0), pair.machine(1)];
        let token =
            first.safectl(&format!("cluster init --name {name} --node n1 {}", address_options(first)))?;
        second.safectl(&format!("cluster join {token} --node n2 {}", address_options(second)))?;
        Ok(pair)
    }

    /// n1 is 0, n2 is 1.
    pub fn machine(&self, index: usize) -> &Machine {
        &self.machines[index]
    }

    /// Both.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The other one.
    pub fn peer_of(&self, machine: &Machine) -> &Machine {
        &self.machines[usize::from(machine.name == self.machines[0].name)]
    }

    /// One more host on the production network, in namespaces of this machine.
    pub fn client(&self, name: &str, number: u8) -> Result<Host> {
        Host::boot(Arc::clone(&self.network), &self.directory, name, number, &[DEFAULT])
    }

    /// Both machines hear each other on this lan no more; no carrier changes, clients hear both.
    pub fn cut(&self, lan: Lan) -> Result<()> {
        self.network.isolate(&["n1", "n2"], lan, true)
    }

    /// Undoes a cut.
    pub fn heal(&self, lan: Lan) -> Result<()> {
        self.network.isolate(&["n1", "n2"], lan, false)
    }

    /// Installs a module on both nodes; its directories are made where they are missing.
    pub fn install_module(&self, module: &Module) -> Result<()> {
        let outside = self.directory.join("modules").join(module.name());
        module.write(&outside)?;
        let archive = archive(&outside)?;
        for machine in &self.machines {
            let directories = module.directories().join(" ");
            machine.shell(&format!("mkdir -p /srv/modules/{} {directories}", module.name()))?;
        }
        let place = format!("/srv/modules/{}", module.name());
        let first = self.machine(0);
        first.program("tar").args(["-xC", &place]).input(archive).run()?;
        first.safectl(&format!("module install {place}")).map(|_| ())
    }

    /// Installs and starts a module, both directories being empty; waits until n1 is PRIM and n2 SECOND.
    pub fn start_module(&self, module: &Module) -> Result<()> {
        self.install_module(module)?;
        self.machine(0).safectl(&format!("--no-wait start {}", module.name()))?;
        self.wait_state_within(FIRST, module.name(), self.machine(0), State::Prim)?;
        self.wait_pair(module.name(), self.machine(0))
    }

    /// Waits until `primary` is PRIM and the other SECOND, both ready.
    pub fn wait_pair(&self, module: &str, primary: &Machine) -> Result<()> {
        self.wait_state(module, primary, State::Prim)?;
        self.wait_state(module, self.peer_of(primary), State::Second)?;
        Ok(())
    }

    /// Waits until the node is in this state and ready, by its own words.
    pub fn wait_state(&self, module: &str, machine: &Machine, state: State) -> Result<Status> {
        self.wait_state_within(SOON, module, machine, state)
    }

    fn wait_state_within(
        &self,
        limit: Duration,
        module: &str,
        machine: &Machine,
        state: State,
    ) -> Result<Status> {
        let what = format!("{module} on {}: {} ready", machine.name, state.name());
        eventually(limit, &what, || {
            let status = machine.status(module)?;
            let there = status.state == state && status.phase == Some(Phase::Ready);
            if there { Ok(Some(status)) } else { Err(Error::new(status.line())) }
        })
    }

    /// The test is over and all was well: no daemon said that it panicked, and everything is removed.
    pub fn finish(mut self) -> Result<()> {
        let bad = report::panics(&self.directory);
        if bad.is_empty() {
            self.finished = true;
            return Ok(());
        }
        Err(Error::new(format!("a process of the cluster panicked: {}", bad.join("; "))))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if self.finished || interrupt::happened() {
            return;
        }
        for machine in &self.machines {
            // What the module said is in the machine; if that is down, the rest must do.
            let said = machine.program("sh").args(["-c", TELL]).deadline(Duration::from_secs(20)).output();
            if let Ok(said) = said {
                drop(std::fs::write(machine.log("machine"), said.out));
            }
        }
        report::failure(&self.name, &self.directory);
    }
}

/// What helps to understand a failure.
const TELL: &str = "safectl status; safectl events -n 60; tail -n 60 /var/lib/safed/modules/*/log; df /srv; mount | grep srv; \
     dmesg | tail -n 20";

fn address_options(machine: &Machine) -> String {
    let options =
        addresses(machine.number).into_iter().map(|(lan, address)| format!("--address {lan}={address}"));
    let mut options: Vec<_> = options.collect();
    options.sort_by_key(|option| !option.contains(LANS[0].name));
    options.join(" ")
}

fn archive(directory: &Path) -> Result<Vec<u8>> {
    let said = std::process::Command::new("tar").arg("-cC").arg(directory).arg(".").output()?;
    if said.status.success() {
        Ok(said.stdout)
    } else {
        Err(Error::new("tar")).context(|| directory.display().to_string())
    }
}
