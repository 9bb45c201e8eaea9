//! The source's session as the resync sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use safe_replication::dirty::Object;
use safe_replication::key;
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op};

use crate::backing::mode_of;
use crate::keys::Guard;
use crate::knowledge::Stage;
use crate::node::Node;
use crate::operation::Engine;
use crate::resync::link::{Answer, Failure, Held, Key, Link, Query};
use crate::session::Session;

/// Most operations of one submission under way: bounds the memory that they take.
const WINDOW: usize = 64;

/// One resync's way to the target.
pub struct Source<'a> {
    /// Whose files are the source.
    pub engine: &'a Engine,
    /// The session.
    pub session: &'a Arc<Session>,
    /// Everything is held by this resync: it must not queue for a part behind an operation that waits for it.
    holds_everything: AtomicBool,
}

struct Locked<'a> {
    _guard: Option<Guard<'a>>,
    // Set to false when everything is given back.
    everything: Option<&'a AtomicBool>,
    // A node that the kernel forgets must not come back under another id while its keys are held by this one.
    _nodes: Vec<Arc<Node>>,
}

impl Held for Locked<'_> {}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(everything) = self.everything {
            everything.store(false, Ordering::Release);
        }
    }
}

impl<'a> Source<'a> {
    /// Of this session.
    #[must_use]
    pub const fn new(engine: &'a Engine, session: &'a Arc<Session>) -> Self {
        Self { engine, session, holds_everything: AtomicBool::new(false) }
    }
}

impl Source<'_> {
    fn node(&self, object: &Object) -> Arc<Node> {
        self.engine.nodes.remember(object.clone(), None, false)
    }

    fn bind_id(&self, id: ObjectId, parent: ObjectId, name: &[u8], kind: Kind) -> Result<(), Failure> {
        let bind = Op::Bind { id, parent, name: Bytes::copy_from_slice(name), kind: mode_of(kind) };
        // Waited for, unlike when the application binds: what the target has at the name is not known to be right.
        self.submit(vec![bind])
    }

    fn key(&self, key: &Key, nodes: &mut Vec<Arc<Node>>) -> key::Key {
        let mut id = |object: &Object| {
            let node = self.node(object);
            let id = node.id.0;
            nodes.push(node);
            id
        };
        match key {
            Key::Data { object, from, to } => key::Key::range(id(object), *from, *to),
            Key::Meta { object } => key::Key::meta(id(object)),
            Key::Name { dir, name } => key::Key::name(id(dir), name),
            Key::Names { dir } => key::Key::names(id(dir)),
            Key::Everything => key::Key::everything(),
        }
    }
}

impl Link for Source<'_> {
    fn query(&self, query: Query) -> Result<Answer, Failure> {
        let (_, waiter) = self.session.ask(query)?;
        waiter.wait()?.ok_or_else(|| Failure::Lost("an answer without content".into()))
    }

    fn submit(&self, ops: Vec<Op>) -> Result<(), Failure> {
        let mut failed = None;
        for window in ops.chunks(WINDOW) {
            let mut sent = Vec::with_capacity(window.len());
            for op in window {
                match self.session.queue(op, &[]) {
                    Ok(waiting) => sent.push(waiting),
                    Err(failure) => {
                        failed.get_or_insert(failure);
                        break;
                    }
                }
            }
            self.session.flush();
            for ((number, waiter), op) in sent.into_iter().zip(window) {
                match (waiter.wait(), op) {
                    (Err(failure), _) => {
                        failed.get_or_insert(failure);
                    }
                    (Ok(_), Op::Create { id, .. }) => {
                        if let Ok(node) = self.engine.nodes.get(*id) {
                            self.engine.set_bound(self.session, &node);
                        }
                    }
                    (Ok(_), _) => {}
                }
                // The source's copy is what it is: nothing is to be carried out here.
                self.session.carried_out(number);
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        Ok(())
    }

    fn lock(&self, keys: &[Key]) -> Box<dyn Held + '_> {
        // All at once, so that there is no deadlock.
        let mut nodes = Vec::new();
        let all = keys.contains(&Key::Everything);
        let keys: Vec<key::Key> = keys.iter().map(|key| self.key(key, &mut nodes)).collect();
        if self.holds_everything.load(Ordering::Acquire) {
            return Box::new(Locked { _guard: None, everything: None, _nodes: nodes });
        }
        let guard = Some(self.engine.locks.hold(&keys));
        if all {
            self.holds_everything.store(true, Ordering::Release);
        }
        let everything = all.then_some(&self.holds_everything);
        Box::new(Locked { _guard: guard, everything, _nodes: nodes })
    }

    fn bound(&self, object: &Object) -> Option<ObjectId> {
        let node = self.engine.nodes.find(object)?;
        self.engine.is_bound(self.session, &node).then_some(node.id)
    }

    fn id(&self, object: &Object) -> ObjectId {
        self.node(object).id
    }

    fn fresh(&self) -> ObjectId {
        self.engine.nodes.fresh_id()
    }

    fn bind(&self, parent: ObjectId, name: &[u8], object: &Object) -> Result<ObjectId, Failure> {
        let node = self.node(object);
        if !self.engine.is_bound(self.session, &node) {
            self.bind_id(node.id, parent, name, object.kind)?;
            self.engine.set_bound(self.session, &node);
        }
        Ok(node.id)
    }

    fn adopt(&self, parent: ObjectId, name: &[u8], kind: Kind) -> Result<ObjectId, Failure> {
        let id = self.fresh();
        self.bind_id(id, parent, name, kind)?;
        Ok(id)
    }

    fn forget(&self, ids: &[ObjectId]) {
        // While names may differ nothing of the application goes by ids: what the kernel still uses is named again later,
        // for what it means on the target may be gone by then.
        let apart = self.engine.knowledge.stage() == Stage::Apart;
        for id in ids {
            let node = self.engine.nodes.get(*id).ok();
            let known = node.as_ref().is_none_or(|node| self.engine.is_bound(self.session, node));
            if apart && known && id.0 > u64::from(u16::MAX) {
                if let Ok((number, _)) = self.session.send(&Op::Unbind { id: *id }, &[]) {
                    self.session.carried_out(number);
                }
                // Afterwards: else it could be bound anew before the other node hears that it is not.
                if let Some(node) = &node {
                    node.bound.store(0, Ordering::Release);
                }
            }
            if let Some(node) = node {
                self.engine.nodes.release(node);
            }
        }
    }

    fn waiting(&self) -> usize {
        self.engine.locks.waiting()
    }
}

#[cfg(test)]
mod tests {
    use safe_proto::replication::Directory;
    use safe_replication::key::Keys;

    use super::*;
    use crate::knowledge::Knowledge;
    use crate::node::Nodes;
    use crate::session::{Carrier, SessionName, Waiter};
    use crate::state::State;

    /// Carries nothing.
    #[derive(Debug)]
    struct Nowhere;

    impl Carrier for Nowhere {
        fn queue(&self, _frame: safe_proto::replication::Frame) -> bool {
            true
        }

        fn flush(&self) {}

        fn hurry(&self) {}

        fn wait_for(&self, waiter: &Arc<Waiter>) {
            waiter.sleep_for_result();
        }
    }

    struct Scene {
        _place: tempfile::TempDir,
        engine: Engine,
        root: Object,
        session: Arc<Session>,
    }

    fn scene() -> Scene {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().display().to_string();
        let directory = Directory { path, exclude: Vec::new(), ack_disk: false, write_back: false };
        let backing = crate::prepare::open(&[directory]).expect("usable");
        let root = backing.roots[0].object.clone();
        let nodes = Arc::new(Nodes::new(backing));
        let knowledge = Arc::new(Knowledge::new(place.path()));
        let engine = Engine::new(nodes, State::new(), knowledge, Arc::default());
        let session = Session::new(1, SessionName { first: 1, second: 2 }, Arc::new(Nowhere));
        Scene { _place: place, engine, root, session }
    }

    #[test]
    fn an_id_that_was_bound_is_unknown_once_names_differ_again_in_the_same_session() {
        let Scene { engine, session, .. } = &scene();
        let source = Source::new(engine, session);
        let knowledge = &engine.knowledge;
        assert!(knowledge.take_names().is_none(), "all names are equal");
        let object = Object::new(0, Kind::File, &[1]);
        let node = source.node(&object);
        engine.set_bound(session, &node);
        assert_eq!(source.bound(&object), Some(node.id));
        // The resync has to compare everything: the target's object of that name may be replaced.
        knowledge.mark(&[safe_replication::dirty::Change::Everything]).expect("no journal");
        assert!(knowledge.take_names().is_some());
        assert_eq!(source.bound(&object), None);
        knowledge.end_names(true).expect("no journal");
        assert!(knowledge.take_names().is_none(), "and equal again");
        assert_eq!(source.bound(&object), None, "the name has to be looked up again");
        engine.set_bound(session, &node);
        assert_eq!(source.bound(&object), Some(node.id));
    }

    #[test]
    fn who_holds_everything_does_not_queue_behind_those_who_wait_for_it() {
        let Scene { engine, root, session, .. } = &scene();
        let source = Source::new(engine, session);
        let name = Key::Name { dir: root.clone(), name: Bytes::from_static(b"n") };
        std::thread::scope(|scope| {
            let everything = source.lock(&[Key::Everything]);
            let waiter = scope.spawn(|| {
                let mut keys = Keys::of(&[key::Key::name(1, b"n")]);
                keys.push_any();
                drop(engine.locks.hold(keys.as_slice()));
            });
            while engine.locks.waiting() == 0 {
                std::thread::yield_now();
            }
            drop(source.lock(std::slice::from_ref(&name)));
            assert!(!waiter.is_finished());
            drop(everything);
            waiter.join().expect("it goes on");
        });
        // Afterwards a part is held by itself again.
        let held = source.lock(&[name]);
        assert!(!source.holds_everything.load(Ordering::Acquire));
        drop(held);
    }
}
