//! The process is killed while applications work, and another one goes on with its mount: they see a pause.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use safe_proto::replication::attach_request::Command as Order;
use safe_proto::replication::attach_response::Report;
use safe_proto::replication::{Plan, Resume, Resumed};

use crate::node::{Node, connect_fds, lineage, send_fd, until};
use crate::pair::{Pair, assert_equal};

/// Descriptors that the agent keeps, by the words that they came with.
type Descriptors = BTreeMap<Vec<u8>, OwnedFd>;

/// The agent's side of fds.sock.
struct Keeper(JoinHandle<Descriptors>);

impl Keeper {
    fn of(node: &Node) -> Self {
        let socket = connect_fds(&node.place.join("fds.sock")).unwrap();
        Self(std::thread::spawn(move || {
            let mut kept = Descriptors::new();
            while let Some((words, descriptor)) = receive(&socket) {
                match descriptor {
                    Some(descriptor) => kept.insert(words, descriptor),
                    None => kept.remove(&words),
                };
            }
            kept
        }))
    }
}

fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, Option<OwnedFd>)> {
    let mut words = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut words)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut list) => list.next(),
        _ => None,
    });
    (received.bytes > 0).then(|| (words[..received.bytes].to_vec(), descriptor))
}

/// What safed does when a replicator dies that serves.
fn replace(node: &mut Node, keeper: Keeper, accept: &[u128]) -> (Keeper, Resumed) {
    node.kill();
    let kept = keeper.0.join().unwrap();
    node.start();
    node.expect("Adopted", |report| matches!(report, Report::Adopted(_)).then_some(()));
    let socket = connect_fds(&node.place.join("fds.sock")).unwrap();
    for (words, descriptor) in &kept {
        assert!(send_fd(&socket, words, descriptor.as_fd()));
    }
    let files = kept.keys().filter(|words| words[0] == b'P').count() as u32;
    node.order(Order::Resume(Resume { accept: accept.iter().map(|id| lineage(*id)).collect(), files }));
    let resumed = node.expect("Resumed", |report| match report {
        Report::Resumed(resumed) => Some(resumed.clone()),
        Report::Refused(why) => panic!("refused: {why}"),
        _ => None,
    });
    drop(socket);
    (Keeper::of(node), resumed)
}

/// Operations that would not come out the same a second time, each checked at once and again at the end.
struct Application {
    root: PathBuf,
    number: u64,
    appended: u64,
    nameless: File,
    log: File,
}

impl Application {
    fn new(root: &Path, number: u64) -> Self {
        let root = root.join(format!("application {number}"));
        fs::create_dir(&root).unwrap();
        let log = OpenOptions::new().append(true).create_new(true).open(root.join("log")).unwrap();
        let path = root.join("nameless");
        let nameless = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        nameless.write_all_at(b"before", 0).unwrap();
        fs::remove_file(&path).unwrap();
        Self { root, number, appended: 0, nameless, log }
    }

    fn step(&mut self, step: u64) {
        let at = |name: &str| self.root.join(format!("{name}-{}", step % 5));
        let content = format!("{}-{step}", self.number);
        let mut file = OpenOptions::new().write(true).create_new(true).open(at("new")).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        fs::rename(at("new"), at("moved")).unwrap();
        assert!(!at("new").exists());
        fs::hard_link(at("moved"), at("linked")).unwrap();
        assert_eq!(fs::metadata(at("linked")).unwrap().nlink(), 2);
        assert_eq!(fs::read_to_string(at("linked")).unwrap(), content);
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            at("linked"),
            rustix::fs::CWD,
            self.root.join("log"),
            rustix::fs::RenameFlags::EXCHANGE,
        )
        .unwrap();
        fs::rename(at("linked"), self.root.join("log")).unwrap();
        rustix::fs::setxattr(at("moved"), "user.one", b"1", rustix::fs::XattrFlags::CREATE).unwrap();
        rustix::fs::removexattr(at("moved"), "user.one").unwrap();
        fs::remove_file(at("moved")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        std::os::unix::fs::symlink("target", at("directory").join("link")).unwrap();
        assert!(fs::remove_dir(at("directory")).is_err(), "not empty");
        fs::remove_file(at("directory").join("link")).unwrap();
        fs::remove_dir(at("directory")).unwrap();
        writeln!(self.log, "{step}").unwrap();
        self.appended = step + 1;
        let text = format!("{step:>20}");
        self.nameless.write_all_at(text.as_bytes(), 4096).unwrap();
        let mut back = [0; 20];
        self.nameless.read_exact_at(&mut back, 4096).unwrap();
        assert_eq!(&back, text.as_bytes());
    }

    fn check(&mut self) {
        let wanted: String = (0..self.appended).map(|step| format!("{step}\n")).collect();
        assert_eq!(fs::read_to_string(self.root.join("log")).unwrap(), wanted, "appended once each");
        let mut names: Vec<_> =
            fs::read_dir(&self.root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log"]);
        let mut text = String::new();
        self.nameless.rewind().unwrap();
        self.nameless.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("before"));
    }
}

/// Runs applications in the mount while `disturb` does its worst.
fn under_load(root: &Path, disturb: impl FnOnce(&AtomicU64)) {
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (stop, steps) = (&stop, &steps);
                scope.spawn(move || {
                    let _ended = Ended(stop);
                    let mut application = Application::new(root, number);
                    let mut step = 0;
                    while !stop.load(Ordering::Acquire) {
                        application.step(step);
                        step += 1;
                        steps.fetch_add(1, Ordering::AcqRel);
                    }
                    application.check();
                })
            })
            .collect();
        let ended = Ended(&stop);
        disturb(&steps);
        drop(ended);
        for thread in threads {
            thread.join().expect("an application saw an error");
        }
    });
}

const ROOT: &str = "SAFED_APPLICATIONS_IN";

/// The same in a process of its own. To close a file may take a replicator, where the kernel keeps what was written: one
/// that inherits the file, to close it as its first act, would wait for itself.
fn in_another_process(root: &Path, disturb: impl FnOnce(&AtomicU64)) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survive::applications_of_another_test", "--ignored", "--nocapture"])
        .env(ROOT, root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (steps, stdin) = (AtomicU64::new(0), child.stdin.take());
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in lines.map_while(Result::ok) {
                match line.parse() {
                    Ok(count) => steps.store(count, Ordering::Release),
                    Err(_) => println!("{line}"),
                }
            }
        });
        // Dropped also when this panics: then they end as well.
        let stdin = stdin;
        disturb(&steps);
        drop(stdin);
        assert!(child.wait().unwrap().success(), "an application saw an error");
    });
}

#[test]
#[ignore = "a part of another test, in a process of its own"]
fn applications_of_another_test() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let (over, said) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let _end = std::io::stdin().read(&mut [0]);
            over.store(true, Ordering::Release);
        });
        under_load(Path::new(&root), |steps| {
            while !over.load(Ordering::Acquire) {
                let count = steps.load(Ordering::Acquire);
                if said.swap(count, Ordering::AcqRel) != count {
                    println!("{count}");
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    });
}

/// Whoever ends, well or not, ends them all.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn more(steps: &AtomicU64, count: u64) {
    let goal = steps.load(Ordering::Acquire) + count;
    until("the applications go on", || steps.load(Ordering::Acquire) >= goal);
}

#[test]
fn twenty_deaths_under_load_are_pauses() {
    twenty_deaths(Pair::paired(Plan::Repair));
}

#[test]
fn twenty_deaths_are_pauses_where_the_kernel_keeps_what_is_written() {
    twenty_deaths(Pair::writing_back());
}

fn twenty_deaths(mut pair: Pair) {
    pair.leave(1);
    let mut keeper = Keeper::of(&pair.a);
    pair.a.settle(7);
    let root = pair.a.data.clone();
    in_another_process(&root, |steps| {
        for round in 0..20 {
            more(steps, 3 + round * 7 % 11);
            let (next, resumed) = replace(&mut pair.a, keeper, &[7]);
            assert!(resumed.knows_inflight, "the journal says everything");
            keeper = next;
            pair.a.settle(7);
        }
        more(steps, 10);
    });
    pair.session(2, Plan::Delta);
    pair.assert_equal();
    pair.a.unmount();
    assert!(!pair.a.place.join("handles").exists(), "nothing is left behind");
}

#[test]
fn a_death_in_a_pair_loses_nothing() {
    let mut pair = Pair::paired(Plan::Repair);
    let mut keeper = Keeper::of(&pair.a);
    let root = pair.a.data.clone();
    under_load(&root, |steps| {
        for round in 0..5_u64 {
            more(steps, 5);
            let (next, resumed) = replace(&mut pair.a, keeper, &[1]);
            assert!(!resumed.knows_inflight, "what was sent is not known");
            keeper = next;
            let held = steps.load(Ordering::Acquire);
            pair.b.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
            assert!(steps.load(Ordering::Acquire) <= held + 4, "nothing is acknowledged by nobody");
            pair.a.settle(u128::from(round) + 10);
            pair.session(round + 2, Plan::Full);
            pair.a.order(Order::Unsettle(safe_proto::replication::Unsettle {}));
        }
        more(steps, 10);
    });
    pair.assert_equal();
}

#[test]
fn open_files_and_directories_are_open_after_it() {
    let mut pair = Pair::paired(Plan::Repair);
    pair.leave(1);
    let keeper = Keeper::of(&pair.a);
    pair.a.settle(7);
    fs::create_dir(pair.at("d")).unwrap();
    for number in 0..300 {
        fs::write(pair.at(&format!("d/{number}")), "content").unwrap();
    }
    let mut file = OpenOptions::new().read(true).write(true).open(pair.at("d/3")).unwrap();
    let mut listing = fs::read_dir(pair.at("d")).unwrap();
    let first = listing.next().unwrap().unwrap().file_name();
    let (keeper, _) = replace(&mut pair.a, keeper, &[7]);
    pair.a.settle(7);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    file.write_all(b" and more").unwrap();
    let mut names: Vec<_> = listing.map(|entry| entry.unwrap().file_name()).collect();
    names.push(first);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 300);
    // Unlinked in the second process, which did not open it, and read in the third.
    fs::remove_file(pair.at("d/3")).unwrap();
    let (_keeper, _) = replace(&mut pair.a, keeper, &[7]);
    pair.a.settle(7);
    file.rewind().unwrap();
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content and more");
    drop(file);
    pair.session(2, Plan::Delta);
    pair.assert_equal();
}

#[test]
fn what_is_excluded_stays_so() {
    let mut pair = Pair::unstarted();
    pair.a.exclude = vec!["tmp/**".into()];
    pair.b.exclude = vec!["tmp/**".into()];
    pair.start();
    pair.session(1, Plan::Repair);
    pair.a.mount();
    let keeper = Keeper::of(&pair.a);
    fs::create_dir_all(pair.at("tmp/deep")).unwrap();
    fs::create_dir_all(pair.at("kept/deep")).unwrap();
    let (_keeper, _) = replace(&mut pair.a, keeper, &[1]);
    pair.b.expect("SessionLost", |report| matches!(report, Report::SessionLost(_)).then_some(()));
    pair.a.settle(7);
    fs::write(pair.at("tmp/deep/file"), "here only").unwrap();
    fs::write(pair.at("kept/deep/file"), "on both").unwrap();
    pair.session(2, Plan::Full);
    fs::write(pair.at("tmp/deep/other"), "here only").unwrap();
    fs::write(pair.at("kept/deep/other"), "on both").unwrap();
    assert_equal(&pair.at("kept"), &pair.beyond("kept"));
    assert!(!pair.beyond("tmp/deep").exists());
    assert_eq!(fs::read(pair.at("tmp/deep/file")).unwrap(), b"here only");
}

#[test]
fn without_an_heir_the_application_gets_its_error() {
    let mut pair = Pair::paired(Plan::Repair);
    pair.leave(1);
    let keeper = Keeper::of(&pair.a);
    pair.a.settle(7);
    let mut file = File::create(pair.at("file")).unwrap();
    pair.a.kill();
    drop(keeper.0.join().unwrap());
    let error = file.write_all(b"nobody answers").expect_err("the last descriptor is closed");
    assert!(
        matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)),
        "{error} within {:?}",
        Duration::from_secs(1)
    );
}
