//! The life of a session on the data plane's thread: find the other node, agree, exchange frames, end. Nothing here
//! waits for a disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use safe_proto::replication::{Frame, Hello, KeepAlive, Loss, StreamFigures, frame};
use safe_replication::op::{Number, Op};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock::Boottime;
use crate::line::{Handler, Line, Seat};
use crate::member::{Member, Peer, Role};
use crate::replica::boot_id;
use crate::report::Report;
use crate::session::{Carrier, Session, SessionName};
use crate::stream::{Connection, accept, dial, is_silence};
use crate::wire;

/// No module has a longer `stall_timeout`.
const LONGEST_STALL: Duration = Duration::from_secs(3600);

/// Version of the protocol between replicators.
const PROTOCOL: u32 = 3;
/// Longest wait for one attempt to connect.
const ATTEMPT: Duration = Duration::from_secs(1);
/// For the reason of an end to reach the other side.
const FAREWELL: Duration = Duration::from_millis(100);
/// What a side says that was told to leave.
const LEFT: &str = "left";
/// Tenths of the stall timeout that a stream may be silent.
const SILENT: u32 = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_millis(250);

/// What a session was ordered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joining {
    /// Its name.
    pub name: SessionName,
    /// This node's part.
    pub role: Role,
    /// 1 repair, 2 delta, 3 full.
    pub plan: u32,
    /// As target: its copy is as good as it was, and is changed only after leave.
    pub untouched: bool,
}

/// Orders to a session.
#[derive(Debug)]
pub enum Order {
    /// End it.
    Leave,
    /// Exchange the roles; answered when it is done.
    Turn(Role, oneshot::Sender<()>),
}

/// How a session ended.
#[derive(Debug)]
enum End {
    Left,
    Lost(Loss, String),
}

/// Runs a session to its end and reports it.
pub async fn attend(member: Arc<Member>, joining: Joining, mut orders: mpsc::Receiver<Order>) {
    let end = match establish(&member, joining, &mut orders).await {
        Ok(connection) => converse(&member, joining, connection, &mut orders).await,
        Err(end) => end,
    };
    member.session_over(joining.name);
    let session = Some(crate::control::session_id(joining.name));
    match end {
        End::Left => member.reports.send(Report::SessionEnded(crate::control::session_id(joining.name))),
        End::Lost(loss, reason) => {
            tracing::info!(reason, ?loss, "session lost");
            let loss = loss.into();
            member.reports.send(Report::SessionLost(safe_proto::replication::SessionLost {
                session,
                reason,
                loss,
            }));
        }
    }
}

/// Connects and agrees with the other node, again and again for as long as it may take to join.
async fn establish(
    member: &Arc<Member>,
    joining: Joining,
    orders: &mut mpsc::Receiver<Order>,
) -> Result<Connection, End> {
    let begun = Boottime::now();
    let limit = member.settings().stall_timeout.max(member.settings().timeout);
    let mut backoff = FIRST_BACKOFF;
    let mut reason = String::from("the other node did not connect");
    let mut said = false;
    while begun.elapsed() < limit {
        let attempt = async {
            match joining.role {
                Role::Primary => reach(member, joining).await,
                Role::Secondary => be_reached(member, joining, limit.saturating_sub(begun.elapsed())).await,
            }
        };
        let outcome = tokio::select! {
            outcome = attempt => outcome,
            order = orders.recv() => match order {
                Some(Order::Turn(..)) => continue,
                Some(Order::Leave) | None => return Err(End::Left),
            },
        };
        match outcome {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                tracing::debug!(error, "no session yet");
                // That nobody answers any more says less than what was answered before.
                if !said || !is_silence(&error) {
                    said = !is_silence(&error);
                    reason = error;
                }
            }
        }
        if joining.role == Role::Primary {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }
    Err(End::Lost(Loss::Stream, format!("no connection to the other node: {reason}")))
}

async fn reach(member: &Arc<Member>, joining: Joining) -> Result<Connection, String> {
    let settings = member.settings();
    let next = member.endpoint.load(Ordering::Relaxed);
    let endpoint = settings.endpoints.get(next % settings.endpoints.len().max(1));
    let endpoint = *endpoint.ok_or("no address of the other node is known")?;
    member.endpoint.store(next + 1, Ordering::Relaxed);
    // An address that is cut off says nothing at all: the others must have their turn in time.
    let share = settings.stall_timeout / u32::try_from(settings.endpoints.len() + 1).unwrap_or(1);
    let limit = share.clamp(ATTEMPT / 5, ATTEMPT);
    let mut connection = dial(&member.tls(), &settings.module, endpoint, limit).await?;
    agree(member, joining, &mut connection).await?;
    // The next session begins with the lan that is preferred, unless this one falls silent.
    member.endpoint.store(0, Ordering::Relaxed);
    connection.index = next;
    Ok(connection)
}

async fn be_reached(member: &Arc<Member>, joining: Joining, limit: Duration) -> Result<Connection, String> {
    let mut arrivals = member.arrivals.lock().await;
    let arrival = timeout(limit, arrivals.recv()).await;
    let socket = arrival.map_err(|_| "the other node did not connect")?.ok_or("no more connections come")?;
    let tcp = TcpStream::from_std(socket).map_err(|error| error.to_string())?;
    let mut connection = accept(&member.tls(), tcp, ATTEMPT).await?;
    agree(member, joining, &mut connection).await?;
    Ok(connection)
}

/// Both sides must have been told the same.
async fn agree(member: &Arc<Member>, joining: Joining, connection: &mut Connection) -> Result<(), String> {
    let settings = member.settings();
    let hello = Hello {
        protocol: PROTOCOL,
        module: settings.module.clone(),
        node: settings.node.clone(),
        first: joining.name.first,
        second: joining.name.second,
        primary: joining.role == Role::Primary,
        plan: joining.plan,
        roots: u32::try_from(settings.directories.len()).unwrap_or(u32::MAX),
        stall_timeout_ms: u32::try_from(settings.stall_timeout.as_millis()).unwrap_or(u32::MAX),
        boot: boot_id().to_be_bytes().to_vec().into(),
        closed: member.epochs().closed(),
    };
    connection.send(frame::Kind::Hello(hello.clone())).await?;
    let first = timeout(ATTEMPT, connection.receive()).await.map_err(|_| "no greeting came")?;
    let theirs = match first?.kind {
        Some(frame::Kind::Hello(theirs)) => theirs,
        Some(frame::Kind::Refusal(reason)) => {
            return Err(format!("refused by the other node: {}", wire::clipped(&reason)));
        }
        _ => return Err("no greeting came".into()),
    };
    if let Some(difference) = difference(&hello, &theirs, &settings.peer) {
        connection.send(frame::Kind::Refusal(difference.clone())).await?;
        // The other side closes when it has read the reason.
        let _end = timeout(ATTEMPT / 4, connection.receive()).await;
        return Err(difference);
    }
    let boot: [u8; 16] = theirs.boot.as_ref().try_into().map_err(|_| "the greeting has no boot id")?;
    let their_stall = Duration::from_millis(theirs.stall_timeout_ms.into()).min(LONGEST_STALL);
    connection.stall = settings.stall_timeout.max(their_stall);
    member.set_peer(Peer { boot: u128::from_be_bytes(boot), closed: theirs.closed });
    Ok(())
}

fn difference(own: &Hello, theirs: &Hello, peer: &str) -> Option<String> {
    if theirs.protocol != own.protocol {
        return Some(format!("protocol version {} is not known, this is {}", theirs.protocol, own.protocol));
    }
    let differs = |what: &str| Some(format!("{what} differs: {} has other orders", own.node));
    match theirs {
        t if t.module != own.module => differs("module"),
        t if t.node != peer => differs("node"),
        t if (t.first, t.second) != (own.first, own.second) => differs("session"),
        t if t.primary == own.primary => differs("role"),
        t if t.plan != own.plan => differs("plan"),
        t if t.roots != own.roots => differs("number of directories"),
        _ => None,
    }
}

/// Exchanges frames until the session ends; then its workers have ended too.
async fn converse(
    member: &Arc<Member>,
    joining: Joining,
    connection: Connection,
    orders: &mut mpsc::Receiver<Order>,
) -> End {
    let (endpoint, index, stall) = (connection.endpoint.clone(), connection.index, connection.stall);
    let line = match connection.into_line() {
        Ok(line) => line,
        Err(error) => return End::Lost(Loss::Here, format!("the connection is not usable: {error}")),
    };
    let session = member.new_session(joining.name, Arc::clone(&line) as Arc<dyn Carrier>);
    let talk = Arc::new(Talk::new(member, &session));
    line.set_handler(Arc::clone(&talk) as Arc<dyn Handler>);
    let begun = member.begin(&session, joining).await;
    // Not before: what the other node sends must find who carries it out.
    let begun = begun.and_then(|()| line.start().map_err(|error| format!("cannot read the stream: {error}")));
    let end = match begun {
        Ok(()) => {
            member.reports.send(Report::SessionUp(crate::control::session_id(joining.name)));
            exchange(member, &session, &talk, (&endpoint, stall), orders).await
        }
        Err(error) => End::Lost(Loss::Here, error),
    };
    let (loss, reason) = match &end {
        End::Left => (Loss::Left, LEFT),
        End::Lost(loss, reason) => (*loss, reason.as_str()),
    };
    if loss == Loss::Silence {
        member.endpoint.store(index + 1, Ordering::Relaxed);
    }
    session.tell(frame::Kind::Refusal(reason.to_owned()));
    session.lose(loss, reason);
    // The other side closes when it has read the reason; by then it knows as much as this one.
    line.finish(FAREWELL).await;
    let ended = member.finish(&session).await;
    hang_up(line).await;
    match ended {
        Ok(()) => end,
        Err(error) => End::Lost(Loss::Here, error),
    }
}

/// Waits for the threads of the line.
async fn hang_up(line: Arc<Line>) {
    if tokio::task::spawn_blocking(move || line.end()).await.is_err() {
        tracing::error!("the end of a line panicked");
    }
}

async fn exchange(
    member: &Arc<Member>,
    session: &Arc<Session>,
    talk: &Talk,
    (endpoint, stall): (&str, Duration),
    orders: &mut mpsc::Receiver<Order>,
) -> End {
    let settings = member.settings();
    talk.hear();
    let mut figures = Boottime::now();
    let mut beat = interval(settings.interval.min(settings.stall_timeout / 4).max(Duration::from_millis(5)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Leave) | None => return End::Left,
                Some(Order::Turn(role, done)) => {
                    if let Err(error) = member.turn(session, role).await {
                        return End::Lost(Loss::Here, error);
                    }
                    // Whoever ordered it may be gone.
                    let _told = done.send(());
                }
            },
            () = session.ended() => {
                let (loss, reason) = session.lost().unwrap_or_default();
                return End::Lost(loss, reason);
            }
            _ = beat.tick() => {
                if let Err((loss, reason)) = tick(member, session, talk, stall) {
                    return End::Lost(loss, reason);
                }
                if figures.elapsed() >= Duration::from_secs(1) {
                    figures = Boottime::now();
                    let (backlog, _) = session.backlog();
                    let (ack_us, endpoint) = (session.take_round_trip(), endpoint.to_owned());
                    member.reports.hint(Report::Figures(StreamFigures { backlog, ack_us, endpoint }));
                }
            }
        }
    }
}

fn ended_by_the_other(reason: &str) -> String {
    format!("ended by the other node: {reason}")
}

/// Keeps the session alive, and ends it when the other side does not.
fn tick(member: &Member, session: &Session, talk: &Talk, stall: Duration) -> Result<(), (Loss, String)> {
    let settings = member.settings();
    let silence = talk.silence();
    // The rest of the timeout is for another lan to be found.
    if silence > stall / 10 * SILENT {
        return Err((Loss::Silence, format!("the stream was silent for {} ms", silence.as_millis())));
    }
    let (_, oldest) = session.backlog();
    if oldest > settings.slow_timeout {
        let reason = format!("the other node has not done an operation for {} ms", oldest.as_millis());
        return Err((Loss::Failed, reason));
    }
    // This thread must never wait for room: it is the one that keeps the session alive.
    for id in member.take_released(session.serial, session.room() / 2) {
        if let Ok((number, _)) = session.queue(&Op::Unbind { id }, &[]) {
            session.carried_out(number);
        }
    }
    session.tell(frame::Kind::KeepAlive(KeepAlive {
        watermark: session.watermark().0,
        agent_gone_ms: member.agent_gone().map(|gone| u32::try_from(gone.as_millis()).unwrap_or(u32::MAX)),
        fenced: member.is_fenced(),
        sent_ns: Boottime::now().0,
        echo_ns: talk.echo.load(Ordering::Relaxed),
        closed: member.epochs().closed(),
    }));
    Ok(())
}

/// What is done with frames, by whichever thread reads them.
struct Talk {
    member: Arc<Member>,
    session: Weak<Session>,
    /// When something came.
    heard: AtomicU64,
    /// `sent_ns` of the other side's last keepalive.
    echo: AtomicU64,
}

impl Talk {
    fn new(member: &Arc<Member>, session: &Arc<Session>) -> Self {
        let (heard, echo) = (AtomicU64::new(Boottime::now().0), AtomicU64::new(0));
        Self { member: Arc::clone(member), session: Arc::downgrade(session), heard, echo }
    }

    fn hear(&self) {
        self.heard.store(Boottime::now().0, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        Boottime(self.heard.load(Ordering::Relaxed)).elapsed()
    }

    fn hear_keepalive(&self, session: &Session, alive: &KeepAlive) {
        self.echo.store(alive.sent_ns, Ordering::Relaxed);
        if alive.echo_ns != 0 {
            self.member.state.contact(Boottime(alive.echo_ns));
        }
        self.member.peer_says(session, alive);
        self.member.epochs().peer_closed(alive.closed);
        // Only the secondary keeps what the watermark is about.
        if let Some(entrance) = self.member.entrance() {
            entrance.watermark(Number(alive.watermark));
        }
    }
}

impl Handler for Talk {
    fn frame(&self, frame: Frame, seat: Option<&Seat<'_>>) -> Result<(), String> {
        let Some(session) = self.session.upgrade().filter(|session| !session.is_lost()) else {
            // The other side only has not read yet that it is over.
            return Ok(());
        };
        self.hear();
        let entrance = || {
            self.member
                .entrance()
                .ok_or_else(|| "an operation came to a node that is not the secondary".to_owned())
        };
        match frame.kind {
            Some(frame::Kind::Result(result)) => {
                let sent = session.complete(result).ok_or("an answer that nobody asked for")?;
                // It was sent after we asked: that is when the other node surely was there.
                self.member.state.contact(sent);
                Ok(())
            }
            Some(frame::Kind::Operation(operation)) => {
                let (number, watermark, op) =
                    wire::parse_operation(operation).map_err(|error| error.to_string())?;
                entrance()?.operation(number, watermark, op, seat).map_err(str::to_owned)
            }
            Some(frame::Kind::Question(question)) => {
                let (number, query) = wire::parse_question(question).map_err(|error| error.to_string())?;
                entrance()?.question(number, query).map_err(str::to_owned)
            }
            Some(frame::Kind::KeepAlive(alive)) => {
                self.hear_keepalive(&session, &alive);
                Ok(())
            }
            Some(frame::Kind::Refusal(reason)) => Err(ended_by_the_other(&wire::clipped(&reason))),
            Some(frame::Kind::Hello(_)) | None => Err("a frame that does not belong here".into()),
        }
    }

    fn carries_out(&self) -> bool {
        self.member.entrance().is_some()
    }

    fn ended(&self, reason: &str) {
        if let Some(session) = self.session.upgrade() {
            let loss = if reason == ended_by_the_other(LEFT) { Loss::Left } else { Loss::Stream };
            session.lose(loss, reason);
        }
    }
}

impl Role {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

/// Whether the session has its target in step, for whoever adopts this replicator.
#[must_use]
pub fn is_in_step(session: &Session) -> bool {
    session.in_step.load(Ordering::Acquire)
}
