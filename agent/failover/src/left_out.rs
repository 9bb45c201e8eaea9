//! Rules of the protocol that a proof leaves out, one at a time, to see that it finds the harm.

use crate::config::Config;
use crate::failover::Failover;

/// A rule of DESIGN section 5 or 6 that closes a counterexample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeftOut {
    /// Just before a reply the replicator looks at the clock: contact is younger than 0.9 of the timeout, or it is settled.
    ReplyNeedsContact,
    /// A node concedes only to who stands on the lineage that it has itself.
    DemandNamesBase,
    /// Who settled a lineage of its own concedes nothing.
    SettledConcedesNothing,
    /// Conceding ends candidacy, session and right to promote.
    ConcedingEndsCandidacy,
    /// The answer to a demand names the lineage that was given up for it.
    ConcessionNamesAbandoned,
    /// The arbiter's record is replaced only by who follows it.
    RecordMustBeFollowed,
    /// The record is set from the value that was read, not from whatever it is.
    RecordIsCompared,
    /// Ids that were given up stay in the histories of both.
    AbandonedIsRemembered,
    /// Who slept loses the rights that stand on silence.
    PauseCostsRights,
    /// They return by a round trip only, not by an answer from before the pause.
    RightsReturnByRoundTrip,
    /// A primary that slept a whole timeout fences itself at once.
    LongPauseFences,
    /// A fence counts for the session that it names.
    FenceNamesSession,
    /// A fence counts only while the node that confirms it holds no lineage of its own.
    FencedHoldsNoBase,
    /// The `settled` bit is durable before anything is acknowledged alone.
    SettledIsDurable,
    /// Who hears of another, settled lineage drops its rights and waits to meet.
    ForeignLineageFences,
    /// The right to promote is granted after step 3 of pairing.
    GrantAfterPairing,
    /// Who offers its role keeps the right to promote.
    OffererKeepsRight,
    /// An offer is void once the peer was silent for 0.9 of the timeout.
    OfferEndsWithSilence,
    /// A serving node fences itself at 0.9 of the timeout without the record.
    FencedBeforeTheOtherAsks,
    /// A replicator without an agent, not settled, fences itself at 0.9 of the timeout of silence.
    AgentlessFencesInSilence,
    /// A replicator without an agent fences itself at `agent_timeout`.
    AgentlessFencesInTime,
    /// The target becomes a copy of the source in one write of hard state.
    PairingInOneWrite,
    /// The source holds to the session before it forgets that it was alone.
    BarrierBeforePairing,
    /// A copy recorded outdated is not served.
    OutdatedIsNotServed,
    /// Only the holder of a settled lineage starts alone.
    UnsettledDoesNotStart,
    /// At a meeting a lineage that was never settled counts as its base.
    UnsettledCountsAsBase,
    /// An inconsistent copy with the newest writes is not replaced without a person.
    NewestInconsistentIsKept,
    /// Of equals, one that lost its page cache is not the source.
    RebootedIsNotSource,
    /// Who went on as well is not brought in step by what the other changed alone.
    BaseHolderSplits,
    /// Of two that went on and wrote nothing, the primary of the base stays.
    PrimaryOfBaseStays,
    /// What a copy alone holds is kept before the other's data takes its place.
    ArchiveBeforeTarget,
    /// While the other node may decide by a former lock arbiter, the record of that one is needed as well.
    LocksAreJoint,
    /// A node counts on a longer timeout only when the other bears it.
    TimeoutsAreAgreed,
}

impl LeftOut {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::ReplyNeedsContact,
        Self::DemandNamesBase,
        Self::SettledConcedesNothing,
        Self::ConcedingEndsCandidacy,
        Self::ConcessionNamesAbandoned,
        Self::RecordMustBeFollowed,
        Self::RecordIsCompared,
        Self::AbandonedIsRemembered,
        Self::PauseCostsRights,
        Self::RightsReturnByRoundTrip,
        Self::LongPauseFences,
        Self::FenceNamesSession,
        Self::FencedHoldsNoBase,
        Self::SettledIsDurable,
        Self::ForeignLineageFences,
        Self::GrantAfterPairing,
        Self::OffererKeepsRight,
        Self::OfferEndsWithSilence,
        Self::FencedBeforeTheOtherAsks,
        Self::AgentlessFencesInSilence,
        Self::AgentlessFencesInTime,
        Self::PairingInOneWrite,
        Self::BarrierBeforePairing,
        Self::OutdatedIsNotServed,
        Self::UnsettledDoesNotStart,
        Self::UnsettledCountsAsBase,
        Self::NewestInconsistentIsKept,
        Self::RebootedIsNotSource,
        Self::BaseHolderSplits,
        Self::PrimaryOfBaseStays,
        Self::ArchiveBeforeTarget,
        Self::TimeoutsAreAgreed,
        Self::LocksAreJoint,
    ];
}

impl Config {
    /// The rule is left out; never outside proofs.
    #[must_use]
    pub fn lacks(&self, rule: LeftOut) -> bool {
        self.left_out == Some(rule)
    }
}

impl Failover {
    /// The rule is left out; never outside proofs.
    pub(crate) fn lacks(&self, rule: LeftOut) -> bool {
        self.config.lacks(rule)
    }
}
