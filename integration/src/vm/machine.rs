//! A virtual machine on a host of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context as _, Error, Result};
use crate::eventually::eventually;
use crate::host::Host;
use crate::lan::{LANS, Lan, Network};
use crate::place::binary;
use crate::program::{Program, Running, Said};
use crate::status::Status;
use crate::vm::disk;
use crate::vm::guest::HOST;
use crate::vm::image::Image;

/// The machine answers within this time after its power came, also on a busy machine without an accelerator (about 10 s
/// on an idle one).
const UP: Duration = Duration::from_secs(180);

/// Its daemon answers within this time after that.
const AGENT_UP: Duration = Duration::from_secs(90);

/// Memory, in MiB.
const MEMORY: u32 = 768;

/// Where the machine sees what lies below the mounts of its modules in `/srv`.
pub const UNDER: &str = "/under";

/// A machine.
#[derive(Debug)]
pub struct Machine {
    /// Name.
    pub name: String,
    /// Last octet of its addresses.
    pub number: u8,
    host: Host,
    directory: PathBuf,
    image: Image,
    programs: PathBuf,
    qemu: Mutex<Option<Running>>,
}

impl Machine {
    /// A machine with new disks below `directory`; its power is on, it boots. `programs` is the disk with the programs.
    pub fn boot(
        network: Arc<Network>,
        directory: &Path,
        name: &str,
        number: u8,
        image: &Image,
        programs: &Path,
    ) -> Result<Self> {
        let host = Host::boot(network, directory, name, number, &LANS)?;
        let machine = Self {
            name: name.to_owned(),
            number,
            host,
            directory: directory.join(name),
            image: image.clone(),
            programs: programs.to_owned(),
            qemu: Mutex::new(None),
        };
        disk::system(&image.root(), &machine.file("system.img"))?;
        disk::data(&machine.file("data.img"))?;
        machine.start()?;
        Ok(machine)
    }

    /// Loss of power: not one more packet, and nothing more reaches its disks. Answers when that was.
    pub fn power_off(&self) -> Result<Instant> {
        let moment = self.host.power_off()?;
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(moment)
    }

    /// Power returns, with the disks as they were; it boots.
    pub fn power_on(&self) -> Result<()> {
        self.host.power_on()?;
        self.start()
    }

    /// Waits until programs can be run in it.
    pub fn wait_up(&self) -> Result<()> {
        eventually(UP, &format!("{} is up", self.name), || {
            let mut qemu = self.qemu.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(code) = qemu.as_mut().map_or(Ok(Some(-1)), Running::ended)? {
                return Err(Error::new(format!(
                    "qemu ended with code {code}; see {}",
                    self.log("qemu").display()
                )));
            }
            drop(qemu);
            self.program("true").deadline(Duration::from_secs(10)).run().map(Some)
        })
        .map(|_| ())
    }

    /// Waits until its daemon answers.
    pub fn wait_agent(&self) -> Result<()> {
        eventually(AGENT_UP, &format!("safed answers on {}", self.name), || self.safectl("version").map(Some))
            .map(|_| ())
    }

    /// A program to be run in it.
    pub fn program(&self, program: &str) -> Program {
        let inside = self.host.program(program);
        inside.unwrap_or_else(|_| Program::on(0, program)).behind(&self.door())
    }

    /// A line of shell to be run in it.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.program("sh").args(["-euc", line]).run().context(|| format!("on {}", self.name))
    }

    /// `safectl` with these words, on a line; its output.
    pub fn safectl(&self, line: &str) -> Result<String> {
        self.program("safectl").args(line.split_whitespace()).run().context(|| format!("on {}", self.name))
    }

    /// `safectl` with these words, however it ends.
    pub fn try_safectl(&self, line: &str) -> Result<Said> {
        self.program("safectl").args(line.split_whitespace()).output()
    }

    /// What this node says of a module on itself.
    pub fn status(&self, module: &str) -> Result<Status> {
        let all: Vec<Status> = serde_json::from_str(&self.safectl(&format!("status {module} -o json"))?)?;
        let found = all.into_iter().find(|status| status.module == module && status.node == self.name);
        found.context(|| format!("no status of {module} on {}", self.name))
    }

    /// The kernel's name for this run of it.
    pub fn boot_id(&self) -> Result<String> {
        self.shell("cat /proc/sys/kernel/random/boot_id")
    }

    /// File with the output of something of it: `console` (kernel and system), `safed`, `qemu`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.log"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn door(&self) -> Vec<OsString> {
        // Built beside the tests: if it were not there, QEMU would not have started.
        let guest = binary("guest").unwrap_or_default();
        vec![guest.into_os_string(), "call".into(), "--".into()]
    }

    /// Leads the host's cables to the machine and turns it on.
    fn start(&self) -> Result<()> {
        let mut lines = String::new();
        for lan in LANS {
            lines.push_str(&wiring(&lan));
        }
        lines.push_str(&format!(
            "tuntap add dev own mode tap\naddress add {HOST} dev own\nlink set dev own up\n"
        ));
        self.host.program("ip")?.args(["-batch", "-"]).input(lines).run()?;
        let qemu = self.host.program("nice")?.args(["-n", "10", "qemu-system-x86_64"]).args(self.arguments());
        let running = qemu.spawn(&self.log("qemu"))?;
        *self.qemu.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut add = |line: String| words.extend(line.split(' ').map(str::to_owned));
        add(format!("-name {} -nodefaults -no-user-config -display none", self.name));
        add(format!("-machine pc,accel={} -smp 1 -m {MEMORY}", accelerator()));
        add("-device virtio-rng-pci".to_owned());
        for (name, file, options) in [
            ("system", self.file("system.img"), ""),
            ("data", self.file("data.img"), ""),
            ("programs", self.programs.clone(), ",read-only=on,file.locking=off"),
        ] {
            // What the machine sends to a disk is in the file, that is with this kernel, before it is told so: QEMU keeps
            // nothing. Flushing the file further would protect from the loss of this machine's own power only.
            let file = file.display();
            add(format!("-drive if=none,id={name},format=raw,cache=unsafe,file={file}{options}"));
            add(format!("-device virtio-blk-pci,drive={name},serial={name}"));
        }
        for (index, tap) in LANS.iter().map(tap).chain(["own".to_owned()]).enumerate() {
            add(format!("-netdev tap,id=n{index},ifname={tap},script=no,downscript=no"));
            add(format!(
                "-device virtio-net-pci,netdev=n{index},mac=02:53:41:47:{index:02x}:{:02x}",
                self.number
            ));
        }
        add("-device virtio-serial-pci".to_owned());
        add(format!("-chardev file,id=console,append=on,path={}", self.log("console").display()));
        add("-serial chardev:console".to_owned());
        add(format!("-chardev file,id=safed,append=on,path={}", self.log("safed").display()));
        add("-device virtconsole,chardev=safed".to_owned());
        add(format!("-kernel {} -initrd {}", self.image.kernel().display(), self.image.initrd().display()));
        words.push("-append".to_owned());
        words.push(format!(
            "root=/dev/vda rw console=ttyS0 loglevel=4 net.ifnames=0 panic=1 mitigations=off systemd.show_status=0 \
             safe.name={} safe.number={}",
            self.name, self.number
        ));
        words
    }
}

/// The end of a lan's cable inside the host becomes a port of a bridge, the machine the other one.
fn wiring(lan: &Lan) -> String {
    let (cable, bridge, tap) = (lan.interface, format!("b-{}", lan.interface), tap(lan));
    format!(
        "address flush dev {cable}\nlink set dev {cable} down\nlink set dev {cable} address 02:53:41:48:00:01\n\
         link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         tuntap add dev {tap} mode tap\nlink set dev {cable} master {bridge} up\nlink set dev {tap} master {bridge} up\n\
         link set dev {bridge} up\n"
    )
}

fn tap(lan: &Lan) -> String {
    format!("t-{}", lan.interface)
}

/// KVM where the processor itself can do it; some machines offer the device without.
fn accelerator() -> &'static str {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let capable = processor.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
    let open = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if capable && open { "kvm -cpu host" } else { "tcg -cpu max,la57=off,svm=off" }
}
