//! Orphans are reaped, and nobody's exit is stolen.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use safed::children::Children;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn zombies() -> usize {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        std::fs::read_to_string(entry.path().join("stat")).ok()
    });
    let ours = |stat: String| {
        let rest = stat.rsplit(')').next().unwrap_or_default().to_owned();
        let mut fields = rest.split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(own.as_str())
    };
    stats.map(ours).filter(|zombie| *zombie).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_are_reaped_and_no_exit_is_stolen() {
    let shutdown = CancellationToken::new();
    let children = Children::default();
    children.adopt_orphans(shutdown.clone()).unwrap();
    let runs = (0..40).map(|number: i32| {
        let children = children.clone();
        tokio::spawn(async move {
            // Each leaves two orphans that end at about the same time as itself.
            let script = format!("(true &) ; (sleep 0.01 &) ; exit {}", number % 7);
            let mut child = children.spawn(Command::new("sh").args(["-c", &script])).unwrap();
            let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
            assert_eq!(status.code(), Some(number % 7));
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
    for _ in 0..1000 {
        if zombies() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} zombies are left", zombies());
}
