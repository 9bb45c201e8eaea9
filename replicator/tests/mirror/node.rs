//! One replicator process and the agent's side of it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::control_service_client::ControlServiceClient;
use safe_proto::replication::{
    AttachRequest, Configure, Directory, Examine, Join, LineageId, Plan, Role, SessionId, Unmount,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::certificates::{Authority, Identity};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// An attached agent.
struct Agent {
    orders: mpsc::Sender<AttachRequest>,
    reports: mpsc::Receiver<Report>,
    reader: tokio::task::JoinHandle<()>,
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) place: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) exclude: Vec<String>,
    pub(crate) ack_disk: bool,
    /// `sync = "fsync"`
    pub(crate) write_back: bool,
    /// After which an operation on the disk counts as hung.
    pub(crate) local_timeout_ms: u32,
    /// More directives of the log.
    pub(crate) log_also: &'static str,
    /// As which boot of its machine it runs; 0: as it is.
    pub(crate) boot: u128,
    /// A program and its arguments that run the replicator's program.
    pub(crate) through: Vec<String>,
    ca: String,
    identity: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: SocketAddr,
    child: Option<Child>,
    agent: Option<Agent>,
    runtime: tokio::runtime::Runtime,
    ended: Arc<AtomicBool>,
    /// Where the port passes its connections.
    pub(crate) first: bool,
    /// Reports that came while another one was waited for.
    pub(crate) seen: Vec<Report>,
}

/// The program under test; another one for measurements of a release build.
fn program() -> std::ffi::OsString {
    std::env::var_os("SAFE_REPLICATOR").unwrap_or_else(|| env!("CARGO_BIN_EXE_safe-replicator").into())
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test's deadline")]
    Instant::now()
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Node {
    pub(crate) fn new(name: &str, peer: &str, place: &Path, authority: &Authority) -> Self {
        let place = place.join(name);
        let data = place.join("data");
        std::fs::create_dir_all(&data).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (socket, stop) = (place.join("fds.sock"), Arc::clone(&ended));
        std::thread::spawn(move || pass_connections(&listener, &socket, &stop));
        Self {
            name: name.into(),
            peer: peer.into(),
            data,
            place,
            exclude: Vec::new(),
            ack_disk: false,
            write_back: false,
            local_timeout_ms: 10_000,
            log_also: "",
            boot: 0,
            through: Vec::new(),
            ca: authority.pem(),
            identity: authority.node(name),
            address,
            endpoint: address,
            child: None,
            agent: None,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            ended,
            first: name < peer,
            seen: Vec::new(),
        }
    }

    /// Starts the process and attaches.
    pub(crate) fn start(&mut self) {
        // It was for the process before.
        let _absent = std::fs::remove_file(self.crash_file());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.place.join("log")).unwrap();
        let mut words: Vec<std::ffi::OsString> = self.through.iter().map(Into::into).collect();
        words.push(program());
        let mut command = Command::new(&words[0]);
        if self.boot != 0 {
            command.env("SAFE_BOOT_ID", self.boot.to_string());
        }
        let child = command
            .args(&words[1..])
            .args([
                "--run-dir",
                self.place.to_str().unwrap(),
                "--log",
                &format!("debug,h2=info,hyper=info,tonic=info,rustls=info{}", self.log_also),
            ])
            .env("SAFE_CRASH_FILE", self.crash_file())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.attach();
    }

    pub(crate) fn attach(&mut self) {
        let path = self.place.join("control.sock");
        let begun = now();
        let (orders, mut incoming) = loop {
            let path = path.clone();
            let (orders, requests) = mpsc::channel(64);
            // The stream opens when its first command is there.
            orders.try_send(AttachRequest { command: Some(Order::Configure(self.configuration())) }).unwrap();
            let attached = self.runtime.block_on(async move {
                let channel = tonic::transport::Endpoint::from_static("http://replicator")
                    .connect_with_connector(tower::service_fn(move |_| {
                        let path = path.clone();
                        async move {
                            tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new)
                        }
                    }))
                    .await
                    .ok()?;
                ControlServiceClient::new(channel).attach(ReceiverStream::new(requests)).await.ok()
            });
            if let Some(attached) = attached {
                break (orders, attached.into_inner());
            }
            assert!(begun.elapsed() < LIMIT, "the replicator does not listen");
            std::thread::sleep(Duration::from_millis(5));
        };
        let (sender, reports) = mpsc::channel(4096);
        let reader = self.runtime.spawn(async move {
            while let Ok(Some(response)) = incoming.message().await {
                if sender.send(response.report.unwrap()).await.is_err() {
                    return;
                }
            }
        });
        self.agent = Some(Agent { orders, reports, reader });
    }

    /// The agent goes without a word.
    pub(crate) fn detach(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.reader.abort();
            drop(agent.orders);
        }
    }

    fn configuration(&self) -> Configure {
        Configure {
            protocol: 1,
            module: "m".into(),
            cluster: "test".into(),
            node: self.name.clone(),
            peer: self.peer.clone(),
            first: self.first,
            peer_endpoints: vec![self.endpoint.to_string()],
            directories: vec![Directory {
                path: self.data.display().to_string(),
                exclude: self.exclude.clone(),
                ack_disk: self.ack_disk,
                write_back: self.write_back,
            }],
            state_dir: self.place.join("state").display().to_string(),
            ca: self.ca.clone(),
            certificate: self.identity.certificate.clone(),
            key: self.identity.key.clone(),
            heartbeat_key: vec![7; 32].into(),
            timeout_ms: 3000,
            agent_timeout_ms: 1500,
            stall_timeout_ms: 2000,
            slow_timeout_ms: 30000,
            local_timeout_ms: self.local_timeout_ms,
            bandwidth_limit: 0,
            interval_ms: 100,
            virtual_addresses: Vec::new(),
            module_dir: String::new(),
            archive_dir: self.place.join("conflicts").display().to_string(),
            archive_limit: 1 << 30,
        }
    }

    pub(crate) fn order(&mut self, order: Order) {
        let agent = self.agent.as_ref().expect("attached");
        agent.orders.try_send(AttachRequest { command: Some(order) }).unwrap();
    }

    /// The next report that fits; others are kept in `seen`.
    pub(crate) fn expect<T>(&mut self, what: &str, mut fits: impl FnMut(&Report) -> Option<T>) -> T {
        let begun = now();
        let agent = self.agent.as_mut().expect("attached");
        while begun.elapsed() < LIMIT {
            let next = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_millis(100), agent.reports.recv()).await
            });
            match next {
                Ok(Some(report)) => {
                    if let Some(result) = fits(&report) {
                        return result;
                    }
                    if !matches!(report, Report::Progress(_) | Report::Figures(_)) {
                        self.seen.push(report);
                    }
                }
                Ok(None) => break,
                Err(_) => {}
            }
        }
        panic!("{}: no {what}; seen {:?}\n{}", self.name, self.seen, self.log());
    }

    /// A path of the files below the mount: through the descriptor by which the replicator itself has them.
    pub(crate) fn below(&self) -> PathBuf {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let mut found = descriptors.map(|entry| entry.unwrap().path());
        let found = found.find(|path| std::fs::read_link(path).is_ok_and(|target| target == self.data));
        // What is linked, not the link.
        found.expect("it has them open").join(".")
    }

    /// Gives the replicator a duplicate of a heartbeat socket.
    pub(crate) fn pass_heartbeat_socket(&self, lan: u8, socket: &std::net::UdpSocket) {
        let agent = connect_fds(&self.place.join("fds.sock")).unwrap();
        assert!(send_fd(&agent, &[b'H', lan], socket.as_fd()));
        // The packet is read even after this end is closed.
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    /// Examines the directories.
    pub(crate) fn examine(&mut self, accept: &[u128]) -> safe_proto::replication::Ready {
        self.expect("Adopted", |report| matches!(report, Report::Adopted(_)).then_some(()));
        self.order(Order::Examine(Examine { accept: accept.iter().map(|id| lineage(*id)).collect() }));
        self.expect("Ready", |report| match report {
            Report::Ready(ready) => Some(*ready),
            _ => None,
        })
    }

    pub(crate) fn join(&mut self, session: u64, role: Role, plan: Plan) {
        let session = Some(name(session));
        self.order(Order::Join(Join { session, role: role.into(), plan: plan.into(), room: false }));
    }

    pub(crate) fn expect_in_step(&mut self, session: u64) {
        self.expect("InStep", |report| match report {
            Report::InStep(id) if *id == name(session) => Some(()),
            Report::SessionLost(lost) => panic!("session lost: {}", lost.reason),
            _ => None,
        });
    }

    pub(crate) fn mount(&mut self) {
        self.order(Order::Mount(safe_proto::replication::Mount {}));
        self.expect("Mounted", |report| match report {
            Report::Mounted(_) => Some(()),
            Report::MountFailed(reason) => panic!("{reason}"),
            _ => None,
        });
    }

    pub(crate) fn unmount(&mut self) {
        self.order(Order::Unmount(Unmount { deadline_ms: 10_000 }));
        self.expect("Unmounted", |report| match report {
            Report::Unmounted(_) => Some(()),
            Report::Aborted(_) => panic!("had to be aborted"),
            _ => None,
        });
    }

    /// Goes on alone under this lineage, as the agent does it.
    pub(crate) fn settle(&mut self, id: u128) {
        self.order(Order::OpenJournal(lineage(id)));
        self.expect("JournalOpen", |report| matches!(report, Report::JournalOpen(_)).then_some(()));
        self.order(Order::Settle(lineage(id)));
    }

    /// Names the point at which the process kills itself; see the crate's `crash`.
    pub(crate) fn crash_file(&self) -> PathBuf {
        self.place.join("crash")
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it ever held.
    pub(crate) fn most_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Bytes of memory that it locks.
    pub(crate) fn locked_memory(&self) -> u64 {
        self.status("VmLck:")
    }

    fn status(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some())
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn kill(&mut self) {
        self.detach();
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What an agent that kept the FUSE device does after its replicator has died.
    pub(crate) fn bury(&self) {
        assert!(Command::new("umount").args(["-f", "-l"]).arg(&self.data).status().unwrap().success());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        // Each mount that may be left; none is no error.
        for _ in 0..4 {
            let _absent = Command::new("umount").arg("-l").arg(&self.data).stderr(Stdio::null()).status();
        }
        self.ended.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _woken = std::net::TcpStream::connect(self.address);
        if std::thread::panicking() {
            eprintln_log(&self.name, &self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log of a failed test")]
fn eprintln_log(name: &str, log: &str) {
    let tail: Vec<&str> = log.lines().rev().take(60).collect();
    eprintln!("--- log of {name}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
}

pub(crate) fn lineage(id: u128) -> LineageId {
    LineageId { value: id.to_be_bytes().to_vec().into() }
}

pub(crate) fn name(session: u64) -> SessionId {
    SessionId { first: session, second: session + 1000 }
}

/// What safed does on port 9402: passes each connection to the replicator.
fn pass_connections(listener: &TcpListener, socket: &Path, ended: &AtomicBool) {
    let mut agent = None;
    for connection in listener.incoming().flatten() {
        if ended.load(Ordering::Acquire) {
            return;
        }
        for _ in 0..2 {
            if agent.is_none() {
                agent = connect_fds(socket);
            }
            if agent.as_ref().is_some_and(|agent| send_fd(agent, b"S", connection.as_fd())) {
                break;
            }
            agent = None;
        }
    }
}

pub(crate) fn connect_fds(path: &Path) -> Option<OwnedFd> {
    let unix = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&unix, &SocketAddrUnix::new(path).unwrap()).ok().map(|()| unix)
}

pub(crate) fn send_fd(agent: &OwnedFd, packet: &[u8], descriptor: BorrowedFd<'_>) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(agent, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).is_ok()
}
