//! What shows that a rule is needed: each of the proofs sees to its own.

use safe_failover::left_out::LeftOut;

/// What fails without the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A scenario file.
    Scenario(&'static str),
    /// The simulation, at this seed (or another, should the generator draw otherwise).
    Seed(u64),
    /// The search from this root, with so many faults in a row.
    Search { root: &'static str, faults: u8 },
    /// Nothing: in this core, which hears views and not messages, another rule already does what it does. Why.
    Covered(&'static str),
}

/// For each rule.
pub(crate) const fn missed_by(rule: LeftOut) -> By {
    match rule {
        LeftOut::ReplyNeedsContact => By::Search { root: "pair", faults: 2 },
        LeftOut::DemandNamesBase => By::Covered(
            "who demands hears the other's lineage first, and fences if it is another (ForeignLineageFences)",
        ),
        LeftOut::SettledConcedesNothing => {
            By::Covered("who demands hears first that the other settled, and fences (ForeignLineageFences)")
        }
        LeftOut::ConcedingEndsCandidacy => By::Search { root: "pair, lock", faults: 1 },
        LeftOut::ConcessionNamesAbandoned => By::Scenario("rule_a_abandoned_is_named"),
        LeftOut::RecordMustBeFollowed => By::Scenario("rule_b_foreign_record_refuses"),
        LeftOut::RecordIsCompared => By::Search { root: "pair, lock", faults: 2 },
        LeftOut::AbandonedIsRemembered => By::Scenario("rule_b_record_of_the_loser"),
        LeftOut::PauseCostsRights => By::Scenario("rule_c_paused_primary_does_not_go_alone"),
        LeftOut::RightsReturnByRoundTrip => By::Scenario("rule_c_paused_secondary_does_not_promote"),
        LeftOut::LongPauseFences => By::Seed(23),
        LeftOut::FenceNamesSession => {
            By::Covered("a view that confirms a fence is replaced by the view that enters the next session")
        }
        LeftOut::FencedHoldsNoBase => By::Scenario("rule_unsettled_counts_as_its_base"),
        LeftOut::SettledIsDurable => By::Scenario("s1_primary_loses_power"),
        LeftOut::ForeignLineageFences => By::Scenario("s20_one_way_cut_no_arbiter"),
        LeftOut::GrantAfterPairing => By::Search { root: "return", faults: 2 },
        LeftOut::OffererKeepsRight => By::Scenario("s9_swap_offerer_dies"),
        LeftOut::OfferEndsWithSilence => By::Covered(
            "who takes an offer after a silence fences in the same step (LongPauseFences, FencedBeforeTheOtherAsks)",
        ),
        LeftOut::FencedBeforeTheOtherAsks => By::Scenario("s8_lock_arbiter_lost_by_primary"),
        LeftOut::AgentlessFencesInSilence => By::Scenario("rule_agentless_primary_fences_with_lock"),
        LeftOut::AgentlessFencesInTime => By::Scenario("s17_agent_killed_on_primary"),
        LeftOut::PairingInOneWrite => By::Scenario("rule_pairing_is_one_write"),
        LeftOut::BarrierBeforePairing => By::Seed(1970),
        LeftOut::OutdatedIsNotServed => By::Seed(2540),
        LeftOut::UnsettledDoesNotStart => By::Scenario("rule_b_record_is_mine_after_a_restart"),
        LeftOut::UnsettledCountsAsBase => By::Scenario("rule_settled_bit_decides_at_start"),
        LeftOut::NewestInconsistentIsKept => By::Seed(792),
        LeftOut::RebootedIsNotSource => By::Scenario("rule_2_target_lost_its_source_before_it_settled"),
        LeftOut::BaseHolderSplits => By::Scenario("rule_5_both_went_on"),
        LeftOut::PrimaryOfBaseStays => By::Scenario("rule_7_split_brain_nothing_written"),
        LeftOut::TimeoutsAreAgreed => By::Seed(7426),
        LeftOut::LocksAreJoint => By::Scenario("rule_b_lock_arbiter_is_exchanged_on_one_node"),
        LeftOut::ArchiveBeforeTarget => By::Scenario("split_brain_loser_keeps_its_own"),
    }
}
