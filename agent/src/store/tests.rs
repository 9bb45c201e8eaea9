use super::*;
use safe_failover::lineage::{HISTORY_LIMIT, LineageId};

fn state(serial: u64) -> HardState {
    let mut state = HardState { serial, term: serial * 2, ..HardState::default() };
    state.lineage.current = Some(LineageId(u128::MAX - u128::from(serial)));
    state.lineage.history = vec![LineageId(u128::MAX); HISTORY_LIMIT];
    state
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    Store::create(&path, &state(0)).unwrap();
    (dir, path)
}

fn damage(path: &Path, at: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"damage", at).unwrap();
}

#[test]
fn the_last_persisted_state_counts() {
    let (_dir, path) = fresh();
    for serial in 1..6 {
        let (mut store, before) = Store::open(&path).unwrap();
        assert_eq!(before, state(serial - 1));
        store.persist(&state(serial)).unwrap();
        assert_eq!(Store::open(&path).unwrap().1, state(serial));
    }
}

#[test]
fn a_torn_slot_leaves_the_other() {
    let (_dir, path) = fresh();
    let (mut store, _) = Store::open(&path).unwrap();
    store.persist(&state(1)).unwrap();
    store.persist(&state(2)).unwrap();
    // Serial 2 went to slot 0, over the first state.
    damage(&path, 40);
    let (mut store, found) = Store::open(&path).unwrap();
    assert_eq!(found, state(1));
    store.persist(&state(3)).unwrap();
    assert_eq!(Store::open(&path).unwrap().1, state(3));
}

#[test]
fn both_slots_damaged_is_lost_and_not_fresh() {
    let (_dir, path) = fresh();
    damage(&path, 40);
    damage(&path, SLOT_LEN as u64 + 1);
    assert!(matches!(Store::open(&path), Err(StoreError::Lost { .. })));
    // Nor is it made anew.
    Store::create(&path, &state(9)).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Lost { .. })));
}

#[test]
fn a_later_format_is_not_touched() {
    let (_dir, path) = fresh();
    let mut bytes = Slot::encode(&state(7)).unwrap();
    let json_len = usize::try_from(u32::from_le_bytes(bytes[12..16].try_into().unwrap())).unwrap();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&2_u32.to_le_bytes());
    hasher.update(&(json_len as u64).to_le_bytes());
    hasher.update(&bytes[20..20 + json_len]);
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    bytes[16..20].copy_from_slice(&hasher.finalize().to_le_bytes());
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&bytes, SLOT_LEN as u64).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Later { format: 2, .. })));
}

#[test]
fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = fresh();
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Needs root: a small filesystem filled to the last byte.
#[test]
fn a_full_disk_does_not_stop_it() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("small");
    std::fs::create_dir(&point).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("small", &point, "tmpfs", flags, Some(c"size=64k")).is_err() {
        return;
    }
    let path = point.join("state");
    Store::create(&path, &state(0)).unwrap();
    let (mut store, _) = Store::open(&path).unwrap();
    let mut filler = File::create(point.join("filler")).unwrap();
    while filler.write_all(&[7; 4096]).is_ok() {}
    let first = store.persist(&state(1));
    let second = store.persist(&state(2));
    let found = Store::open(&path).map(|(_, state)| state);
    drop((filler, store));
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    first.unwrap();
    second.unwrap();
    assert_eq!(found.unwrap(), state(2));
}
