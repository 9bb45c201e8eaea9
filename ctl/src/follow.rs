//! Following a module until it is where it should be.

use std::collections::BTreeMap;
use std::time::Duration;

use safe_proto::module::{GetStatusRequest, WatchStatusRequest, WatchStatusResponse};
use tokio::time::Instant;
use tonic::{Code, Streaming};

use crate::cli::Until;
use crate::client::Client;
use crate::clock;
use crate::context::Context;
use crate::error::Failure;
use crate::goal::{Goal, Pursuit, Verdict};
use crate::output;
use crate::progress::Progress;
use crate::status::Entry;

/// How long a bad verdict must stand: while nodes find each other, one may wait for a moment.
const CONFIRM: Duration = Duration::from_millis(1500);
/// The stream says something at least every 2 s; after this it is opened again.
const SILENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts to open it, doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Status of a module on all its nodes (of all modules, if the name is empty).
pub(crate) async fn status(client: &Client, module: &str) -> Result<Vec<Entry>, Failure> {
    let request = GetStatusRequest { name: module.to_owned(), local: false };
    let response = client.call(client.modules().get_status(request)).await?;
    Ok(response.modules.into_iter().map(Entry::from).collect())
}

/// Follows `module` until the goal is reached, a person is awaited, it failed, or time is over. Returns the last
/// status.
pub(crate) async fn until(
    context: &Context,
    client: Client,
    module: &str,
    goal: Goal,
    before: &[Entry],
) -> Result<Vec<Entry>, Failure> {
    let patient = matches!(goal, Goal::Is { .. });
    let lasting = matches!(goal, Goal::RunsOn(_));
    let mut follower = Follower {
        pursuit: Pursuit::new(goal, context.wait == Some(Until::Synced), before),
        progress: Progress::default(),
        seen: before.iter().map(|entry| (entry.node.clone(), entry.state_and_phase())).collect(),
        last: before.to_vec(),
        doubt: None,
        patient,
        lasting,
    };
    let watching = follower.watch(context, client, module);
    let outcome = match tokio::time::timeout(context.wait_timeout, watching).await {
        Ok(result) => result,
        Err(_) => Err(follower.out_of_time(context, module)),
    };
    // A program gets the status either way: it says where it stuck, and why.
    if outcome.is_err() && !context.is_table() {
        context.printer.text(&follower.last, "")?;
    }
    outcome.map(|()| follower.last)
}

struct Follower {
    pursuit: Pursuit,
    progress: Progress,
    /// State and phase last told, by node.
    seen: BTreeMap<String, String>,
    last: Vec<Entry>,
    /// A verdict other than pending, and since when it stands.
    doubt: Option<(Verdict, Instant)>,
    /// Only time ends the wait.
    patient: bool,
    /// Being reached counts only when it lasts.
    lasting: bool,
}

impl Follower {
    /// Watches, over connections that may break: the agent may be restarted while it is waited for.
    async fn watch(&mut self, context: &Context, client: Client, module: &str) -> Result<(), Failure> {
        let mut client = Some(client);
        let mut pause = PAUSES.0;
        loop {
            match open(context, client.take(), module).await {
                Ok(stream) => {
                    pause = PAUSES.0;
                    if let Some(result) = self.read(stream).await {
                        return result;
                    }
                }
                Err(Trouble::Lasting(failure)) => return Err(failure),
                Err(Trouble::Passing) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Reads one stream to its end; a result ends the wait.
    async fn read(&mut self, mut stream: Streaming<WatchStatusResponse>) -> Option<Result<(), Failure>> {
        loop {
            let patience = if self.doubt.is_some() { CONFIRM / 3 } else { SILENCE };
            match tokio::time::timeout(patience, stream.message()).await {
                Ok(Ok(Some(response))) => self.take(response),
                Ok(Ok(None) | Err(_)) => return None,
                Err(_) if self.doubt.is_none() => return None,
                Err(_) => {}
            }
            if let Some(result) = self.conclude() {
                self.progress.finish();
                return Some(result);
            }
        }
    }

    fn take(&mut self, response: WatchStatusResponse) {
        let entries: Vec<Entry> = response.modules.into_iter().map(Entry::from).collect();
        self.tell_changes(&entries);
        self.progress.show(&entries);
        let verdict = self.pursuit.judge(&entries);
        self.last = entries;
        match (&self.doubt, verdict) {
            (_, Verdict::Pending) => self.doubt = None,
            (Some((held, _)), verdict) if *held == verdict => {}
            (_, verdict) => self.doubt = Some((verdict, clock::now())),
        }
    }

    fn tell_changes(&mut self, entries: &[Entry]) {
        for entry in entries {
            let state = entry.state_and_phase();
            let before = self.seen.insert(entry.node.clone(), state.clone());
            if before.as_ref() != Some(&state) {
                let reason = entry.reason.as_ref().map_or_else(String::new, |reason| format!("  {reason}"));
                self.progress.aside(|| {
                    output::note(&format!("{}  {} {state}{reason}", entry.as_of.clock(), entry.node));
                });
            }
        }
    }

    /// Reached counts at once, the rest when it has stood for a while.
    fn conclude(&self) -> Option<Result<(), Failure>> {
        let (verdict, since) = self.doubt.as_ref()?;
        let confirmed = clock::now() >= *since + CONFIRM;
        match verdict {
            Verdict::Reached if confirmed || !self.lasting => Some(Ok(())),
            Verdict::Person { node, reason, hint } if confirmed && !self.patient => {
                let message = format!("{node} waits for a person: {reason}");
                Some(Err(Failure::condition(message).hint(hint.clone())))
            }
            Verdict::Failed(reason) if confirmed && !self.patient => {
                let module = self.last.first().map_or_else(String::new, |entry| entry.module.clone());
                let hint = format!("safectl events {module}; safectl log {module}");
                Some(Err(Failure::failed(reason.clone()).hint(hint)))
            }
            Verdict::Reached | Verdict::Person { .. } | Verdict::Failed(_) | Verdict::Pending => None,
        }
    }

    fn out_of_time(&self, context: &Context, module: &str) -> Failure {
        let states: Vec<String> =
            self.last.iter().map(|entry| format!("{} {}", entry.node, entry.state_and_phase())).collect();
        let waited = safe_proto::spec::quantity::format_duration(context.wait_timeout);
        let failure =
            Failure::condition(format!("{module} is not there after {waited}: {}", states.join(", ")));
        let reason = self
            .last
            .iter()
            .find_map(|entry| entry.reason.as_ref().map(|why| format!("{}: {why}", entry.node)));
        let failure = match reason {
            Some(reason) => failure.cause(reason),
            None => failure,
        };
        let hint = self.last.iter().find_map(|entry| entry.hint.clone());
        failure.hint(hint.unwrap_or_else(|| format!("safectl status {module} (or a longer --wait-timeout)")))
    }
}

/// Why a stream could not be opened.
enum Trouble {
    /// Trying again would not help.
    Lasting(Failure),
    /// The first connection was good, so that whatever is wrong now may pass.
    Passing,
}

async fn open(
    context: &Context,
    client: Option<Client>,
    module: &str,
) -> Result<Streaming<WatchStatusResponse>, Trouble> {
    let client = match client {
        Some(client) => client,
        None => Client::connect(context).await.map_err(|_| Trouble::Passing)?,
    };
    let request = WatchStatusRequest { name: module.to_owned() };
    let mut modules = client.modules();
    match tokio::time::timeout(context.timeout, modules.watch_status(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if is_lasting(status.code()) => Err(Trouble::Lasting(client.refusal(&status))),
        Ok(Err(_)) | Err(_) => Err(Trouble::Passing),
    }
}

fn is_lasting(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}
