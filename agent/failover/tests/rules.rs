//! Sentences of DESIGN that no story shows by itself: one core in a known state, and views made by hand.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "in a test a wrong assumption is a failed test"
)]

use std::time::Duration;

use safe_failover::action::{Action, ReplicatorCommand};
use safe_failover::config::{ArbiterKind, Config, Side};
use safe_failover::event::{Adopted, ArbiterEvent, Event, Loss, ReplicatorEvent};
use safe_failover::hard::{Desired, HardState, Role};
use safe_failover::lineage::{Lineage, LineageId};
use safe_failover::lock::Lock;
use safe_failover::view::{Copy, Demand, Entered, Fenced, Grant, Mode, Plan, SessionId, View};
use safe_failover::world::{Chance, World};
use safe_failover::{Failover, Time};

/// A core, what its peer last said, and time.
struct Bench {
    core: Failover,
    peer: View,
    now: Time,
}

impl Bench {
    /// Node 0 is PRIM, node 1 is SECOND, in step; this is the given one.
    fn pair(host: usize) -> Self {
        Self::with(host, |_| {}, |_| {})
    }

    /// As [`Bench::pair`]; then something happens to the world.
    fn with(host: usize, edit: impl Fn(&mut Config), change: impl FnOnce(&mut World)) -> Self {
        let chance = Chance {
            local: Duration::from_millis(1),
            packet: Duration::from_millis(1),
            loss: 0,
            twice: 0,
            late: 0,
            mid_batch: 0,
            none: false,
        };
        let mut world = World::new(1, 1, chance, edit);
        world.boot(0, true);
        world.boot(1, true);
        world.run(Duration::from_secs(3)).unwrap();
        change(&mut world);
        let now = world.now;
        let told = |host: usize| world.hosts[host].agent.as_ref().unwrap().told.clone().unwrap();
        let (mine, peer) = (told(host), told(1 - host));
        assert_eq!(mine.mode, if host == 0 { Mode::Primary } else { Mode::Second });
        let core = world.hosts[host].agent.as_ref().unwrap().core.clone();
        let mut bench = Self { core, peer, now };
        bench.tick(Duration::from_millis(1));
        bench
    }

    fn tick(&mut self, after: Duration) -> Vec<Action> {
        self.now = self.now + after;
        self.give(Event::Tick)
    }

    /// What the event leads to; hard state is written at once.
    fn give(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.core.handle(event, self.now);
        let mut next = 0;
        while next < actions.len() {
            if let Action::Persist(hard) = &actions[next] {
                let serial = hard.serial;
                actions.extend(self.core.handle(Event::Persisted { serial }, self.now));
            }
            next += 1;
        }
        actions
    }

    /// The peer says this now.
    fn hear(&mut self, change: impl FnOnce(&mut View)) -> Vec<Action> {
        self.peer.serial += 1;
        change(&mut self.peer);
        let view = Box::new(self.peer.clone());
        self.give(Event::Peer(view))
    }

    fn replicator(&mut self, event: ReplicatorEvent) -> Vec<Action> {
        self.give(Event::Replicator(event))
    }

    fn view(&self) -> View {
        self.core.view()
    }

    fn session(&self) -> SessionId {
        self.view().entered.unwrap().session
    }

    /// The stream broke; the peer says so as well.
    fn lose_session(&mut self) -> SessionId {
        let session = self.session();
        self.replicator(ReplicatorEvent::SessionLost {
            session,
            loss: Loss::Stream,
            reason: "reset".to_owned(),
        });
        self.hear(|peer| {
            peer.entered = None;
            peer.paired = None;
            peer.wish = None;
            peer.grant = None;
            peer.link += 1;
        });
        session
    }

    /// Time passes without a pause and without a word.
    fn silence(&mut self, duration: Duration) -> Vec<Action> {
        let end = self.now + duration;
        let mut actions = Vec::new();
        while self.now < end {
            actions.extend(self.tick(Duration::from_millis(100)));
        }
        actions
    }

    fn current(&self) -> LineageId {
        self.view().lineage.current.unwrap()
    }
}

fn persisted(actions: &[Action]) -> Vec<&HardState> {
    actions
        .iter()
        .filter_map(|action| if let Action::Persist(hard) = action { Some(&**hard) } else { None })
        .collect()
}

fn orders(actions: &[Action], wanted: &ReplicatorCommand) -> bool {
    actions.iter().any(|action| matches!(action, Action::Replicator(command) if command == wanted))
}

const OTHER: LineageId = LineageId(77);

#[test]
fn a_demand_is_conceded_durably_before_it_is_answered() {
    let mut bench = Bench::pair(1);
    bench.lose_session();
    let base = bench.current();
    let actions = bench.hear(|peer| peer.demand = Some(Demand { base, lineage: OTHER }));
    assert!(persisted(&actions).iter().any(|hard| hard.outdated));
    assert_eq!(bench.view().conceded.unwrap().lineage, OTHER);
    assert!(!bench.core.may_promote());
    assert_eq!(bench.view().mode, Mode::Waiting);
}

#[test]
fn a_demand_with_another_base_is_refused() {
    let mut bench = Bench::pair(1);
    bench.lose_session();
    let actions = bench.hear(|peer| peer.demand = Some(Demand { base: LineageId(5), lineage: OTHER }));
    assert!(persisted(&actions).is_empty());
    assert_eq!(bench.view().conceded, None);
    assert!(bench.core.may_promote());
}

#[test]
fn a_demand_is_refused_by_who_settled_a_lineage_of_its_own() {
    let mut bench = Bench::pair(1);
    let base = bench.current();
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    assert_ne!(candidate, base, "it is a candidate by silence");
    bench.replicator(ReplicatorEvent::JournalOpen(candidate));
    assert_eq!(bench.view().mode, Mode::Alone);
    bench.hear(|peer| peer.demand = Some(Demand { base, lineage: OTHER }));
    assert_eq!(bench.view().conceded, None);
    assert!(!bench.view().outdated);
}

#[test]
fn a_demand_is_refused_by_the_waiting_holder_of_a_settled_lineage() {
    let mut bench = Bench::pair(1);
    let base = bench.current();
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    bench.replicator(ReplicatorEvent::JournalOpen(candidate));
    // Its disk fails: it serves no more, but what it acknowledged alone is only here.
    let mut actions = bench.replicator(ReplicatorEvent::DiskFailed("fsync".to_owned()));
    actions.extend(bench.replicator(ReplicatorEvent::Fenced));
    actions.extend(bench.give(Event::ProcessesGone));
    actions.extend(bench.give(Event::AddressesDropped));
    assert!(!bench.view().serving || actions.is_empty());
    bench.hear(|peer| peer.demand = Some(Demand { base, lineage: OTHER }));
    assert_eq!((bench.view().mode, bench.view().conceded), (Mode::Waiting, None));
}

#[test]
fn a_candidate_that_concedes_names_the_lineage_it_gives_up() {
    let mut bench = Bench::pair(1);
    let base = bench.current();
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    bench.hear(|peer| peer.demand = Some(Demand { base, lineage: OTHER }));
    let conceded = bench.view().conceded.unwrap();
    assert_eq!((conceded.lineage, conceded.abandoned), (OTHER, Some(candidate)));
    assert_eq!(bench.view().mode, Mode::Waiting);
}

#[test]
fn the_asker_remembers_what_the_other_gave_up() {
    let mut bench = Bench::pair(0);
    bench.lose_session();
    bench.hear(|peer| peer.meetable = false);
    for _ in 0..30 {
        bench.tick(Duration::from_millis(100));
        bench.hear(|_| {});
    }
    let demand = bench.view().demand.expect("the stream has been down for the stall timeout");
    bench.replicator(ReplicatorEvent::JournalOpen(demand.lineage));
    let conceded = safe_failover::view::Conceded { lineage: demand.lineage, abandoned: Some(OTHER) };
    let actions = bench.hear(|peer| {
        peer.outdated = true;
        peer.conceded = Some(conceded);
    });
    assert!(orders(&actions, &ReplicatorCommand::Settle(demand.lineage)));
    let settled = persisted(&actions);
    assert!(settled[0].lineage.settled && settled[0].lineage.history.contains(&OTHER));
}

#[test]
fn a_concession_to_another_lineage_does_not_count() {
    let mut bench = Bench::pair(0);
    bench.lose_session();
    bench.hear(|peer| peer.meetable = false);
    for _ in 0..30 {
        bench.tick(Duration::from_millis(100));
        bench.hear(|_| {});
    }
    let demand = bench.view().demand.unwrap();
    bench.replicator(ReplicatorEvent::JournalOpen(demand.lineage));
    bench
        .hear(|peer| peer.conceded = Some(safe_failover::view::Conceded { lineage: OTHER, abandoned: None }));
    assert_eq!(bench.view().mode, Mode::Primary);
}

#[test]
fn an_old_grant_does_not_give_the_right_back_after_a_pause() {
    let mut bench = Bench::pair(1);
    assert!(bench.core.may_promote());
    bench.tick(Duration::from_millis(1100));
    assert!(!bench.core.may_promote(), "half of the stall timeout passed without a call");
    bench.hear(|_| {});
    assert!(!bench.core.may_promote(), "the grant is of before the pause");
    let wish = bench.view().wish.unwrap();
    bench.hear(|peer| peer.grant = Some(wish));
    assert!(bench.core.may_promote());
}

#[test]
fn only_a_primary_grants_and_only_in_the_session() {
    let mut bench = Bench::pair(1);
    bench.tick(Duration::from_millis(1100));
    let wish = bench.view().wish.unwrap();
    bench.hear(|peer| {
        peer.mode = Mode::Alone;
        peer.grant = Some(wish);
    });
    assert!(!bench.core.may_promote());
    let session = SessionId { first: 1, second: 2 };
    bench.hear(|peer| {
        peer.mode = Mode::Primary;
        peer.grant = Some(Grant { session, ticket: wish.ticket });
    });
    assert!(!bench.core.may_promote());
}

#[test]
fn a_primary_grants_nothing_before_the_pair_is_durable() {
    let mut bench = Bench::pair(0);
    assert_eq!(bench.view().grant, bench.peer.wish);
    bench.lose_session();
    assert_eq!(bench.view().grant, None);
}

#[test]
fn the_end_of_the_old_session_comes_before_promotion() {
    let mut bench = Bench::pair(1);
    let session = bench.session();
    let actions = bench.silence(Duration::from_secs(4));
    assert!(orders(&actions, &ReplicatorCommand::Leave(session)));
    assert_eq!(bench.view().mode, Mode::Second, "workers of the session may still apply operations");
    assert!(persisted(&actions).is_empty());
    bench.replicator(ReplicatorEvent::SessionEnded(session));
    assert_eq!(bench.view().mode, Mode::Candidate);
}

#[test]
fn a_broken_stream_suspends_the_right_to_promote() {
    let mut bench = Bench::pair(1);
    bench.lose_session();
    for _ in 0..50 {
        bench.tick(Duration::from_millis(100));
        bench.hear(|peer| peer.meetable = false);
    }
    assert_eq!(bench.view().mode, Mode::Second);
    assert!(bench.core.may_promote());
    bench.silence(Duration::from_secs(4));
    assert_eq!(bench.view().mode, Mode::Candidate);
}

/// A primary whose session ended, and what its peer says of its fence.
fn after_fence(change: impl FnOnce(&mut View, SessionId, LineageId)) -> Bench {
    let mut bench = Bench::pair(0);
    let lineage = bench.current();
    let session = bench.lose_session();
    bench.hear(|peer| {
        peer.mode = Mode::Stopped;
        peer.meetable = false;
        peer.fenced = Some(Fenced { session: Some(session), lineage });
        change(peer, session, lineage);
    });
    let current = bench.current();
    bench.replicator(ReplicatorEvent::JournalOpen(current));
    bench
}

#[test]
fn a_confirmed_fence_hands_over() {
    assert_eq!(after_fence(|_, _, _| {}).view().mode, Mode::Alone);
}

#[test]
fn a_fence_of_another_session_does_not_count() {
    let bench = after_fence(|peer, _, lineage| {
        peer.fenced = Some(Fenced { session: Some(SessionId { first: 3, second: 4 }), lineage });
    });
    assert_eq!(bench.view().mode, Mode::Primary);
    let bench = after_fence(|peer, _, lineage| peer.fenced = Some(Fenced { session: None, lineage }));
    assert_eq!(bench.view().mode, Mode::Primary);
}

#[test]
fn a_fence_in_another_lineage_does_not_count() {
    let bench = after_fence(|peer, session, _| {
        peer.fenced = Some(Fenced { session: Some(session), lineage: OTHER });
    });
    assert_eq!(bench.view().mode, Mode::Primary);
}

#[test]
fn a_fence_of_who_holds_a_base_does_not_count() {
    let bench = after_fence(|peer, _, lineage| {
        peer.lineage = Lineage { current: Some(OTHER), base: Some(lineage), ..Lineage::default() };
    });
    assert_eq!(bench.view().mode, Mode::Primary);
}

#[test]
fn who_settled_nothing_and_hears_a_settled_lineage_leaves_service() {
    let mut bench = Bench::pair(0);
    let base = bench.current();
    bench.lose_session();
    let actions = bench.hear(|peer| {
        peer.mode = Mode::Alone;
        peer.lineage =
            Lineage { current: Some(OTHER), base: Some(base), settled: true, ..Lineage::default() };
    });
    assert!(orders(&actions, &ReplicatorCommand::Fence));
    assert_eq!(bench.view().mode, Mode::Waiting);
}

#[test]
fn silence_is_judged_again_when_the_settled_bit_is_durable() {
    let mut bench = Bench::pair(1);
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    let actions = bench.core.handle(Event::Replicator(ReplicatorEvent::JournalOpen(candidate)), bench.now);
    let hard = persisted(&actions)[0].clone();
    assert!(hard.lineage.settled);
    assert!(!bench.view().lineage.settled, "not said before it is in effect");
    // Writing it took long: this node slept.
    bench.now = bench.now + Duration::from_millis(1500);
    let actions = bench.give(Event::Persisted { serial: hard.serial });
    assert!(!orders(&actions, &ReplicatorCommand::Settle(candidate)));
    assert!(persisted(&actions).iter().any(|hard| !hard.lineage.settled));
    assert_eq!(bench.view().mode, Mode::Waiting);
}

#[test]
fn the_peer_that_speaks_meanwhile_keeps_a_node_from_settling() {
    let mut bench = Bench::pair(1);
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    let actions = bench.core.handle(Event::Replicator(ReplicatorEvent::JournalOpen(candidate)), bench.now);
    let serial = persisted(&actions)[0].serial;
    bench.core.handle(Event::Heard, bench.now);
    let actions = bench.give(Event::Persisted { serial });
    assert!(!orders(&actions, &ReplicatorCommand::Settle(candidate)));
}

/// A primary whose session ended, and a peer that enters as target.
fn entry(change: impl FnOnce(&mut Entered)) -> Bench {
    let mut bench = Bench::pair(0);
    let lineage = bench.current();
    bench.lose_session();
    let link = bench.view().link;
    let peer = bench.peer.link;
    let mut entered = Entered {
        session: SessionId { first: link, second: peer },
        role: Role::Secondary,
        plan: Plan::Repair,
        source: Some(lineage),
    };
    change(&mut entered);
    bench.hear(|peer| {
        peer.heard_link = link;
        peer.mode = Mode::Target;
        peer.meetable = false;
        peer.entered = Some(entered);
    });
    bench
}

#[test]
fn the_source_enters_on_seeing_the_target() {
    assert_eq!(entry(|_| {}).view().entered.unwrap().role, Role::Primary);
}

#[test]
fn an_entry_for_another_state_of_the_source_is_not_answered() {
    assert_eq!(entry(|entered| entered.source = Some(OTHER)).view().entered, None);
    assert_eq!(entry(|entered| entered.session.first += 1).view().entered, None);
    assert_eq!(entry(|entered| entered.role = Role::Primary).view().entered, None);
}

#[test]
fn a_candidate_that_met_gives_up_its_lineage_and_remembers_it() {
    let mut bench = Bench::pair(1);
    let base = bench.current();
    bench.lose_session();
    bench.silence(Duration::from_secs(4));
    let candidate = bench.current();
    let link = bench.view().link;
    bench.hear(|peer| {
        peer.heard_link = link;
        peer.meetable = true;
    });
    let view = bench.view();
    assert_eq!(view.mode, Mode::Target);
    assert_eq!((view.lineage.current, view.lineage.base), (Some(base), None));
    assert!(view.lineage.history.contains(&candidate));
    assert!(!bench.core.may_promote());
}

#[test]
fn a_late_offer_is_void() {
    for (age, taken) in [(Duration::from_millis(2000), true), (Duration::from_millis(2800), false)] {
        let mut bench = Bench::pair(1);
        let session = bench.session();
        let term = bench.view().term;
        bench.hear(|_| {});
        // Whatever is heard from now on was sent before: it echoes nothing newer.
        bench.give(Event::Echoed(bench.now));
        bench.silence(age);
        assert_eq!(bench.view().entered.map(|entered| entered.session), Some(session));
        bench.hear(|peer| {
            peer.mode = Mode::Second;
            peer.role = Role::Secondary;
            peer.term = term + 1;
            peer.offer = Some(session);
        });
        assert_eq!(bench.view().mode == Mode::Primary, taken, "after {age:?}");
    }
}

#[test]
fn pairing_is_one_hard_state_at_the_target() {
    let mut bench = Bench::pair(0);
    let base = bench.current();
    bench.lose_session();
    // The other went on, and this one follows.
    bench.hear(|peer| {
        peer.mode = Mode::Alone;
        peer.role = Role::Primary;
        peer.term = 9;
        let history = vec![base];
        peer.lineage =
            Lineage { current: Some(OTHER), base: Some(base), settled: true, history, ..Lineage::default() };
    });
    let mut out: Vec<Action> = bench.replicator(ReplicatorEvent::Fenced);
    out.extend(bench.give(Event::AddressesDropped));
    out.extend(bench.give(Event::ProcessesGone));
    for _ in 0..10 {
        let run = out
            .iter()
            .rev()
            .find_map(|action| if let Action::Script(run) = action { Some(run.run) } else { None });
        out = bench.give(Event::ScriptEnded { run: run.unwrap_or(0), outcome: Ok(()) });
        if !out.iter().any(|action| matches!(action, Action::Script(_))) {
            break;
        }
    }
    let link = bench.view().link;
    let actions = bench.hear(|peer| {
        peer.heard_link = link;
        peer.meetable = true;
    });
    let hard = persisted(&actions)[0].clone();
    assert!(hard.target && hard.outdated && hard.consistent, "nothing is copied before the source is there");
    let entered = bench.view().entered.unwrap();
    let actions = bench.hear(|peer| peer.entered = Some(Entered { role: Role::Primary, ..entered }));
    let joins =
        |action: &Action| matches!(action, Action::Replicator(ReplicatorCommand::Join { room: true, .. }));
    assert!(actions.iter().any(joins) && persisted(&actions).is_empty(), "nothing is touched yet");
    bench.replicator(ReplicatorEvent::SessionUp(entered.session));
    let session = entered.session;
    let actions = bench.replicator(ReplicatorEvent::Room { session, outcome: Err("full".to_owned()) });
    assert!(persisted(&actions).is_empty(), "without room the copy stays as it was");
    let actions = bench.replicator(ReplicatorEvent::Room { session, outcome: Ok(()) });
    assert!(!persisted(&actions)[0].consistent, "inconsistent before the first byte");
    let [Action::Persist(_), Action::Replicator(ReplicatorCommand::Receive(_)), ..] = &actions[..] else {
        panic!("leave is given once that is durable: {actions:?}");
    };
    let actions = bench.replicator(ReplicatorEvent::InStep(entered.session));
    let hard = persisted(&actions)[0];
    let lineage = Lineage { current: Some(OTHER), history: vec![base], ..Lineage::default() };
    assert_eq!(hard.lineage, lineage);
    assert!(hard.consistent && !hard.outdated && !hard.target);
    assert_eq!((hard.role, hard.term), (Role::Secondary, 9));
    assert_eq!(bench.view().paired, None, "not before the root marker is durable");
    bench.replicator(ReplicatorEvent::Marked(OTHER));
    assert_eq!(bench.view().paired, Some(entered.session));
    assert_eq!(bench.view().mode, Mode::Target, "the source has not persisted the pair");
}

fn commands(actions: Vec<Action>) -> Vec<ReplicatorCommand> {
    let command = |action| if let Action::Replicator(command) = action { Some(command) } else { None };
    actions.into_iter().filter_map(command).collect()
}

/// Another process holds the mount: it serves on, and meets its peer anew.
#[test]
fn a_primary_whose_replicator_survived_stays_and_meets_again() {
    let mut bench = Bench::pair(0);
    let session = bench.view().entered.unwrap().session;
    let told = commands(bench.give(Event::Replicator(ReplicatorEvent::Survived { knows_inflight: false })));
    assert_eq!(told, [ReplicatorCommand::Leave(session)]);
    bench.replicator(ReplicatorEvent::SessionEnded(session));
    let view = bench.view();
    assert_eq!((view.mode, view.entered, view.knows_inflight), (Mode::Primary, None, false));
    assert!(view.meetable);
}

/// What the process that died was told is told to the next one.
#[test]
fn who_is_alone_settles_again_when_its_replicator_survived() {
    let mut bench = after_fence(|_, _, _| {});
    assert_eq!(bench.view().mode, Mode::Alone);
    let current = bench.current();
    let told = commands(bench.give(Event::Replicator(ReplicatorEvent::Survived { knows_inflight: true })));
    let position = |wanted: &ReplicatorCommand| told.iter().position(|command| command == wanted);
    let journal = position(&ReplicatorCommand::OpenJournal(current)).unwrap();
    let settled = position(&ReplicatorCommand::Settle(current)).unwrap();
    assert!(journal < settled, "{told:?}");
    assert_eq!(bench.view().mode, Mode::Alone);
}

/// Another core takes over the replicator of a primary, with this timeout where the last one had `before`.
fn taken_over(before: Duration, timeout: Duration) -> Bench {
    let mut bench = Bench::pair(0);
    let mut config = safe_failover::world::host::config(Side::First);
    (config.timeout, config.entropy) = (timeout, 99);
    let adopted = Adopted {
        mounted: true,
        session: Some((bench.session(), Role::Primary)),
        in_step: true,
        settled: None,
        fenced: false,
        copy: Copy::Known,
        knows_inflight: true,
        contact: Some(bench.now),
        limit: Some(before),
    };
    let hard = HardState {
        role: Role::Primary,
        desired: Desired::Started,
        lineage: bench.view().lineage,
        consistent: true,
        ..HardState::default()
    };
    bench.core = Failover::new(config, hard);
    bench.give(Event::Started { start: true, adopted: Some(adopted) });
    assert_eq!((bench.view().timeout, bench.view().grace), (timeout, before));
    bench.hear(|_| {});
    assert_eq!(bench.view().grace, before, "the other node has not heard of it");
    bench
}

const LONG: Duration = Duration::from_secs(3);
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn a_shorter_grace_is_the_replicators_before_the_other_node_hears_of_it() {
    let mut bench = taken_over(LONG, SHORT);
    let own = bench.view().incarnation;
    let actions = bench.hear(|peer| peer.heard = own);
    assert!(orders(&actions, &ReplicatorCommand::Limit(SHORT)));
    assert_eq!(bench.view().grace, LONG);
    bench.replicator(ReplicatorEvent::Limited(SHORT));
    assert_eq!(bench.view().grace, SHORT);
}

#[test]
fn a_longer_grace_waits_for_the_other_node() {
    let mut bench = taken_over(SHORT, LONG);
    let own = bench.view().incarnation;
    let actions = bench.hear(|peer| peer.heard = own);
    assert!(orders(&actions, &ReplicatorCommand::Limit(LONG)));
    bench.replicator(ReplicatorEvent::Limited(LONG));
    assert_eq!(bench.view().grace, LONG);
}

/// Whoever has the shorter timeout waits for the longer one that the other node still counts on.
#[test]
fn a_secondary_bears_what_the_primary_counts_on() {
    let mut bench = Bench::pair(1);
    bench.hear(|peer| (peer.timeout, peer.grace) = (SHORT, LONG * 2));
    let actions = bench.silence(LONG + SHORT);
    assert!(persisted(&actions).is_empty(), "4 s are less than 6 s");
    assert_eq!(bench.view().mode, Mode::Second);
    let session = bench.session();
    bench.silence(LONG);
    bench.replicator(ReplicatorEvent::SessionEnded(session));
    assert_eq!(bench.view().mode, Mode::Candidate);
}

/// Nodes that share no lock arbiter could each get a record: neither asks for one, nor goes on by silence, nor meets, until they
/// share one.
#[test]
fn who_shares_no_lock_arbiter_with_the_other_node_goes_on_by_no_record() {
    for host in [0, 1] {
        let mut bench = Bench::pair(host);
        let (own, locks) = (bench.view().incarnation, bench.view().locks);
        assert_eq!(locks.len(), 1);
        bench.hear(|peer| (peer.heard, peer.locks) = (0, vec![77]));
        assert!(
            !bench.core.explain().iter().any(|line| line.answer.contains("another lock arbiter")),
            "old news"
        );
        let actions = bench.hear(|peer| (peer.heard, peer.locks) = (own, vec![77, 78]));
        assert!(persisted(&actions).iter().all(|hard| hard.disputed) && !persisted(&actions).is_empty());
        assert!(bench.core.explain().iter().any(|line| line.answer.contains("another lock arbiter")));

        let session = bench.session();
        let mut actions = bench.silence(LONG * 2);
        actions.extend(bench.replicator(ReplicatorEvent::SessionEnded(session)));
        actions.extend(bench.silence(LONG * 2));
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::ArbiterRead(_) | Action::ArbiterSwap { .. }))
        );
        assert!(persisted(&actions).iter().all(|hard| !hard.lineage.settled));
        assert!(!matches!(bench.view().mode, Mode::Alone | Mode::Candidate), "{:?}", bench.view().mode);

        let own = bench.view().incarnation;
        let actions = bench.hear(|peer| (peer.heard, peer.locks) = (own, vec![77, locks[0]]));
        assert!(persisted(&actions).iter().any(|hard| !hard.disputed), "one in common is enough");
    }
}

/// A primary that lost its session while its lock arbiter is exchanged: the first one asked always answers, the other one so many
/// times. Which were read, and how many records were taken.
fn asked_of_two(answers: usize) -> (Vec<Lock>, usize) {
    let lock = |config: &mut Config| config.arbiter = ArbiterKind::Lock;
    let mut bench = Bench::with(0, lock, |world| {
        world.install(0, Lock("another".to_owned()));
        world.run(Duration::from_secs(1)).unwrap();
    });
    assert_eq!(bench.view().locks.len(), 2);
    bench.lose_session();
    let mut record = bench.view().lineage.current;
    let (mut read, mut taken, mut left) = (Vec::<Lock>::new(), 0, answers);
    let mut actions = Vec::new();
    for _ in 0..200 {
        actions.extend(bench.tick(Duration::from_millis(10)));
        while let Some(action) = actions.pop() {
            let (lock, answer, new) = match action {
                Action::ArbiterRead(lock) => {
                    read.push(lock.clone());
                    (lock, ArbiterEvent::Value(record), record)
                }
                Action::ArbiterSwap { lock, new, .. } => (lock, ArbiterEvent::Swapped(new), Some(new)),
                _ => continue,
            };
            let answer = if lock == read[0] {
                taken += usize::from(record != new);
                record = new;
                answer
            } else if left > 0 {
                left -= 1;
                // It has no record yet.
                if matches!(answer, ArbiterEvent::Value(_)) { ArbiterEvent::Value(None) } else { answer }
            } else {
                ArbiterEvent::Unreachable
            };
            actions.extend(bench.give(Event::Arbiter(lock, answer)));
        }
    }
    (read, taken)
}

/// A part of the records would serve nobody, and keep the other node from serving.
#[test]
fn no_record_is_taken_while_another_one_cannot_be_had() {
    let (read, taken) = asked_of_two(0);
    assert!(read.iter().filter(|lock| **lock != read[0]).count() > 1, "{read:?}");
    assert_eq!(taken, 0);
}

/// While the record of one lock arbiter cannot be had, that of the other one may be taken by whom a person ordered to serve:
/// it is read again before both count.
#[test]
fn a_record_is_read_again_after_another_one_could_not_be_had() {
    let (read, taken) = asked_of_two(1);
    assert_eq!(taken, 1, "the other one answered once");
    assert!(read.iter().filter(|lock| **lock != read[0]).count() > 2, "{read:?}");
    assert!(read.windows(2).all(|two| two.contains(&read[0])), "{read:?}");
}
