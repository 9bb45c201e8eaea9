//! Whether the agent is there. While it is gone this replicator says so to the other node, and after a while fences
//! itself.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use safe_proto::datagram::{Header, Key, Origin, seal};

use crate::clock::Boottime;

/// What to say on every lan in the agent's place.
#[derive(Debug, Clone, Default)]
pub struct StandIn {
    /// While serving.
    pub heartbeat: Bytes,
    /// Once fenced.
    pub fenced: Bytes,
    /// Where the other node's agent listens, by lan.
    pub peers: Vec<Option<SocketAddr>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts attachments, so that the end of an old one does not count as the end of a newer one.
    generation: u64,
    attached: bool,
    since: Boottime,
    fenced: bool,
    stand_in: StandIn,
    sockets: Vec<Option<UdpSocket>>,
    counter: u64,
    ended: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Agent {
    inner: Mutex<Inner>,
    changed: Condvar,
    incarnation: u64,
}

/// Most lans whose sockets are kept.
const LANS: usize = 64;

impl Agent {
    /// No agent yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let inner = Inner { since: Boottime::now(), ..Inner::default() };
        let incarnation = random();
        Arc::new(Self { inner: Mutex::new(inner), changed: Condvar::new(), incarnation })
    }

    /// An agent is there; its number.
    pub fn attach(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        inner.attached = true;
        tracing::info!(generation = inner.generation, "an agent has come");
        self.changed.notify_all();
        inner.generation
    }

    /// Number of the last one that came.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.lock().generation
    }

    /// It is gone, unless another one has come.
    pub fn detach(&self, generation: u64) {
        let mut inner = self.inner.lock();
        if inner.generation == generation && inner.attached {
            inner.attached = false;
            inner.since = Boottime::now();
            tracing::warn!("the agent is gone");
            self.changed.notify_all();
        }
    }

    /// For how long it has been gone.
    #[must_use]
    pub fn gone(&self) -> Option<Duration> {
        let inner = self.inner.lock();
        (!inner.attached).then(|| inner.since.elapsed())
    }

    /// This replicator is fenced, or not any more.
    pub fn set_fenced(&self, fenced: bool) {
        self.inner.lock().fenced = fenced;
        self.changed.notify_all();
    }

    /// Whether it is.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.inner.lock().fenced
    }

    /// What to say from now on.
    pub fn set_stand_in(&self, stand_in: StandIn) {
        self.inner.lock().stand_in = stand_in;
    }

    /// A duplicate of the agent's heartbeat socket on a lan.
    pub fn set_socket(&self, lan: u8, socket: UdpSocket) {
        let mut inner = self.inner.lock();
        let lan = usize::from(lan);
        if lan >= LANS {
            return;
        }
        if inner.sockets.len() <= lan {
            inner.sockets.resize_with(lan + 1, || None);
        }
        inner.sockets[lan] = Some(socket);
    }

    /// The process ends: the watch ends too.
    pub fn end(&self) {
        self.inner.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until the agent is gone, or has been gone for one more interval; how long it has been gone and whether
    /// this replicator is fenced. None: the process ends.
    #[must_use]
    pub fn wait_gone(&self, interval: Duration) -> Option<(Duration, bool)> {
        let mut inner = self.inner.lock();
        if !inner.attached {
            self.changed.wait_for(&mut inner, interval);
        }
        while inner.attached && !inner.ended {
            self.changed.wait_for(&mut inner, Duration::from_secs(1));
        }
        (!inner.ended).then(|| (inner.since.elapsed(), inner.fenced))
    }

    /// Says on every lan what is to be said.
    pub fn speak(&self, key: &Key) {
        let mut inner = self.inner.lock();
        inner.counter += 1;
        let Inner { counter, fenced, stand_in, sockets, .. } = &*inner;
        let body = if *fenced { &stand_in.fenced } else { &stand_in.heartbeat };
        if body.is_empty() {
            return;
        }
        for (lan, (socket, peer)) in sockets.iter().zip(&stand_in.peers).enumerate() {
            let (Some(socket), Some(peer), Ok(lan)) = (socket, peer, u8::try_from(lan)) else { continue };
            let header =
                Header { origin: Origin::StandIn, lan, incarnation: self.incarnation, counter: *counter };
            let Some(datagram) = seal(key, header, body) else { continue };
            if let Err(error) = socket.send_to(&datagram, peer) {
                tracing::debug!(%error, %peer, "cannot speak in the agent's place");
            }
        }
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // Early in the life of a machine; the clock and the process number still tell incarnations apart.
        _ => Boottime::now().0 ^ (u64::from(std::process::id()) << 40),
    }
}
