use std::net::TcpListener;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;

use parking_lot::Condvar;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use safe_proto::replication::{Result as Answer, frame};
use safe_replication::op::{ObjectId, Op};

use super::*;
use crate::session::{Session, SessionName};

const LIMIT: Duration = Duration::from_secs(30);

/// Both ends of a connection after its handshake.
fn connected() -> (Arc<Line>, Arc<Line>) {
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec!["there".into()]).expect("a name").self_signed(&key);
    let certificate = certificate.expect("a certificate").der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = &[&rustls::version::TLS13];
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let client = client.with_protocol_versions(versions).expect("known");
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let server =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("known");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).expect("usable");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let dialled = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (taken, _) = listener.accept().expect("dialled");
    std::thread::scope(|scope| {
        let accepting = scope.spawn(move || {
            let (mut tcp, mut tls) = (taken, ServerConnection::new(Arc::new(server)).expect("usable"));
            tls.complete_io(&mut tcp).expect("a handshake");
            Line::new(tcp, tls.into()).expect("a line")
        });
        let name = ServerName::try_from("there").expect("a name");
        let (mut tcp, mut tls) = (dialled, ClientConnection::new(Arc::new(client), name).expect("usable"));
        tls.complete_io(&mut tcp).expect("a handshake");
        (Line::new(tcp, tls.into()).expect("a line"), accepting.join().expect("accepted"))
    })
}

/// The side that asks.
struct Asks(Weak<Session>);

impl Handler for Asks {
    fn frame(&self, frame: Frame, _: Option<&Seat<'_>>) -> Result<(), String> {
        let Some(frame::Kind::Result(answer)) = frame.kind else { return Err("no answer".into()) };
        let session = self.0.upgrade().expect("it lasts as long as the test");
        session.complete(answer).map(drop).ok_or_else(|| "not asked".into())
    }

    fn carries_out(&self) -> bool {
        false
    }

    fn ended(&self, reason: &str) {
        if let Some(session) = self.0.upgrade() {
            session.lose(safe_proto::replication::Loss::Stream, reason);
        }
    }
}

/// The side that answers, in its seat; the first one only when the second has come.
struct Answers {
    line: Weak<Line>,
    patient: bool,
    highest: Mutex<u64>,
    changed: Condvar,
    late: AtomicU64,
}

impl Answers {
    fn carry_out(&self, number: u64) {
        let mut highest = self.highest.lock();
        *highest = number.max(*highest);
        self.changed.notify_all();
        if self.patient && number == 1 {
            let waited = self.changed.wait_while_for(&mut highest, |highest| *highest < 2, LIMIT);
            self.late.fetch_add(u64::from(waited.timed_out()), Ordering::Relaxed);
        }
        drop(highest);
        if let Some(line) = self.line.upgrade() {
            let answer = Answer { number, errno: 0, answer: None };
            assert!(line.queue(Frame { kind: Some(frame::Kind::Result(answer)) }));
            line.flush();
        }
    }
}

impl Handler for Answers {
    fn frame(&self, frame: Frame, seat: Option<&Seat<'_>>) -> Result<(), String> {
        let Some(frame::Kind::Operation(operation)) = frame.kind else { return Err("no operation".into()) };
        match seat.filter(|seat| seat.may_leave()) {
            Some(seat) => seat.leave_for(|| self.carry_out(operation.number)),
            None => self.carry_out(operation.number),
        }
        Ok(())
    }

    fn carries_out(&self) -> bool {
        true
    }

    fn ended(&self, _: &str) {}
}

struct Scene {
    here: Arc<Line>,
    there: Arc<Line>,
    session: Arc<Session>,
    answers: Arc<Answers>,
}

impl Scene {
    fn new(patient: bool) -> Self {
        let (here, there) = connected();
        let session =
            Session::new(1, SessionName { first: 1, second: 2 }, Arc::clone(&here) as Arc<dyn Carrier>);
        here.set_handler(Arc::new(Asks(Arc::downgrade(&session))));
        let answers = Arc::new(Answers {
            line: Arc::downgrade(&there),
            patient,
            highest: Mutex::new(0),
            changed: Condvar::new(),
            late: AtomicU64::new(0),
        });
        there.set_handler(Arc::clone(&answers) as Arc<dyn Handler>);
        here.start().expect("threads");
        there.start().expect("threads");
        Self { here, there, session, answers }
    }

    fn ask(&self, op: &Op) -> bool {
        let sent = self.session.send(op, &[]);
        sent.is_ok_and(|(number, waiter)| {
            let answered = waiter.wait().is_ok();
            self.session.carried_out(number);
            answered
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.here.end();
        self.there.end();
    }
}

#[test]
fn every_answer_reaches_the_one_who_waits_for_it() {
    let scene = Scene::new(false);
    let time = safe_replication::op::Timestamp { seconds: 0, nanos: 0 };
    let id = ObjectId(70_000);
    std::thread::scope(|scope| {
        for length in [1, 4096, 4096, 300_000, 1 << 20] {
            let data = bytes::Bytes::from(vec![7; length]);
            let scene = &scene;
            scope.spawn(move || {
                for turn in 0..50 {
                    let op = Op::Write { id, offset: 0, data: data.clone(), time, mode: None };
                    assert!(scene.ask(&op), "turn {turn} with {length} bytes: {:?}", scene.session.lost());
                }
            });
        }
    });
    assert_eq!(*scene.answers.highest.lock(), 250);
    assert!(scene.session.is_quiet());
}

#[test]
fn what_takes_long_does_not_hold_up_what_comes_after_it() {
    let scene = Scene::new(true);
    let op = Op::Unbind { id: ObjectId(70_000) };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| scene.ask(&op));
        while *scene.answers.highest.lock() < 1 {
            std::thread::yield_now();
        }
        assert!(scene.ask(&op), "{:?}", scene.session.lost());
        assert!(first.join().expect("it goes on"));
    });
    assert_eq!(scene.answers.late.load(Ordering::Relaxed), 0, "the second was not read meanwhile");
}

#[test]
fn who_waits_learns_of_the_end() {
    let scene = Scene::new(true);
    let op = Op::Unbind { id: ObjectId(70_000) };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.ask(&op));
        while *scene.answers.highest.lock() < 1 {
            std::thread::yield_now();
        }
        scene.there.socket.shutdown(Shutdown::Both).expect("connected");
        assert!(!waiting.join().expect("it goes on"), "an answer that was never given");
        // The other side waits for a second one.
        scene.answers.carry_out(2);
    });
}
