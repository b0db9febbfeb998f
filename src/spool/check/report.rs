//! What a check says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most findings that are listed one by one; all are counted.
const MOST_LISTED: usize = 1_000;

/// Whether a check changes anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum CheckMode {
    /// Only looks.
    #[default]
    Look,
    /// Mends what it finds.
    Repair,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// Where: a key in words, an entry id or the name of a file.
    pub what: String,
    /// What is wrong with it.
    pub detail: String,
    /// What was done, or can be.
    pub remedy: Remedy,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(utoipa::ToSchema)]
pub enum FindingKind {
    /// A record whose bytes make no sense. Mending moves it to quarantine.
    UnreadableRecord,
    /// A row of a table that does not exist, or a part of a long record without its head. Mending
    /// moves it to quarantine.
    UnknownRow,
    /// An entry of an index to which no record leads. Mending removes it.
    DanglingIndex,
    /// A record that an index lacks. Mending adds it.
    MissingIndex,
    /// A message whose body is missing or not what it was. Mending puts the message on hold with
    /// the reason; what is left of it can be exported.
    DamagedBody,
    /// A body whose row is lost and whose bytes are there, whole. Mending makes the row again.
    LostBodyRow,
    /// A body that is used by more or fewer records than it says. Mending counts.
    WrongUseCount,
    /// A body that no record uses. Mending removes it.
    UnusedBody,
    /// A body file, or the bytes of a small body, of which no row knows. Mending removes it.
    OrphanBody,
    /// A file that was being written and is no more. Mending removes it.
    StagingLeftover,
    /// A body file that is to be removed although a row names it. Mending keeps it.
    WrongTombstone,
    /// Counts of messages that are off. Mending counts.
    WrongCounts,
    /// The tree itself cannot be opened. Mending sets it aside with everything beside it and
    /// begins anew.
    UnreadableTree,
}

/// What was done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[derive(utoipa::ToSchema)]
pub enum Remedy {
    /// Nothing, because nobody asked; `--repair` would.
    Repairable,
    /// It was mended.
    Repaired,
    /// It was moved to where it does no harm, and nothing of it was deleted.
    SetAside,
    /// Nothing yet: somebody is at work on it.
    InUse,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SpoolCheckReport)]
pub struct CheckReport {
    /// What it was asked to do.
    pub mode: CheckMode,
    /// Schema of the spool.
    pub schema: u32,
    /// Messages looked at.
    pub messages: u64,
    /// Histories looked at.
    pub histories: u64,
    /// Bodies read and compared with their digests.
    pub bodies: u64,
    /// Bytes of them.
    pub body_bytes: u64,
    /// Records in quarantine, from now or before.
    pub quarantined: u64,
    /// Messages on hold because their body is lost, from now or before.
    pub set_aside: u64,
    /// How many findings there are of each kind.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub kinds: BTreeMap<FindingKind, u64>,
    /// The first 1000 findings.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.kinds.is_empty()
    }

    /// How many findings there are.
    pub fn found(&self) -> u64 {
        self.kinds.values().sum()
    }

    pub(super) fn add(&mut self, finding: Finding) {
        tracing::warn!(kind = ?finding.kind, what = finding.what, detail = finding.detail,
            remedy = ?finding.remedy, "A check of the spool found something");
        *self.kinds.entry(finding.kind).or_default() += 1;
        if self.findings.len() < MOST_LISTED {
            self.findings.push(finding);
        }
    }
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckProgress {
    /// What is looked at.
    pub phase: CheckPhase,
    /// How many of them were, in this phase.
    pub done: u64,
}

/// What a check looks at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[derive(utoipa::ToSchema)]
pub enum CheckPhase {
    /// Whether records can be read.
    Records,
    /// Whether bodies are what they were.
    Bodies,
    /// Whether messages have their bodies and stand in their indexes.
    Messages,
    /// Whether indexes lead somewhere.
    Indexes,
    /// Whether every file is needed.
    Files,
    /// Whether counts are right.
    Counts,
}
