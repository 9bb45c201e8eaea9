//! A machine of the cluster: namespaces on the networks, and a disk that survives it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::clock;
use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually_true;
use crate::guardian::{Charge, DISK, Guardian};
use crate::lan::{Lan, Network};
use crate::node::ROOT;
use crate::place::binary;
use crate::process::{self, Process};
use crate::program::Program;
use crate::referee::has_address;

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Name.
    pub name: String,
    /// Last octet of its addresses.
    pub number: u8,
    lans: Vec<Lan>,
    directory: PathBuf,
    guardian: Mutex<Option<Guardian>>,
    network: Arc<Network>,
    /// Process 1 now; 0 while it is off.
    current: Arc<AtomicU32>,
}

impl Host {
    /// A host with an empty disk below `directory`, up and connected.
    pub fn boot(
        network: Arc<Network>,
        directory: &Path,
        name: &str,
        number: u8,
        lans: &[Lan],
    ) -> Result<Self> {
        let directory = directory.join(name);
        fs::create_dir_all(directory.join("disk"))?;
        let host = Self {
            name: name.to_owned(),
            number,
            lans: lans.to_vec(),
            directory,
            guardian: Mutex::new(None),
            network,
            current: Arc::new(AtomicU32::new(0)),
        };
        host.power_on()?;
        Ok(host)
    }

    /// Turns it on again, with the disk as it was and a new boot id.
    pub fn power_on(&self) -> Result<()> {
        let mut slot = self.guardian();
        if slot.is_some() {
            return Err(Error::new(format!("{} is on", self.name)));
        }
        let boot_id = self.directory.join("boot_id");
        fs::copy("/proc/sys/kernel/random/uuid", &boot_id).context(|| "boot id".to_owned())?;
        let guardian = Guardian::start(&Charge {
            name: self.name.clone(),
            disk: Some(self.directory.join("disk")),
            boot_id: Some(boot_id),
            ..Charge::default()
        })?;
        self.network.connect(&self.name, self.number, guardian.init(), &self.lans)?;
        self.write_door(guardian.init())?;
        self.current.store(guardian.init(), Ordering::Relaxed);
        *slot = Some(guardian);
        Ok(())
    }

    /// Loss of power, as seen by others: not one more packet, then kill -9 of everything at once. (What only the
    /// page cache held stays: this is one machine.)
    /// Answers when that was.
    pub fn power_off(&self) -> Result<Instant> {
        let Some(guardian) = self.guardian().take() else { return Err(self.down()) };
        self.network.mute(&self.name, &self.lans)?;
        let moment = clock::now();
        self.current.store(0, Ordering::Relaxed);
        guardian.kill()?;
        self.network.disconnect(&self.name, &self.lans)?;
        Ok(moment)
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.guardian().is_some()
    }

    /// A program to be run on it.
    pub fn program(&self, program: &str) -> Result<Program> {
        Ok(Program::on(self.init()?, program))
    }

    /// A line of shell to be run on it.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.program("sh")?.args(["-euc", line]).run()
    }

    /// Process 1 of the host, as numbered outside.
    pub fn init(&self) -> Result<u32> {
        self.guardian().as_ref().map(Guardian::init).ok_or_else(|| self.down())
    }

    /// Process 1 at any time, for watchers; 0 while the host is off.
    pub(crate) fn current(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.current)
    }

    /// Whether the address (without prefix length) is on the host.
    pub fn has_address(&self, address: &str) -> bool {
        has_address(self.current.load(Ordering::Relaxed), address)
    }

    /// Everything that runs on it.
    pub fn processes(&self) -> Result<Vec<Process>> {
        process::of_host(self.init()?)
    }

    /// The processes with this program.
    pub fn running(&self, program: &str) -> Result<Vec<u32>> {
        let mut all = self.processes()?;
        all.retain(|process| process.program == program && process.state != 'Z');
        Ok(all.into_iter().map(|process| process.pid).collect())
    }

    /// kill -9 of every process with this program; an error if there is none.
    pub fn kill(&self, program: &str) -> Result<()> {
        let pids = self.running(program)?;
        if pids.is_empty() {
            return Err(Error::new(format!("no {program} runs on {}", self.name)));
        }
        for pid in &pids {
            process::signal(*pid, Signal::KILL)?;
        }
        let what = format!("{program} on {} is dead", self.name);
        eventually_true(Duration::from_secs(10), &what, || !pids.iter().any(|pid| process::is_alive(*pid)))
    }

    /// Stops every process on it where it is, as a hypervisor does with a machine.
    pub fn freeze(&self) -> Result<()> {
        let what = format!("{} is frozen", self.name);
        eventually_true(Duration::from_secs(10), &what, || {
            let awake: Vec<_> = self.awake();
            for pid in &awake {
                // One may just have ended.
                drop(process::signal(*pid, Signal::STOP));
            }
            awake.is_empty()
        })
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        for process in self.processes()? {
            drop(process::signal(process.pid, Signal::CONT));
        }
        Ok(())
    }

    fn awake(&self) -> Vec<u32> {
        let processes = self.processes().unwrap_or_default();
        let awake = processes.into_iter().filter(|process| !matches!(process.state, 'T' | 'Z'));
        awake.map(|process| process.pid).collect()
    }

    /// Where a path of the host's disk is outside. No mount of the host covers it there.
    pub fn outside(&self, path: &str) -> PathBuf {
        let inside = path.strip_prefix(DISK).unwrap_or(path).trim_start_matches('/');
        self.directory.join("disk").join(inside)
    }

    /// File with the output of one of its programs.
    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// A program that runs others on this host, for people: `DOOR safectl status`.
    pub fn door(&self) -> Result<String> {
        self.init()?;
        Ok(self.directory.join("on").display().to_string())
    }

    fn write_door(&self, init: u32) -> Result<()> {
        let guardian = binary("guardian")?;
        let programs = guardian.parent().unwrap_or(Path::new("/")).display();
        let text = format!(
            "#!/bin/sh\nPATH={programs}:$PATH SAFED_ROOT={ROOT} exec {programs}/guardian enter --host {init} -- \"$@\"\n"
        );
        let door = self.directory.join("on");
        fs::write(&door, text)?;
        Ok(fs::set_permissions(&door, fs::Permissions::from_mode(0o755))?)
    }

    fn guardian(&self) -> std::sync::MutexGuard<'_, Option<Guardian>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) -> Error {
        Error::new(format!("{} is off", self.name))
    }
}
