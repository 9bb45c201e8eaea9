//! The stream of the other node.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use safe_proto::replication::{Frame, Result as Reply, frame};
use safe_replication::op::ObjectId;
use safe_replicator::line::frame::{Assembler, encode};
use safe_replicator::resync::link::{DigestOf, Query};
use safe_replicator::wire;

/// The bytes as a stream in pieces, and as the message of one frame.
pub fn check(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let (mut assembler, mut frames) = (Assembler::default(), VecDeque::new());
    for piece in stream.chunks(usize::from(*step).max(1)) {
        if assembler.take(piece, &mut frames).is_err() {
            break;
        }
    }
    frames.into_iter().for_each(read);
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(data)) {
        read(frame);
    }
}

fn read(frame: Frame) {
    match frame.kind {
        Some(frame::Kind::Operation(operation)) => {
            if let Ok((number, watermark, op)) = wire::parse_operation(operation) {
                let sent = wire::operation(number, watermark, &op);
                let again = through_the_stream(frame::Kind::Operation(sent));
                let Some(frame::Kind::Operation(again)) = again.kind else { panic!("another kind of frame") };
                assert_eq!(
                    wire::parse_operation(again),
                    Ok((number, watermark, op)),
                    "sent again it is the same"
                );
            }
        }
        Some(frame::Kind::Question(question)) => {
            if let Ok((number, query)) = wire::parse_question(question) {
                drop(wire::objects(&query));
                let again = wire::parse_question(wire::question(&query).numbered(number));
                assert_eq!(again, Ok((number, query)), "asked again it is the same");
            }
        }
        Some(frame::Kind::Result(result)) => answers(&result),
        Some(frame::Kind::Hello(_) | frame::Kind::KeepAlive(_) | frame::Kind::Refusal(_)) | None => {}
    }
}

/// As the answer to each kind of question.
fn answers(result: &Reply) {
    let (dir, name) = (ObjectId(70_000), Bytes::from_static(b"name"));
    let of = DigestOf { dir, name: name.clone(), first: 0, count: 4, whole: false };
    let questions = [
        Query::List { dir, after: Bytes::new(), limit: 16 },
        Query::Entries { dir, names: vec![name] },
        Query::Own { id: dir },
        Query::Digests(vec![of]),
        Query::Xattrs { id: dir },
        Query::InFlight { after: 0 },
        Query::Room { most: Vec::new(), least: Vec::new() },
    ];
    drop(wire::result(result.clone(), None));
    for question in &questions {
        drop(wire::result(result.clone(), Some(question)));
    }
}

fn through_the_stream(kind: frame::Kind) -> Frame {
    let sent = encode(Frame { kind: Some(kind) });
    let (mut assembler, mut frames) = (Assembler::default(), VecDeque::new());
    for part in [&sent.message[..], &sent.content[..]] {
        assembler.take(part, &mut frames).expect("what was sent is a frame");
    }
    frames.pop_front().expect("and it is whole")
}
