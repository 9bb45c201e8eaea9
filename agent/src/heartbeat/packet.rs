//! Bodies of heartbeat datagrams: built so that each fits a datagram, read with every bound checked.

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::encoded_len_varint;
use safe_proto::datagram::MAX_BODY;
use safe_proto::peer::{Heartbeat, ModuleView, View};

/// Most views in one datagram.
const MAX_VIEWS: usize = 64;

/// Encodes `head` with as many of `views` as fit, repeated until all are in. At least one body, also without views. A
/// view too large for any datagram is left out and named in the second list.
pub(super) fn bodies(head: &Heartbeat, views: &[(&str, &Arc<View>)]) -> (Vec<Vec<u8>>, Vec<String>) {
    let (mut bodies, mut oversized) = (Vec::new(), Vec::new());
    let bare = head.encoded_len();
    let mut body = head.clone();
    let mut size = bare;
    for (module, view) in views {
        let entry = ModuleView { module: (*module).to_owned(), view: Some(View::clone(view)) };
        let length = entry.encoded_len();
        let length = 1 + encoded_len_varint(length as u64) + length;
        if bare + length > MAX_BODY {
            oversized.push((*module).to_owned());
            continue;
        }
        if size + length > MAX_BODY || body.views.len() >= MAX_VIEWS {
            bodies.push(body.encode_to_vec());
            body = head.clone();
            size = bare;
        }
        body.views.push(entry);
        size += length;
    }
    bodies.push(body.encode_to_vec());
    (bodies, oversized)
}

/// Reads a body.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(body: &[u8]) -> Result<Heartbeat, &'static str> {
    let heartbeat = Heartbeat::decode(body).map_err(|_| "its body is not readable")?;
    let labels = [&heartbeat.from, &heartbeat.to];
    if labels.into_iter().any(|label| safe_proto::settings::label("node", label).is_err()) {
        return Err("its sender or receiver is not a node name");
    }
    if heartbeat.views.len() > MAX_VIEWS {
        return Err("it has too many views");
    }
    if heartbeat.echo.as_ref().is_some_and(|echo| echo.ages_ms.len() > safe_proto::settings::MAX_LANS) {
        return Err("it has too many lans");
    }
    let named = |view: &ModuleView| safe_proto::settings::label("module", &view.module).is_ok();
    if !heartbeat.views.iter().all(named) {
        return Err("it has a view without a module name");
    }
    Ok(heartbeat)
}

#[cfg(test)]
mod tests {
    use safe_proto::peer::{Echo, Lineage};

    use super::*;

    fn head() -> Heartbeat {
        Heartbeat {
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            settings_version: 3,
            echo: Some(Echo { incarnation: 1, counter: 2, ages_ms: vec![3, 4] }),
            ..Heartbeat::default()
        }
    }

    fn view(history: usize) -> Arc<View> {
        let lineage = Lineage { history: vec![1; history * 16], ..Lineage::default() };
        Arc::new(View { lineage: Some(lineage), ..View::default() })
    }

    #[test]
    fn many_views_are_split_and_none_is_lost() {
        let names: Vec<String> = (0..40).map(|number| format!("module-{number}")).collect();
        let views: Vec<_> = names.iter().map(|name| (name.as_str(), view(name.len() % 32))).collect();
        let borrowed: Vec<_> = views.iter().map(|(name, view)| (*name, view)).collect();
        let (bodies, oversized) = bodies(&head(), &borrowed);
        assert!(oversized.is_empty());
        assert!(bodies.iter().all(|body| body.len() <= MAX_BODY));
        let read: Vec<_> =
            bodies.iter().flat_map(|body| read(body).unwrap().views).map(|view| view.module).collect();
        assert_eq!(read, names);
    }

    #[test]
    fn a_view_that_fits_nowhere_is_named() {
        let large = view(100);
        let (bodies, oversized) = bodies(&head(), &[("db", &large)]);
        assert_eq!((bodies.len(), oversized), (1, vec!["db".to_owned()]));
    }

    #[test]
    fn odd_bodies_are_refused() {
        assert!(read(b"\xff\xff").is_err());
        assert!(read(&Heartbeat { to: "n 2".to_owned(), ..head() }.encode_to_vec()).is_err());
        let nameless = ModuleView::default();
        assert!(read(&Heartbeat { views: vec![nameless], ..head() }.encode_to_vec()).is_err());
        assert!(read(&head().encode_to_vec()).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..400)) {
            drop(read(&bytes));
        }
    }
}
