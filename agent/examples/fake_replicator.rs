//! A replicator that agrees to everything and replicates nothing: for tests of the daemon's shell.
//!
//! `fake_replicator --run-dir DIR`. A file `DIR/behaviour` may hold one word: `deaf` (takes connections, answers
//! nothing), `stubborn` (does not end when told), `refuse` (finds the directories unusable), `hasty` (reports before it
//! has introduced itself).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use safe_proto::replication::attach_request::Command;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::control_service_server::{ControlService, ControlServiceServer};
use safe_proto::replication::{
    Adopted, AttachRequest, AttachResponse, Copy, Fenced, LineageId, Mounted, Ready, Role, SessionId,
    Stopped, Unmounted,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
struct State {
    configured: bool,
    mounted: bool,
    session: Option<(SessionId, i32)>,
    settled: Option<LineageId>,
}

#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    behaviour: String,
    /// Written to: one line for each command.
    journal: PathBuf,
}

#[tonic::async_trait]
impl ControlService for Fake {
    type AttachStream = ReceiverStream<Result<AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (tell, told) = mpsc::channel(64);
        let (fake, mut commands) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(AttachRequest { command: Some(command) })) = commands.message().await {
                for report in fake.obey(command) {
                    let stopped = matches!(report, Report::Stopped(_));
                    let sent = tell.send(Ok(AttachResponse { report: Some(report) })).await;
                    if sent.is_err() || stopped {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        if stopped {
                            std::process::exit(0);
                        }
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(told)))
    }
}

impl Fake {
    fn obey(&self, command: Command) -> Vec<Report> {
        self.note(&command);
        if self.behaviour == "deaf" {
            return Vec::new();
        }
        let mut state = self.state.lock();
        match command {
            Command::Configure(_) => self.greet(introduce(&mut state)),
            Command::Examine(_) if self.behaviour == "refuse" => {
                vec![Report::Refused("it refuses".to_owned())]
            }
            Command::Examine(examine) => {
                let copy = if examine.accept.is_empty() { Copy::Empty } else { Copy::Known };
                vec![Report::Ready(Ready { copy: copy.into(), knows_inflight: true })]
            }
            Command::OpenJournal(id) => vec![Report::JournalOpen(id)],
            Command::Mark(id) => vec![Report::Marked(id)],
            Command::Join(join) => {
                let session = join.session.unwrap_or_default();
                state.session = Some((session, join.role));
                vec![Report::SessionUp(session), Report::InStep(session)]
            }
            Command::Receive(_) => Vec::new(),
            Command::Leave(session) => {
                state.session = None;
                vec![Report::SessionEnded(session)]
            }
            Command::Turn(turn) => {
                state.session = turn.session.map(|session| (session, turn.role));
                Vec::new()
            }
            Command::Mount(_) => {
                state.mounted = true;
                vec![Report::Mounted(Mounted { connections: Vec::new() })]
            }
            Command::Settle(id) => {
                state.settled = Some(id);
                Vec::new()
            }
            Command::Unsettle(_) => {
                state.settled = None;
                Vec::new()
            }
            Command::Archive(id) => {
                let (lineage, kept, text) = (Some(id), true, "nothing to keep".to_owned());
                vec![Report::Archived(safe_proto::replication::Archived { lineage, kept, text })]
            }
            Command::ClearJournal(_) => vec![Report::Cleared(safe_proto::replication::Cleared {})],
            Command::Unmount(_) => {
                state.mounted = false;
                vec![Report::Unmounted(Unmounted {})]
            }
            Command::Fence(_) => {
                *state = State { configured: true, ..State::default() };
                vec![Report::Fenced(Fenced {})]
            }
            Command::Stop(_) if self.behaviour == "stubborn" => Vec::new(),
            Command::Stop(_) => vec![Report::Stopped(Stopped {})],
            Command::Resume(_) => {
                state.mounted = true;
                let (knows_inflight, connections) = (true, Vec::new());
                vec![Report::Resumed(safe_proto::replication::Resumed { knows_inflight, connections })]
            }
            Command::StandIn(_) | Command::PeerContact(_) | Command::Verify(_) | Command::PauseResync(_) => {
                Vec::new()
            }
            Command::Limit(limit) => vec![Report::Limited(limit)],
        }
    }

    fn greet(&self, introduction: Adopted) -> Vec<Report> {
        let mut reports = vec![Report::Adopted(introduction)];
        if self.behaviour == "hasty" {
            reports.insert(0, Report::Figures(safe_proto::replication::StreamFigures::default()));
            reports.insert(1, Report::DiskFailed("its disk failed".to_owned()));
        }
        reports
    }

    fn note(&self, command: &Command) {
        use std::io::Write;
        let text = format!("{command:?}");
        let name = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&self.journal);
        if let Ok(mut file) = file {
            // A test looks at what is there.
            let _incomplete = writeln!(file, "{name}");
        }
    }
}

fn introduce(state: &mut State) -> Adopted {
    let fresh = !std::mem::replace(&mut state.configured, true);
    Adopted {
        protocol: safe_proto::PROTOCOL,
        fresh,
        mounted: state.mounted,
        session: state.session.map(|(session, _)| session),
        role: state.session.map_or(i32::from(Role::Unspecified), |(_, role)| role),
        in_step: state.session.is_some(),
        settled: state.settled.clone(),
        fenced: false,
        copy: Copy::Known.into(),
        knows_inflight: true,
        contact_boottime_ns: 0,
        accept: Vec::new(),
        connections: Vec::new(),
        limit_ms: 0,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--run-dir");
    let dir = PathBuf::from(arguments.nth(1).ok_or("--run-dir is missing")?);
    let behaviour = std::fs::read_to_string(dir.join("behaviour")).unwrap_or_default().trim().to_owned();
    let fake = Fake { state: Arc::default(), behaviour, journal: dir.join("commands") };
    listen_for_descriptors(&dir.join("fds.sock"))?;
    let listener = tokio::net::UnixListener::bind(dir.join("control.sock"))?;
    tonic::transport::Server::builder()
        .add_service(ControlServiceServer::new(fake))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await?;
    Ok(())
}

/// Accepts, reads and closes whatever comes.
fn listen_for_descriptors(path: &Path) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, 4)?;
    std::thread::spawn(move || {
        while let Ok(accepted) = rustix::net::accept(&socket) {
            std::thread::spawn(move || {
                let mut packet = [0; 16];
                while rustix::io::read(&accepted, &mut packet).is_ok_and(|length| length > 0) {}
            });
        }
    });
    Ok(())
}
