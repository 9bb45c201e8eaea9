//! What an operation makes different, in terms of this node's own objects.

use safe_replication::dirty::{Change, Object};
use safe_replication::object::Kind;
use safe_replication::op::{ObjectId, Op, RenameMode};

use crate::backing::kind_of;
use crate::node::Nodes;
use crate::search::search;

/// The changes of an operation. An object without a node here is gone and needs no mark of its own: the mark on its
/// name says enough.
#[must_use]
pub fn changes(op: &Op, nodes: &Nodes) -> Vec<Change> {
    let object = |id: ObjectId| nodes.get(id).ok().map(|node| node.object.clone());
    let mut changes = Vec::with_capacity(3);
    match op {
        Op::Write { id, offset, data, mode, .. } => {
            content(&mut changes, object(*id), *offset, data.len() as u64, mode.is_some());
        }
        Op::Allocate { id, offset, length, mode, .. } | Op::Copy { id, offset, length, mode, .. } => {
            content(&mut changes, object(*id), *offset, *length, mode.is_some());
        }
        Op::Truncate { id, size, mode, .. } => {
            content(&mut changes, object(*id), *size, u64::MAX - size, mode.is_some());
        }
        // What has no name is not missed.
        Op::Create { name, .. } if name.is_empty() => {}
        Op::Create { parent, name, mode, .. } => {
            let deep = kind_of(*mode) == Ok(Kind::Directory);
            changes.extend(object(*parent).map(|dir| name_in(dir, name, deep)));
        }
        Op::Unlink { parent, name, directory, .. } => {
            changes.extend(object(*parent).map(|dir| name_in(dir, name, *directory)));
        }
        Op::Link { id, parent, name, .. } => {
            changes.extend(object(*parent).map(|dir| name_in(dir, name, false)));
            changes.extend(place(object(*id), object(*parent), name));
        }
        Op::Rename { id, parent, name, new_parent, new_name, how, .. } => {
            // What is moved may be a directory, and with it what is replaced: everything below belongs to it. Of two
            // that are exchanged, either.
            let moved = object(*id);
            let deep =
                *how == RenameMode::Exchange || moved.as_ref().is_none_or(|moved| moved.kind.is_directory());
            changes.extend(object(*parent).map(|dir| name_in(dir, name, deep)));
            changes.extend(object(*new_parent).map(|dir| name_in(dir, new_name, deep)));
            // If its content differs, it is found there from now on.
            changes.extend(place(moved, object(*new_parent), new_name));
        }
        Op::SetMeta { id, .. } | Op::SetXattr { id, .. } | Op::RemoveXattr { id, .. } => {
            changes.extend(object(*id).map(|object| Change::Meta { object }));
        }
        Op::Bind { .. } | Op::Unbind { .. } | Op::Sync { .. } | Op::SyncAll { .. } => {}
    }
    changes
}

/// What is recorded of it: as above, but what is made in a directory that was just made has records of its own.
#[must_use]
pub fn recorded(op: &Op, changes: &[Change]) -> Vec<Change> {
    let mut recorded = changes.to_vec();
    if matches!(op, Op::Create { .. }) {
        for change in &mut recorded {
            if let Change::Name { deep, .. } = change {
                *deep = false;
            }
        }
    }
    recorded
}

fn content(changes: &mut Vec<Change>, object: Option<Object>, offset: u64, len: u64, meta: bool) {
    let Some(object) = object else { return };
    if meta {
        changes.push(Change::Meta { object: object.clone() });
    }
    changes.push(Change::Data { object, offset, len });
}

fn name_in(dir: Object, name: &[u8], deep: bool) -> Change {
    Change::Name { dir, name: name.into(), deep }
}

fn place(object: Option<Object>, dir: Option<Object>, name: &[u8]) -> Option<Change> {
    let (object, dir) = (object.filter(|object| !object.kind.is_directory())?, dir?);
    Some(Change::Place { object, dir, name: name.into() })
}

/// Where the objects of these changes are found, for those that are not directories.
#[must_use]
pub fn places(changes: &[Change], nodes: &Nodes) -> Vec<Change> {
    let mut places = Vec::new();
    for change in changes {
        let (Change::Data { object, .. } | Change::Meta { object }) = change else { continue };
        let Some(node) = nodes.find(object).filter(|node| !node.is_directory()) else { continue };
        if node.places().is_empty()
            && let Err(error) = search(nodes, &node)
        {
            tracing::warn!(%error, ?object, "cannot look for the name of an object that changes");
        }
        let place =
            node.places().into_iter().find_map(|(parent, name)| Some((nodes.get(parent).ok()?, name)));
        if let Some((parent, name)) = place {
            let (object, dir, name) = (object.clone(), parent.object.clone(), name.as_ref().into());
            places.push(Change::Place { object, dir, name });
        }
    }
    places
}
