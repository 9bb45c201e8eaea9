//! The source's session as the resync sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use safe_replication::dirty::Object;
use safe_replication::key;
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op};

use crate::backing::mode_of;
use crate::keys::Guard;
use crate::knowledge::Stage;
use crate::node::Node;
use crate::operation::{Engine, is_bound};
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
}

struct Locked<'a> {
    _guard: Guard<'a>,
    // A node that the kernel forgets must not come back under another id while its keys are held by this one.
    _nodes: Vec<Arc<Node>>,
}

impl Held for Locked<'_> {}

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
                match self.session.send(op, &[]) {
                    Ok(waiting) => sent.push(waiting),
                    Err(failure) => {
                        failed.get_or_insert(failure);
                        break;
                    }
                }
            }
            for ((number, waiter), op) in sent.into_iter().zip(window) {
                match (waiter.wait(), op) {
                    (Err(failure), _) => {
                        failed.get_or_insert(failure);
                    }
                    (Ok(_), Op::Create { id, .. }) => {
                        if let Ok(node) = self.engine.nodes.get(*id) {
                            node.bound.store(self.session.serial, Ordering::Release);
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
        let keys: Vec<key::Key> = keys.iter().map(|key| self.key(key, &mut nodes)).collect();
        Box::new(Locked { _guard: self.engine.locks.hold(&keys), _nodes: nodes })
    }

    fn bound(&self, object: &Object) -> Option<ObjectId> {
        let node = self.engine.nodes.find(object)?;
        is_bound(self.session, &node).then_some(node.id)
    }

    fn id(&self, object: &Object) -> ObjectId {
        self.node(object).id
    }

    fn fresh(&self) -> ObjectId {
        self.engine.nodes.fresh_id()
    }

    fn bind(&self, parent: ObjectId, name: &[u8], object: &Object) -> Result<ObjectId, Failure> {
        let node = self.node(object);
        if !is_bound(self.session, &node) {
            self.bind_id(node.id, parent, name, object.kind)?;
            node.bound.store(self.session.serial, Ordering::Release);
        }
        Ok(node.id)
    }

    fn adopt(&self, parent: ObjectId, name: &[u8]) -> Result<ObjectId, Failure> {
        let id = self.fresh();
        self.bind_id(id, parent, name, Kind::Directory)?;
        Ok(id)
    }

    fn forget(&self, ids: &[ObjectId]) {
        // While names may differ nothing of the application goes by ids: what the kernel still uses is named again later,
        // for what it means on the target may be gone by then.
        let apart = self.engine.knowledge.stage() == Stage::Apart;
        for id in ids {
            let node = self.engine.nodes.get(*id).ok();
            let known = node.as_ref().is_none_or(|node| is_bound(self.session, node));
            if apart && known && id.0 > u64::from(u16::MAX) {
                if let Some(node) = &node {
                    node.bound.store(0, Ordering::Release);
                }
                if let Ok((number, _)) = self.session.send(&Op::Unbind { id: *id }, &[]) {
                    self.session.carried_out(number);
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
