//! Two directories and a link between them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use safe_replication::dirty::{DirtySet, Object};
use safe_replication::object::Kind;
use safe_replication::op::{Number, ObjectId, Op, Timestamp};
use safe_replicator::backing::{Backing, Found, Root, mode_of};
use safe_replicator::carry::{Objects, carry_out};
use safe_replicator::exclude::Exclude;
use safe_replicator::knowledge::Knowledge;
use safe_replicator::linux::handle::{handle_of, magic_path};
use safe_replicator::progress::{Figures, Progress};
use safe_replicator::resync::answer::{Answerer, Target};
use safe_replicator::resync::link::{Answer, Failure, Held, Key, Link, Query};
use safe_replicator::resync::{Outcome, Plan, Resync};
use safe_replicator::throttle::Throttle;

/// Source and target of a resync.
pub(crate) struct Pair {
    base: tempfile::TempDir,
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) backing: Backing,
    pub(crate) knowledge: Arc<Knowledge>,
    pub(crate) link: Fake,
    pub(crate) stop: AtomicBool,
    /// The target's boot id: change it to let it have lost what was not synced.
    pub(crate) boot: AtomicU64,
}

pub(crate) fn backing(path: &Path, exclude: &[&str]) -> Backing {
    let directory =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let object = Object::new(0, Kind::Directory, &handle_of(directory.as_fd()).unwrap());
    let exclude = Exclude::new(&exclude.iter().map(|pattern| (*pattern).into()).collect::<Vec<_>>()).unwrap();
    Backing {
        roots: Arc::new([Root {
            index: 0,
            path: path.to_path_buf(),
            directory,
            object,
            exclude,
            ack_disk: false,
            write_back: false,
            longest: u64::MAX,
        }]),
    }
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::excluding(&[])
    }

    pub(crate) fn excluding(exclude: &[&str]) -> Self {
        // Not in /tmp where that may be a tmpfs: it has no file handles on some kernels.
        let base = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (source, target) = (base.path().join("source"), base.path().join("target"));
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&target).unwrap();
        let knowledge = Arc::new(Knowledge::new(&base.path().join("journal")));
        let link = Fake::new(backing(&target, exclude), Arc::clone(&knowledge));
        let backing = backing(&source, exclude);
        Self {
            source,
            target,
            backing,
            knowledge,
            link,
            stop: AtomicBool::new(false),
            boot: AtomicU64::new(1),
            base,
        }
    }

    /// The same directories, without ids or knowledge in common.
    pub(crate) fn over(source: &Path, target: &Path) -> Self {
        let pair = Self::new();
        let (source, target) = (source.to_path_buf(), target.to_path_buf());
        let link = Fake::new(backing(&target, &[]), Arc::clone(&pair.knowledge));
        let backing = backing(&source, &[]);
        Self { source, target, link, backing, ..pair }
    }

    /// The source's process was restarted and knows this.
    pub(crate) fn restart(&mut self, knowledge: Knowledge) {
        self.knowledge = Arc::new(knowledge);
        self.link.knowledge = Arc::clone(&self.knowledge);
    }

    /// Where the journal is.
    pub(crate) fn journal(&self) -> PathBuf {
        self.base.path().join("journal")
    }

    /// A new session and a resync in it.
    pub(crate) fn resync(&self, plan: Plan) -> (Outcome, Figures) {
        self.knowledge.joined(self.boot.load(Ordering::SeqCst).into()).unwrap();
        self.link.begin();
        let progress = Progress::default();
        let throttle = Throttle::new(0);
        let (link, knowledge, backing) = (&self.link, &self.knowledge, &self.backing);
        let resync = Resync::new(link, knowledge, backing, &progress, &throttle, &self.stop);
        let outcome = resync.run(plan);
        (outcome, progress.figures())
    }

    pub(crate) fn in_step(&self, plan: Plan) -> Figures {
        let (outcome, figures) = self.resync(plan);
        assert_eq!(outcome, Outcome::InStep);
        assert!(self.knowledge.is_empty());
        figures
    }

    #[track_caller]
    pub(crate) fn assert_equal(&self) {
        assert_eq!(differences(&self.source, &self.target), "");
    }
}

/// What rsync would have to do to make the target equal.
pub(crate) fn differences(source: &Path, target: &Path) -> String {
    let slashed = |path: &Path| format!("{}/", path.display());
    let output = Command::new("rsync")
        .args(["-aHAXn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes"])
        .args(["--filter=-x trusted.safed.*", &slashed(source), &slashed(target)])
        .output()
        .expect("rsync is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The link, and the target behind it.
pub(crate) struct Fake {
    pub(crate) objects: Applied,
    answerer: Mutex<Arc<Answerer>>,
    ids: Mutex<BTreeMap<Object, u64>>,
    // With how often names were found to differ before: what was bound earlier does not count.
    bound: Mutex<BTreeMap<u64, u64>>,
    knowledge: Arc<Knowledge>,
    next: AtomicU64,
    number: AtomicU64,
    /// Operations until the session is lost.
    pub(crate) left: AtomicUsize,
    pub(crate) submitted: AtomicUsize,
    pub(crate) queries: AtomicUsize,
    /// Bytes of content submitted.
    pub(crate) content: AtomicU64,
    pub(crate) keys: Mutex<()>,
    pub(crate) everything: RwLock<()>,
    pub(crate) waiting: AtomicUsize,
    pub(crate) in_flight: Mutex<DirtySet>,
    /// A write of the application that is sent while the keys behind it are held.
    pub(crate) under_way: Mutex<Option<UnderWay>>,
}

/// A write that the target has and the source has not yet: it comes to the source when its keys are asked for, or when
/// something else was sent. The application appends `next` behind it at once.
pub(crate) struct UnderWay {
    pub(crate) object: Object,
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) data: &'static [u8],
    pub(crate) next: &'static [u8],
    pub(crate) sent: bool,
}

impl UnderWay {
    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    fn carry_out(&self, link: &Fake) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.write_all_at(self.data, self.offset).unwrap();
        self.send(link, self.end(), self.next);
        file.write_all_at(self.next, self.end()).unwrap();
    }

    fn send(&self, link: &Fake, offset: u64, data: &'static [u8]) {
        let (id, data) = (link.id(&self.object), Bytes::from_static(data));
        let time = Timestamp { seconds: 1, nanos: 0 };
        link.carry(&Op::Write { id, offset, data, time, mode: None }).unwrap();
    }
}

impl Fake {
    /// These keys are asked for, and granted when this returns.
    fn meet(&self, keys: &[Key]) {
        let mut under_way = self.under_way.lock();
        let Some(write) = under_way.as_mut() else { return };
        let of_it = keys.iter().find_map(|key| match key {
            Key::Data { object, from, to } if *object == write.object => Some((*from, *to)),
            _ => None,
        });
        let everything = keys.contains(&Key::Everything);
        let conflicts = everything || of_it.is_some_and(|(from, to)| from < write.end() && write.offset < to);
        if write.sent && conflicts {
            write.carry_out(self);
            *under_way = None;
        } else if !write.sent && of_it.is_some_and(|(from, to)| from >= write.end() && to == u64::MAX) {
            write.sent = true;
            write.send(self, write.offset, write.data);
        }
    }

    /// The write under way comes to its end here.
    pub(crate) fn end_under_way(&self) {
        let write = self.under_way.lock().take_if(|write| write.sent);
        if let Some(write) = write {
            write.carry_out(self);
        }
    }
}

impl Fake {
    fn new(backing: Backing, knowledge: Arc<Knowledge>) -> Self {
        Self {
            objects: Applied { backing, known: Mutex::default() },
            answerer: Mutex::default(),
            ids: Mutex::default(),
            bound: Mutex::default(),
            knowledge,
            next: AtomicU64::new(100),
            number: AtomicU64::new(1),
            left: AtomicUsize::new(usize::MAX),
            submitted: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
            content: AtomicU64::new(0),
            keys: Mutex::new(()),
            everything: RwLock::new(()),
            waiting: AtomicUsize::new(0),
            in_flight: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    fn begin(&self) {
        self.objects.known.lock().clear();
        self.ids.lock().clear();
        self.bound.lock().clear();
        *self.answerer.lock() = Arc::default();
        for count in [&self.submitted, &self.queries] {
            count.store(0, Ordering::SeqCst);
        }
        self.content.store(0, Ordering::SeqCst);
    }

    fn carry(&self, op: &Op) -> Result<(), Failure> {
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(Failure::Lost("cut".into()));
        }
        if left != usize::MAX {
            self.left.fetch_sub(1, Ordering::SeqCst);
        }
        if matches!(op, Op::SyncAll { .. }) {
            // Nothing here is pulled out of a socket.
            return Ok(());
        }
        let number = Number(self.number.fetch_add(1, Ordering::SeqCst));
        self.submitted.fetch_add(1, Ordering::SeqCst);
        self.content.fetch_add(op.payload() as u64, Ordering::SeqCst);
        if let Op::Bind { id, .. } = op
            && !self.is_bound(*id)
        {
            // What it meant in an earlier round.
            self.objects.unbound(*id);
        }
        carry_out(&self.objects, number, op).map_err(|errno| {
            // What the resync itself gets wrong would show here.
            if std::env::var_os("SHOW_REFUSED").is_some() {
                eprintln!("refused {op:?}: {errno}");
            }
            Failure::Refused(errno.raw_os_error())
        })?;
        match op {
            Op::Bind { id, .. } | Op::Create { id, .. } => {
                self.bound.lock().insert(id.0, self.knowledge.departures());
            }
            Op::Unbind { id } => {
                self.bound.lock().remove(&id.0);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_bound(&self, id: ObjectId) -> bool {
        self.bound.lock().get(&id.0) == Some(&self.knowledge.departures())
    }

    fn carry_bind(
        &self,
        id: ObjectId,
        parent: ObjectId,
        name: &[u8],
        kind: u32,
    ) -> Result<ObjectId, Failure> {
        if !self.is_bound(id) {
            self.carry(&Op::Bind { id, parent, name: Bytes::copy_from_slice(name), kind })?;
        }
        Ok(id)
    }
}

enum Guard<'a> {
    Keys(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>),
    Everything(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
}

impl Held for Guard<'_> {}

impl Link for Fake {
    fn query(&self, query: Query) -> Result<Answer, Failure> {
        if self.left.load(Ordering::SeqCst) == 0 {
            return Err(Failure::Lost("cut".into()));
        }
        self.queries.fetch_add(1, Ordering::SeqCst);
        let answerer = self.answerer.lock().clone();
        answerer.answer(self, &query).map_err(|errno| Failure::Refused(errno.raw_os_error()))
    }

    fn submit(&self, ops: Vec<Op>) -> Result<(), Failure> {
        // As over a network: those behind one that is refused are carried out all the same.
        let outcomes: Vec<_> = ops.iter().map(|op| self.carry(op)).collect();
        self.end_under_way();
        outcomes.into_iter().collect()
    }

    fn lock(&self, keys: &[Key]) -> Box<dyn Held + '_> {
        self.meet(keys);
        if keys.contains(&Key::Everything) {
            Box::new(Guard::Everything(self.everything.write()))
        } else {
            // As with real keys: whoever waits for everything is waited for by what comes after.
            assert!(!self.everything.is_locked_exclusive(), "keys are asked for while everything is held");
            Box::new(Guard::Keys(self.keys.lock()))
        }
    }

    fn id(&self, object: &Object) -> ObjectId {
        let next = || self.next.fetch_add(1, Ordering::SeqCst);
        ObjectId(*self.ids.lock().entry(object.clone()).or_insert_with(next))
    }

    fn bound(&self, object: &Object) -> Option<ObjectId> {
        let id = self.id(object);
        self.is_bound(id).then_some(id)
    }

    fn fresh(&self) -> ObjectId {
        ObjectId(self.next.fetch_add(1, Ordering::SeqCst))
    }

    fn bind(&self, parent: ObjectId, name: &[u8], object: &Object) -> Result<ObjectId, Failure> {
        self.carry_bind(self.id(object), parent, name, mode_of(object.kind))
    }

    fn adopt(&self, parent: ObjectId, name: &[u8], kind: Kind) -> Result<ObjectId, Failure> {
        self.carry_bind(self.fresh(), parent, name, mode_of(kind))
    }

    fn forget(&self, ids: &[ObjectId]) {
        for id in ids {
            if self.bound.lock().remove(&id.0).is_some() {
                self.objects.unbound(*id);
            }
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Target for Fake {
    fn backing(&self) -> &Backing {
        &self.objects.backing
    }

    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        Objects::path(&self.objects, id)
    }

    fn in_flight(&self) -> DirtySet {
        self.in_flight.lock().clone()
    }
}

/// The target's objects by id.
pub(crate) struct Applied {
    backing: Backing,
    known: Mutex<BTreeMap<u64, Arc<OwnedFd>>>,
}

impl Objects for Applied {
    fn backing(&self) -> &Backing {
        &self.backing
    }

    fn root(&self, _id: ObjectId) -> Result<&Root, Errno> {
        Ok(&self.backing.roots[0])
    }

    fn path(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        if id == ObjectId::root(0) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return rustix::fs::openat(&self.backing.roots[0].directory, c".", flags, Mode::empty())
                .map(Arc::new);
        }
        self.known.lock().get(&id.0).cloned().ok_or(Errno::STALE)
    }

    fn file(&self, id: ObjectId) -> Result<Arc<OwnedFd>, Errno> {
        let path = self.path(id)?;
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(magic_path(path.as_fd()), flags, Mode::empty()).map(Arc::new)
    }

    fn pin(&self, _id: ObjectId) -> Result<(), Errno> {
        Ok(())
    }

    fn stamp(
        &self,
        _id: ObjectId,
        _number: Number,
        time: Timestamp,
        set: &mut dyn FnMut(Timestamp) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        set(time)
    }

    fn bound(
        &self,
        id: ObjectId,
        found: Found,
        _file: Option<OwnedFd>,
        _place: (ObjectId, &Bytes),
    ) -> Result<(), Errno> {
        match self.known.lock().insert(id.0, Arc::new(found.path)) {
            None => Ok(()),
            Some(_) => Err(Errno::EXIST),
        }
    }

    fn unbound(&self, id: ObjectId) {
        self.known.lock().remove(&id.0);
    }

    fn renamed(&self, _id: ObjectId, _from: Option<(ObjectId, &Bytes)>, _to: Option<(ObjectId, &Bytes)>) {}
}
