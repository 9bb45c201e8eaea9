//! Questions of the resync and their answers.

use bytes::Bytes;
use safe_proto::replication as proto;
use safe_proto::replication::question as message;
use safe_proto::replication::result as reply;
use safe_replication::op::{Number, ObjectId};
use safe_replication::room::Load;
use safe_replication::tree::Entry;

use super::{Malformed, id, name, range, time};
use crate::backing::{kind_of, mode_of};
use crate::resync::link::{
    Answer, DIGEST_LIMIT, DigestOf, Digests, Failure, LIST_LIMIT, Leave, Located, Query, What,
};

/// A question that has no number yet.
#[derive(Debug)]
pub struct Unnumbered(message::Question);

impl Unnumbered {
    /// With its number.
    #[must_use]
    pub fn numbered(self, number: Number) -> proto::Question {
        proto::Question { number: number.0, question: Some(self.0) }
    }
}

/// A question as a frame.
#[must_use]
pub fn question(query: &Query) -> Unnumbered {
    use message::Question as Wire;
    Unnumbered(match query {
        Query::List { dir, after, limit } => {
            Wire::List(message::List { dir: dir.0, after: after.clone(), limit: *limit })
        }
        Query::Entries { dir, names } => Wire::Entries(message::Entries { dir: dir.0, names: names.clone() }),
        Query::Own { id } => Wire::Own(id.0),
        Query::Digests(of) => Wire::Digests(message::Digests {
            of: of
                .iter()
                .map(|of| message::DigestOf {
                    dir: of.dir.0,
                    name: of.name.clone(),
                    first: of.first,
                    count: of.count,
                    whole: of.whole,
                })
                .collect(),
        }),
        Query::Xattrs { id } => Wire::Xattrs(id.0),
        Query::InFlight { after } => Wire::InFlight(*after),
        Query::Room { most, least } => {
            Wire::Room(message::Room { most: encode_loads(most), least: encode_loads(least) })
        }
    })
}

/// Checks a question.
///
/// # Errors
/// See [`Malformed`].
pub fn parse_question(frame: proto::Question) -> Result<(Number, Query), Malformed> {
    use message::Question as Wire;
    if frame.number == 0 {
        return Err(Malformed("number of a question"));
    }
    let query = match frame.question.ok_or(Malformed("question without content"))? {
        Wire::List(m) => {
            let within = m.limit >= 1 && m.limit as usize <= LIST_LIMIT && m.after.len() <= super::NAME;
            if !within {
                return Err(Malformed("bounds of a list"));
            }
            Query::List { dir: id(m.dir)?, after: m.after, limit: m.limit }
        }
        Wire::Entries(m) => {
            if m.names.len() > LIST_LIMIT {
                return Err(Malformed("number of names"));
            }
            let names = m.names.into_iter().map(name).collect::<Result<_, _>>()?;
            Query::Entries { dir: id(m.dir)?, names }
        }
        Wire::Own(object) => Query::Own { id: id(object)? },
        Wire::Digests(m) => {
            let count: u64 = m.of.iter().map(|of| u64::from(of.count)).sum();
            if count > DIGEST_LIMIT as u64 || m.of.len() > DIGEST_LIMIT {
                return Err(Malformed("number of digests"));
            }
            let mut of = Vec::with_capacity(m.of.len());
            for one in m.of {
                // Without a name the object itself is meant.
                let name = if one.name.is_empty() { one.name } else { name(one.name)? };
                let (first, count, whole) = (one.first, one.count, one.whole);
                of.push(DigestOf { dir: id(one.dir)?, name, first, count, whole });
            }
            Query::Digests(of)
        }
        Wire::Xattrs(object) => Query::Xattrs { id: id(object)? },
        Wire::InFlight(after) => Query::InFlight { after },
        Wire::Room(m) => Query::Room { most: loads(&m.most)?, least: loads(&m.least)? },
    };
    Ok((Number(frame.number), query))
}

fn encode_loads(loads: &[Load]) -> Vec<message::Load> {
    loads.iter().map(|load| message::Load { bytes: load.bytes, files: load.files }).collect()
}

fn loads(loads: &[message::Load]) -> Result<Vec<Load>, Malformed> {
    if loads.len() > usize::from(u16::MAX) {
        return Err(Malformed("number of directories"));
    }
    Ok(loads.iter().map(|load| Load { bytes: load.bytes, files: load.files }).collect())
}

/// An answer as a frame.
#[must_use]
pub fn answer(number: Number, outcome: Result<Option<Answer>, i32>) -> proto::Result {
    let (errno, answer) = match outcome {
        Ok(answer) => (0, answer.map(encode)),
        // An errno is positive and small; what is none must not look like success.
        Err(errno) => (u32::try_from(errno).ok().filter(|errno| *errno > 0).unwrap_or(5), None),
    };
    proto::Result { number: number.0, errno, answer }
}

fn encode(answer: Answer) -> reply::Answer {
    match answer {
        Answer::Entries { entries, end } => reply::Answer::Entries(reply::EntryList {
            entries: entries.into_iter().map(encode_entry).collect(),
            end,
        }),
        Answer::Digests(files) => reply::Answer::Digests(reply::DigestList {
            files: files
                .into_iter()
                .map(|file| reply::FileDigests { size: file.size, blocks: file.blocks.concat().into() })
                .collect(),
        }),
        Answer::Xattrs(xattrs) => reply::Answer::Xattrs(reply::XattrList {
            xattrs: xattrs.into_iter().map(|(name, value)| reply::Xattr { name, value }).collect(),
        }),
        Answer::InFlight { known, end } => reply::Answer::InFlight(reply::InFlightList {
            known: known.into_iter().map(encode_located).collect(),
            end,
        }),
        Answer::Room(leave) => reply::Answer::Room(match leave {
            Leave::Begin => reply::Leave { count: false, refused: String::new() },
            Leave::Count => reply::Leave { count: true, refused: String::new() },
            Leave::Refused(refused) => reply::Leave { count: false, refused },
        }),
    }
}

fn encode_entry(entry: Entry) -> reply::Entry {
    reply::Entry {
        name: entry.name,
        mode: entry.mode & 0o7777 | mode_of(entry.kind),
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: Some(proto::Time { seconds: entry.mtime.seconds, nanos: entry.mtime.nanos }),
        rdev: entry.rdev,
        links: entry.links,
        inode: entry.inode,
        target: entry.target,
        xattrs: Bytes::copy_from_slice(&entry.xattrs),
    }
}

fn encode_located(located: Located) -> reply::Located {
    use reply::located::What as Wire;
    let what = match located.what {
        What::Data { offset, len } => Wire::Data(reply::Extent { offset, length: len }),
        What::Meta => Wire::Meta(reply::Nothing {}),
        What::Name { deep } => Wire::Name(deep),
        What::Names { deep } => Wire::Names(deep),
        What::Tree => Wire::Tree(reply::Nothing {}),
        What::Everything => Wire::Everything(reply::Nothing {}),
    };
    reply::Located { root: located.root.into(), path: located.path, what: Some(what) }
}

/// Checks the answer to an operation (no query) or to a question.
///
/// # Errors
/// [`Failure::Refused`] as the other side says; [`Failure::Lost`] if the answer is not one to this question.
pub fn result(frame: proto::Result, query: Option<&Query>) -> Result<Option<Answer>, Failure> {
    if frame.errno != 0 {
        return Err(Failure::Refused(i32::try_from(frame.errno).unwrap_or(libc::EIO)));
    }
    let Some(query) = query else { return Ok(None) };
    parse_answer(frame, query).map(Some).map_err(|error| Failure::Lost(error.to_string()))
}

fn parse_answer(frame: proto::Result, query: &Query) -> Result<Answer, Malformed> {
    match (query, frame.answer) {
        (
            Query::List { .. } | Query::Entries { .. } | Query::Own { .. },
            Some(reply::Answer::Entries(list)),
        ) => {
            if list.entries.len() > LIST_LIMIT {
                return Err(Malformed("number of entries"));
            }
            let own = matches!(query, Query::Own { .. });
            let entries =
                list.entries.into_iter().map(|entry| parse_entry(entry, own)).collect::<Result<_, _>>()?;
            Ok(Answer::Entries { entries, end: list.end })
        }
        (Query::Digests(of), Some(reply::Answer::Digests(list))) => {
            if list.files.len() != of.len() {
                return Err(Malformed("number of digests"));
            }
            let files = list.files.into_iter().zip(of).map(parse_digests).collect::<Result<_, _>>()?;
            Ok(Answer::Digests(files))
        }
        (Query::Xattrs { .. }, Some(reply::Answer::Xattrs(list))) => {
            let mut xattrs = Vec::with_capacity(list.xattrs.len().min(1024));
            for xattr in list.xattrs {
                if xattr.value.len() > super::VALUE {
                    return Err(Malformed("length of an extended attribute"));
                }
                xattrs.push((name(xattr.name)?, xattr.value));
            }
            Ok(Answer::Xattrs(xattrs))
        }
        (Query::InFlight { .. }, Some(reply::Answer::InFlight(list))) => {
            let known = list.known.into_iter().map(parse_located).collect::<Result<_, _>>()?;
            Ok(Answer::InFlight { known, end: list.end })
        }
        (Query::Room { .. }, Some(reply::Answer::Room(leave))) => {
            Ok(Answer::Room(match (leave.count, super::clipped(&leave.refused)) {
                (true, _) => Leave::Count,
                (false, why) if why.is_empty() => Leave::Begin,
                (false, why) => Leave::Refused(why),
            }))
        }
        _ => Err(Malformed("kind of answer")),
    }
}

fn parse_entry(entry: reply::Entry, own: bool) -> Result<Entry, Malformed> {
    if entry.target.len() > super::TARGET {
        return Err(Malformed("target of a symbolic link"));
    }
    Ok(Entry {
        name: if own { Bytes::new() } else { name(entry.name)? },
        kind: kind_of(entry.mode).map_err(|_| Malformed("type of an entry"))?,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        mtime: time(entry.mtime)?,
        rdev: entry.rdev,
        links: entry.links,
        inode: entry.inode,
        target: entry.target,
        xattrs: entry.xattrs.as_ref().try_into().map_err(|_| Malformed("digest of extended attributes"))?,
    })
}

fn parse_digests((file, of): (reply::FileDigests, &DigestOf)) -> Result<Digests, Malformed> {
    let (blocks, rest) = file.blocks.as_chunks::<32>();
    let most = if of.whole { 1 } else { of.count as usize };
    if !rest.is_empty() || blocks.len() > most {
        return Err(Malformed("digests of a file"));
    }
    Ok(Digests { size: file.size, blocks: blocks.to_vec() })
}

fn parse_located(located: reply::Located) -> Result<Located, Malformed> {
    use reply::located::What as Wire;
    if located.path.len() > 4096 {
        return Err(Malformed("depth of a path"));
    }
    Ok(Located {
        root: u16::try_from(located.root).map_err(|_| Malformed("index of a directory"))?,
        path: located.path.into_iter().map(name).collect::<Result<_, _>>()?,
        what: match located.what.ok_or(Malformed("change"))? {
            Wire::Data(extent) => {
                if extent.length != u64::MAX - extent.offset {
                    range(extent.offset, extent.length)?;
                }
                What::Data { offset: extent.offset, len: extent.length }
            }
            Wire::Meta(_) => What::Meta,
            Wire::Name(deep) => What::Name { deep },
            Wire::Names(deep) => What::Names { deep },
            Wire::Tree(_) => What::Tree,
            Wire::Everything(_) => What::Everything,
        },
    })
}

/// An object of the target that a question names.
#[must_use]
pub fn objects(query: &Query) -> Vec<ObjectId> {
    match query {
        Query::List { dir: id, .. }
        | Query::Entries { dir: id, .. }
        | Query::Own { id }
        | Query::Xattrs { id } => {
            vec![*id]
        }
        Query::Digests(of) => of.iter().map(|of| of.dir).collect(),
        Query::InFlight { .. } | Query::Room { .. } => Vec::new(),
    }
}
