//! What a target knows to be in flight, told by path, since its handles mean nothing to the source.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::dirty::{Change, DirtySet, Object, Place};

use super::link::{Answer, Located, Query, What};
use super::names::names_of;
use super::{Resync, Step, Trouble, local};
use crate::backing::{Backing, Root, attributes};

/// Most of them in one answer.
pub const LOCATED_LIMIT: usize = 1024;

/// A set of this node's as paths. What cannot be found counts as everything.
#[must_use]
pub fn export(set: &DirtySet, backing: &Backing) -> Vec<Located> {
    match try_export(set, backing) {
        Ok(known) => known,
        Err(errno) => {
            tracing::warn!(%errno, "what was in flight cannot be found, everything is compared");
            vec![Located { root: 0, path: Vec::new(), what: What::Everything }]
        }
    }
}

fn try_export(set: &DirtySet, backing: &Backing) -> Result<Vec<Located>, Errno> {
    if set.is_everything() {
        return Err(Errno::NOENT);
    }
    let mut paths: BTreeMap<Object, Vec<Vec<Bytes>>> = BTreeMap::new();
    for root in backing.roots.iter() {
        paths.append(&mut paths_of(set, root)?);
    }
    let mut known = Vec::new();
    for change in set.changes() {
        let (object, what, name) = match &change {
            Change::Data { object, offset, len } => (object, What::Data { offset: *offset, len: *len }, None),
            Change::Meta { object } => (object, What::Meta, None),
            Change::Name { dir, name, deep } => (dir, What::Name { deep: *deep }, Some(name)),
            Change::Names { dir, deep } => (dir, What::Names { deep: *deep }, None),
            Change::Tree { dir } => (dir, What::Tree, None),
            Change::Everything | Change::Place { .. } => continue,
        };
        if usize::from(object.root) >= backing.roots.len() {
            return Err(Errno::INVAL);
        }
        for path in paths.get(object).into_iter().flatten() {
            let mut path = path.clone();
            path.extend(name.map(|name| Bytes::copy_from_slice(name)));
            known.push(Located { root: object.root, path, what });
        }
    }
    Ok(known)
}

/// The paths of all objects of the set; of one with several names all, since the other side may know it only under one
/// of them. An object that is gone has none: its name has a mark of its own.
fn paths_of(set: &DirtySet, root: &Root) -> Result<BTreeMap<Object, Vec<Vec<Bytes>>>, Errno> {
    let mut paths = BTreeMap::new();
    let mut wanted = Vec::new();
    let mut after = None;
    while let Some((object, marks)) = set.next(after) {
        after = Some(object);
        if object.root != root.index {
            continue;
        }
        let open = match root.open_path(object) {
            Ok(open) => open,
            Err(Errno::STALE | Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        if object.kind.is_directory() {
            paths.insert(object.clone(), local::path_beneath(root, open.as_fd())?.into_iter().collect());
            continue;
        }
        let links = attributes(open.as_fd())?.nlink;
        match marks.place.as_ref().map(|place| path_at(root, place, object)) {
            Some(Ok(Some(path))) if links == 1 => drop(paths.insert(object.clone(), vec![path])),
            _ if links > 0 => wanted.push(object.clone()),
            _ => {}
        }
    }
    if wanted.is_empty() {
        return Ok(paths);
    }
    let mut found = names_of(root, &wanted, &|| false)?;
    for object in wanted {
        let names = found.remove(&object).ok_or(Errno::NOENT)?;
        let joined = names.into_iter().map(|(mut path, name)| {
            path.push(name);
            path
        });
        paths.insert(object, joined.collect());
    }
    Ok(paths)
}

/// The object's path, if it is still at its place.
fn path_at(root: &Root, place: &Place, object: &Object) -> Result<Option<Vec<Bytes>>, Errno> {
    let dir = root.open_path(&place.dir)?;
    if root.look_up(dir.as_fd(), &place.name)?.object != *object {
        return Ok(None);
    }
    Ok(local::path_beneath(root, dir.as_fd())?.map(|mut path| {
        path.push(Bytes::copy_from_slice(&place.name));
        path
    }))
}

/// Marks here what the target knows to be in flight.
pub(super) fn import(resync: &Resync<'_>) -> Step<()> {
    let mut after = 0;
    loop {
        let (known, end) = match resync.link.query(Query::InFlight { after })? {
            Answer::InFlight { known, end } => (known, end),
            Answer::Entries { .. } | Answer::Digests(_) | Answer::Xattrs(_) | Answer::Room(_) => {
                return Err(super::page::unexpected());
            }
        };
        after += known.len() as u64;
        let last = end || known.is_empty();
        for located in known {
            let changes = changes_of(resync, &located)?;
            resync.mark(&changes)?;
        }
        if last {
            return Ok(());
        }
    }
}

fn changes_of(resync: &Resync<'_>, located: &Located) -> Step<Vec<Change>> {
    if located.what == What::Everything {
        return Ok(vec![Change::Everything]);
    }
    let root = resync.root(located.root)?;
    let failed = |errno| Trouble::local(&local::display(root, &located.path), errno);
    // The deepest directory of the path that exists here.
    let Some((last, above)) = located.path.split_last() else {
        return Ok(of_object(&root.object, located.what));
    };
    let mut depth = above.len();
    let dir = loop {
        if let Some(dir) = resync.open_dir(root, above[..depth].to_vec())? {
            break dir;
        }
        if depth == 0 {
            return Err(Trouble::Failed(format!("{} is gone", root.path.display())));
        }
        depth -= 1;
    };
    if depth < above.len() {
        return Ok(vec![Change::Name { dir: dir.object, name: above[depth][..].into(), deep: true }]);
    }
    let name: Box<[u8]> = last[..].into();
    let as_name = |deep| vec![Change::Name { dir: dir.object.clone(), name: name.clone(), deep }];
    if let What::Name { deep } = located.what {
        return Ok(as_name(deep));
    }
    match root.look_up(dir.open.as_fd(), last) {
        Ok(found) => {
            let fits = match located.what {
                What::Data { .. } => safe_replication::diff::has_content(found.object.kind),
                What::Names { .. } | What::Tree => found.object.kind.is_directory(),
                What::Meta | What::Name { .. } | What::Everything => true,
            };
            if !fits {
                return Ok(as_name(true));
            }
            let mut changes = of_object(&found.object, located.what);
            if !found.object.kind.is_directory() {
                changes.push(Change::Place { object: found.object, dir: dir.object, name });
            }
            Ok(changes)
        }
        Err(Errno::NOENT | Errno::STALE) => Ok(as_name(true)),
        Err(errno) => Err(failed(errno)),
    }
}

fn of_object(object: &Object, what: What) -> Vec<Change> {
    let object = object.clone();
    vec![match what {
        What::Data { offset, len } => Change::Data { object, offset, len },
        What::Meta | What::Name { .. } => Change::Meta { object },
        What::Names { deep } => Change::Names { dir: object, deep },
        What::Tree => Change::Tree { dir: object },
        What::Everything => Change::Everything,
    }]
}
