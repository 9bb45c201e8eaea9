//! What a target knows to be in flight, told by path, since its handles mean nothing to the source.

use std::os::fd::AsFd as _;

use bytes::Bytes;
use rustix::io::Errno;
use safe_replication::dirty::{Change, DirtySet, Object};

use super::link::{Answer, Located, Query, What};
use super::{Resync, Step, Trouble, local};
use crate::backing::{Backing, Root};

/// Most of them in one answer.
pub const LOCATED_LIMIT: usize = 1024;

/// A set of this node's as paths. What cannot be found counts as everything.
#[must_use]
pub fn export(set: &DirtySet, backing: &Backing) -> Vec<Located> {
    let everything = || vec![Located { root: 0, path: Vec::new(), what: What::Everything }];
    if set.is_everything() {
        return everything();
    }
    let mut known = Vec::new();
    for change in set.changes() {
        match locate(&change, set, backing) {
            Ok(located) => known.extend(located),
            Err(errno) => {
                tracing::warn!(%errno, "what was in flight cannot be found, everything is compared");
                return everything();
            }
        }
    }
    known
}

/// None: the object is gone, which has a mark of its own.
fn locate(change: &Change, set: &DirtySet, backing: &Backing) -> Result<Option<Located>, Errno> {
    let (object, what, name) = match change {
        Change::Data { object, offset, len } => (object, What::Data { offset: *offset, len: *len }, None),
        Change::Meta { object } => (object, What::Meta, None),
        Change::Name { dir, name, deep } => (dir, What::Name { deep: *deep }, Some(name)),
        Change::Names { dir, deep } => (dir, What::Names { deep: *deep }, None),
        Change::Tree { dir } => (dir, What::Tree, None),
        Change::Everything | Change::Place { .. } => return Ok(None),
    };
    let root = backing.roots.get(usize::from(object.root)).ok_or(Errno::INVAL)?;
    let path = if object.kind.is_directory() {
        path_of(root, object)?
    } else {
        let place = set.get(object).and_then(|marks| marks.place.as_ref());
        match place {
            Some(place) => path_of(root, &place.dir)?.map(|mut path| {
                path.push(Bytes::copy_from_slice(&place.name));
                path
            }),
            None if exists(root, object)? => return Err(Errno::NOENT),
            None => None,
        }
    };
    let with_name = |mut path: Vec<Bytes>| {
        path.extend(name.map(|name| Bytes::copy_from_slice(name)));
        path
    };
    Ok(path.map(|path| Located { root: object.root, path: with_name(path), what }))
}

fn path_of(root: &Root, dir: &Object) -> Result<Option<Vec<Bytes>>, Errno> {
    match root.open_path(dir) {
        Ok(open) => local::path_beneath(root, open.as_fd()),
        Err(Errno::STALE | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn exists(root: &Root, object: &Object) -> Result<bool, Errno> {
    match root.open_path(object) {
        Ok(_) => Ok(true),
        Err(Errno::STALE | Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Marks here what the target knows to be in flight.
pub(super) fn import(resync: &Resync<'_>) -> Step<()> {
    let mut after = 0;
    loop {
        let (known, end) = match resync.link.query(Query::InFlight { after })? {
            Answer::InFlight { known, end } => (known, end),
            Answer::Entries { .. } | Answer::Digests(_) | Answer::Xattrs(_) => {
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
